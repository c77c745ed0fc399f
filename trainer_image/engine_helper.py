"""A further process of a training on several GPUs: `python -m trainer_image.engine_helper`, started by the trainer.

    ours, a JSON line each on stdin:  what to prepare → join → begin → step, step, … → end
    answers on standard output:       ready, or how it failed

It reads the same dataset folder, holds the same network, and takes its part of every step that the first process
announces. It decides nothing, keeps nothing and ends with the first process, whose end closes its stdin.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from trainer_image import checkpoint, plugins
from trainer_image.contract import Limits, RunInputs
from trainer_image.engine_plan import Plan
from trainer_image.engine_rows import PhaseRows
from trainer_image.engine_state import REFIT, TrainingState
from trainer_image.engine_step import Stepper, on_device
from trainer_image.engine_team import STORE, Member
from trainer_image.errors import EXIT_TERMINATED, TrainerError
from trainer_image.tasks.base import Problem, joined

log = logging.getLogger(__name__)


def main() -> int:
    """Exit code of the process: 0 after `end`, else the failure's own."""
    # The first process is told to stop, ends the step with us and then ends us; Ctrl-C reaches a whole terminal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # What a task prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    words = _listen()
    order = words.get()
    logging.basicConfig(
        level=order["log_level"], format=f"%(asctime)s %(levelname)s [process {order['rank']}] %(message)s"
    )

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")

    try:
        _follow(order, words, answer)
    except TrainerError as error:
        answer(failed=error.sentence, code=error.code, step=error.step)
        return error.exit_code
    except Exception as error:
        log.exception("A further process of the training failed")
        answer(failed=f"Internal error: {type(error).__name__}: {error}", code=_code(error), step=None)
        return 70
    return 0


def _code(error: Exception) -> str:
    return "GpuFault" if isinstance(error, torch.AcceleratorError) else "InternalError"


def _listen() -> queue.Queue[dict[str, Any]]:
    """What the first process says, in a thread of its own: when it is gone we end, even in the midst of a call."""
    words: queue.Queue[dict[str, Any]] = queue.Queue()

    def listen() -> None:
        said: dict[str, Any] = {}
        for line in sys.stdin:
            said = json.loads(line)
            words.put(said)
        if said.get("do") != "end":
            os._exit(EXIT_TERMINATED)

    threading.Thread(target=listen, name="first process", daemon=True).start()
    return words


def order_for(inputs: RunInputs, rank: int, processes: int, device: torch.device) -> dict[str, Any]:
    """The first line for a process: all that `training.prepare` and `make_plan` look at, as plain JSON."""
    return {
        "rank": rank,
        "processes": processes,
        "device": str(device),
        "log_level": logging.getLogger().level,
        "config": inputs.config.resolved_yaml(),
        "data": str(inputs.data),
        "output": str(inputs.output),
        "run_id": inputs.run_id,
        "run_key": inputs.run_key,
        "dataset_fingerprint": inputs.dataset_fingerprint,
        "limits": vars(inputs.limits),
    }


def _inputs(order: Mapping[str, Any]) -> RunInputs:
    from trainer_image.config import parse_config

    return RunInputs(
        config=parse_config(order["config"].encode()),
        data=Path(order["data"]),
        output=Path(order["output"]),
        run_id=order["run_id"],
        run_key=order["run_key"],
        dataset_fingerprint=order["dataset_fingerprint"],
        device=order["device"],
        limits=Limits(**order["limits"]),
        stop=threading.Event(),
        progress=lambda progress: None,
    )


def _follow(order: Mapping[str, Any], words: queue.Queue[dict[str, Any]], answer: Callable[..., None]) -> None:
    from trainer_image.training import make_plan, prepare

    inputs = _inputs(order)
    torch.set_num_threads(1)  # until we know how many we are
    with plugins.blames(inputs.config.custom.entry_point):
        problem = prepare(inputs, order["processes"])
        plan = make_plan(inputs, problem.recipe, torch.device(order["device"]))
        answer(ready=identity(problem, plan))
        word = words.get()
        if word["do"] != "join":
            return
        torch.set_num_threads(word["threads"])
        member = Member(order["rank"], word["world"], plan.device, Path(word["folder"]) / STORE)
        Helper(problem, plan, member).follow(words)
        member.leave()


def identity(problem: Problem, plan: Plan) -> str:
    """What must be the same for all processes of a team, as one text: the model, the recipe, the shape of the data."""
    shapes = {
        split: {name: [str(tensor.dtype), *tensor.shape] for name, tensor in batch.items()}
        for split, batch in problem.splits.items()
    }
    return json.dumps([problem.model_description(), repr(plan.recipe), plan.bfloat16, shapes], sort_keys=True)


class Helper:
    """Does what the first process says until it says `end`."""

    def __init__(self, problem: Problem, plan: Plan, member: Member) -> None:
        self._problem, self._plan, self._member = problem, plan, member
        torch.manual_seed(plan.seed)
        self._model = on_device(problem.predictor.build_model(), plan.device)
        self._stepper = Stepper(problem, plan, self._model, member, [])
        self._state: TrainingState | None = None
        self._rows: PhaseRows | None = None

    def follow(self, words: queue.Queue[dict[str, Any]]) -> None:
        while True:
            word = words.get()
            match word["do"]:
                case "begin":
                    self._begin(Path(word["folder"]))
                case "probe" | "step" as what:
                    self._step(word, take_it=what == "step")
                case "compile":
                    self._stepper.compiling.start()
                case "eager":
                    self._stepper.compiling.stop()
                case _:
                    break
        if self._rows:
            self._rows.close()

    def _begin(self, folder: Path) -> None:
        state = self._stepper.fresh_state(self._model)
        state.load(checkpoint.read(folder))
        # The first process keeps the average and the best weights.
        state.average = state.best = None
        state.model.train()
        if self._rows:
            self._rows.close()
        refit = state.at.phase == REFIT
        splits = self._problem.splits
        self._state = state
        self._rows = PhaseRows(
            joined(splits["train"], splits["validation"]) if refit else splits["train"],
            self._plan.recipe.batch_size,
            self._plan.device,
            (self._plan.seed, refit),
            (self._member.rank, self._member.world),
        )

    def _step(self, word: Mapping[str, Any], *, take_it: bool) -> None:
        state, rows = self._state, self._rows
        assert state is not None
        assert rows is not None
        for name in ("step", "phase_step", "planned", "epoch", "batch", "micro_batch"):
            setattr(state.at, name, word[name])
        # Our random numbers follow from the step alone: a resumed training draws the same again.
        torch.manual_seed((self._plan.seed * 1_000_003 + state.at.step * 4099 + self._member.rank) % 2**63)
        batch, share = rows.batch(state.at.epoch, state.at.batch, equal=word["equal"])
        (self._stepper.step if take_it else self._stepper.probe)(state, batch, share)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Threads that still wait for a word do not keep it.
    os._exit(code)
