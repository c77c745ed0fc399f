"""Kills real trainings at random steps and while they store checkpoints, resumes them, and compares the end bit by bit.

python -m benchmarks.resume                   every task, 10 seeds each
python -m benchmarks.resume --task tabular    one task; may be repeated
python -m benchmarks.resume --seed 3          one training of each task, as it was interrupted among many
python -m benchmarks.resume --seed 3 8 5 5    another one of each, in the order of the tasks
python -m benchmarks.resume --processes 2     two processes train together, and one, in turn

Each seed is one training, interrupted up to three times: SIGKILL or SIGTERM at a random step, or SIGKILL between two
files of a checkpoint; sometimes the newest checkpoint is damaged afterwards. With one process the final weights and the
losses must be those of the training that nobody interrupted, bit by bit; exits 1 where they are not. With more
processes they must come to the same number of steps.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_stack.demo import data as demo_data
from trainer_image import cli
from trainer_image.engine import preparing, training
from trainer_image.engine.loop import Engine
from trainer_image.errors import EXIT_TERMINATED
from trainer_image.run import lifecycle
from trainer_image.storage.local import LocalContainer
from trainer_image.tasks.tabular.trees import boosted

# What a training imports on its way; an attempt is forked and finds it imported.
IMPORTED = (
    "sklearn.linear_model",
    "sklearn.svm",
    "sklearn.tree",
    "trainer_image.tasks.baselines",
    "trainer_image.tasks.image.task",
    "trainer_image.tasks.language.task",
    "trainer_image.tasks.tabular.task",
    "trainer_image.tasks.tabular.trees.boosting",
    "trainer_image.tasks.text.baselines",
    "trainer_image.tasks.text.task",
)


@dataclass(frozen=True)
class Case:
    """A small training of one task: what writes its data, and its config.yaml."""

    write: Callable[[Path], None]
    config: str


def _some_digits(folder: Path) -> None:
    demo_data.write_digits(folder, per_class=12)


def _lines_of_code(folder: Path) -> None:
    """Lines of two modules of the standard library, to be told apart."""
    folder.mkdir(parents=True)
    records = [
        {"text": line, "label": module.__name__}
        for module in (argparse, random)
        for line in [line for line in inspect.getsource(module).splitlines() if line.strip()][:100]
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def _source_text(folder: Path) -> None:
    """The beginning of a module of the standard library."""
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text(inspect.getsource(argparse)[:12_000])


# The budgets are so long that the clock cuts nothing short on any machine: an attempt without a checkpoint fits its
# candidates anew, and within an hour a busy machine may choose fewer trees than an idle one.
CASES = {
    "tabular": Case(
        demo_data.write_wine, "task: tabular\ndata: {target: cultivar}\ntrain: {epochs: 6, time_budget: 40d}\n"
    ),
    "image_classification": Case(
        _some_digits, "task: image_classification\ntrain: {epochs: 3, batch_size: 24, time_budget: 40d}\n"
    ),
    "text_classification": Case(
        _lines_of_code,
        "task: text_classification\nmodel: {preset: best}\ntrain: {epochs: 3, batch_size: 24, time_budget: 40d}\n",
    ),
    "language_model": Case(
        _source_text, "task: language_model\nmodel: {preset: fast}\ntrain: {epochs: 2, time_budget: 40d}\n"
    ),
}


@dataclass(frozen=True)
class Interruption:
    """How an attempt ends. step: of the optimizer, all attempts counted; file: of the checkpoint, the n-th stored."""

    way: str
    step: int = 0
    file: int = 0
    damage: str | None = None

    def __str__(self) -> str:
        where = f"file {self.file}" if self.way == "store" else f"step {self.step}"
        return f"{self.way} at {where}" + (f", {self.damage} afterwards" if self.damage else "")


def draw(chance: random.Random, steps: int) -> list[Interruption]:
    """One to three interruptions of a training with this number of steps."""
    drawn = []
    for _ in range(chance.randint(1, 3)):
        way = chance.choice(("kill", "kill", "term", "store"))
        damage = chance.choice((None, None, None, "cut", "flip", "lose the manifest"))
        drawn.append(Interruption(way, chance.randint(1, steps), chance.randint(1, 9), damage))
    return drawn


def attempt(folder: Path, data: Path, log: Path, interruption: Interruption | None, processes: int) -> int:
    """One run of the trainer in a process of its own, forked so that nothing is imported anew: its exit status.

    A status below zero is the signal that ended it.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        _checkpoint_eagerly()
        _boost_little()
        if interruption:
            _interrupt(interruption)
        flags = {"DATA": data, "OUT": folder, "CONFIG": folder.with_suffix(".yaml"), "RUN_ID": "run", "DEVICE": "cpu"}
        flags |= {"WORK_DIR": folder.with_suffix(".work"), "PROCESSES": processes}
        # In this process, which is interrupted, and not in a worker.
        lifecycle.run.__kwdefaults__["backend"] = lambda: training
        code = cli.train_command({name: str(value) for name, value in flags.items()})
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _checkpoint_eagerly() -> None:
    plan: Any = preparing.Plan
    preparing.Plan = lambda **settings: plan(**{**settings, "checkpoint_share": 1e9, "checkpoint_every": 0.01})  # type: ignore[assignment,misc]


def _boost_little() -> None:
    """All that a fit of trees does, in a tenth of the rounds: every attempt may have to fit them."""
    trees: Any = boosted
    trees.PLANS = ((2, True, 0.2),)


def _interrupt(interruption: Interruption) -> None:
    number = signal.SIGTERM if interruption.way == "term" else signal.SIGKILL
    if interruption.way == "store":
        upload, files = LocalContainer.upload, [0]

        def store(self: LocalContainer, name: str, file: Path, *etag: str | None) -> str:
            files[0] += name.startswith("checkpoints/")
            if files[0] == interruption.file:
                os.kill(os.getpid(), number)
            return upload(self, name, file, *etag)

        LocalContainer.upload = store  # type: ignore[method-assign]
        return
    after_step, sent = Engine._after_step, [False]

    def step(self: Engine, per_epoch: int) -> None:
        if self.state.at.step >= interruption.step and not sent[0]:
            sent[0] = True
            os.kill(os.getpid(), number)
        after_step(self, per_epoch)

    Engine._after_step = step  # type: ignore[method-assign]


def damage(folder: Path, how: str) -> bool:
    """Harms the newest checkpoint; whether there was one."""
    found = sorted(folder.glob("checkpoints/*/step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    if not found:
        return False
    tensors, manifest = found[-1] / "tensors.safetensors", found[-1] / "MANIFEST.json"
    if how == "lose the manifest":
        manifest.unlink(missing_ok=True)
    elif tensors.exists():
        content = bytearray(tensors.read_bytes())
        content[len(content) // 2] ^= 0xFF
        tensors.write_bytes(content if how == "flip" else content[: len(content) // 2])
    return True


def outcome(folder: Path) -> tuple[bytes, list[Any], dict[str, Any]]:
    """(weights, what must be equal of the history, the report's part on training)."""
    run = folder / "runs" / "run"
    report = json.loads((run / "report.json").read_text())
    history = [(r["phase"], r["epoch"], r["step"], r["loss"], r.get("validation")) for r in report["history"]]
    return (run / "model.safetensors").read_bytes(), history, report["training"]


def sweep(name: str, case: Case, seeds: Sequence[int], processes: int, place: Path) -> tuple[int, int, int]:
    """Prints one line for each seed that fails, and a sum. Returns (interruptions, resumed attempts, failures)."""
    began = time.monotonic()
    data = place / f"{name}-data"
    case.write(data)
    whole = place / f"{name}-whole"
    whole.with_suffix(".yaml").write_text(case.config)
    log = place / f"{name}.log"
    code = attempt(whole, data, log, None, 1)
    assert code == 0, f"the uninterrupted training ended with {code}: {log.read_text()[-2000:]}"
    weights, history, training_part = outcome(whole)
    steps = int(training_part["steps"])
    interrupted = resumed = failures = 0
    for seed in seeds:
        chance = random.Random(f"{name} {seed}")
        folder = place / f"{name}-{seed}"
        folder.with_suffix(".yaml").write_text(case.config)
        told: list[str] = []
        for number, interruption in enumerate(draw(chance, steps)):
            code = attempt(folder, data, log, interruption, processes if number % 2 == 0 else 1)
            if code == 0:
                break  # over before it could be interrupted
            expected = (EXIT_TERMINATED,) if interruption.way == "term" else (-signal.SIGKILL,)
            interrupted += 1
            harmed = interruption.damage is not None and damage(folder, interruption.damage)
            told.append(f"{interruption} ({'harmed' if harmed else 'as it was'}, exit {code})")
            if code not in expected:
                failures += 1
                print(f"{name} seed {seed}: exit {code} instead of {expected[0]} after {'; '.join(told)}")
        code = attempt(folder, data, log, None, 1)
        if code:
            failures += 1
            print(f"{name} seed {seed}: the last attempt ended with {code} after {'; '.join(told)}; log: {log}")
            continue
        ours, our_history, our_part = outcome(folder)
        resumed += our_part["resumed_from_step"] is not None
        same = our_part["steps"] == steps if processes > 1 else (ours, our_history) == (weights, history)
        if not same:
            failures += 1
            print(f"{name} seed {seed}: another end after {'; '.join(told)}")
    print(
        f"{name}: {len(seeds)} trainings of {steps} steps, {interrupted} interruptions, {resumed} resumed at the end, "
        f"{failures} wrong; {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return interrupted, resumed, failures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=tuple(CASES), help="only this task; may be repeated")
    parser.add_argument("--seeds", type=int, default=10, help="trainings a task (10)")
    parser.add_argument("--seed", type=int, nargs="+", help="only this one of them; several: one for each task")
    parser.add_argument("--processes", type=int, default=1, help="how many train together (1)")
    options = parser.parse_args(arguments)
    tasks = options.task or list(CASES)
    if options.seed and len(options.seed) not in (1, len(tasks)):
        parser.error(f"--seed takes one number, or one for each of {', '.join(tasks)}")
    each = [[seed] for seed in options.seed] if options.seed else [range(options.seeds)]
    several = each if len(each) > 1 else each * len(tasks)
    for module in IMPORTED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="resume-") as place:
        sums = [
            sweep(name, CASES[name], seeds, options.processes, Path(place))
            for name, seeds in zip(tasks, several, strict=True)
        ]
    interrupted, resumed, failures = (sum(column) for column in zip(*sums, strict=True))
    if not interrupted or not resumed:
        print("Nothing was interrupted and resumed: these trainings show nothing")
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
