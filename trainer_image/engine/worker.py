"""A further process of a training on several GPUs: the command `train` where RANK, in the environment, is not 0.

The trainer starts it as torchrun would (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), and torchrun may start
it instead. By way of torch's store the first process says what to prepare and we that we are ready; then we hear

    begin → step, step, … → end

It reads the same dataset folder, holds the same network, and takes its part of every step that the first process
announces. It decides nothing, keeps nothing and ends with the first process.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed import rendezvous  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

from trainer_image import errors
from trainer_image.contract import RunInputs
from trainer_image.engine.batches import PhaseRows, phase_rows, phase_split
from trainer_image.engine.plan import Plan
from trainer_image.engine.state import TrainingState
from trainer_image.engine.step import Stepper, on_device
from trainer_image.engine.team import PATIENCE, Member, Word
from trainer_image.errors import TrainerError, causes
from trainer_image.host import child_environment, exhaustion, gpu_faults, memory
from trainer_image.limits import Limits
from trainer_image.tasks import plugins
from trainer_image.tasks.base import Problem

log = logging.getLogger(__name__)

# What is under these names in the store: the first process's words before there is a team, and each one's answer.
ORDER, JOIN, READY = "order", "join", "ready/{}"
# Where another process is gone we fail, too; so much later that the first process sees that one and ends us.
LATER_SECONDS = 5.0


def main() -> int:
    """Exit code of the process: 0 after `end`, else the failure's own, told in torch's error file."""
    # Whatever we wait for: where the first process is killed nobody else would end us.
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    # Ctrl-C reaches a whole terminal: the first process ends the step with us and then ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in os.environ.keys() - child_environment.without_credentials().keys():
        del os.environ[name]
    rank = int(os.environ["RANK"])
    logging.basicConfig(format=f"%(asctime)s %(levelname)s [process {rank}] %(message)s", force=True)
    return recorded(_follow)


def recorded(work: Callable[[], None]) -> int:
    """Exit code of this work: 0, or that of its failure, which is then in torch's error file."""
    kills_before = memory.kills()
    try:
        work()
    except Exception as error:
        failure = exhaustion.found(error, kills_before) or _failure(error)
        log.error("%s", failure.sentence, exc_info=None if isinstance(error, TrainerError) else error)
        if any(isinstance(seen, RuntimeError) for seen in causes(error)):
            time.sleep(LATER_SECONDS)
        get_error_handler().record_exception(failure)
        return failure.exit_code
    return 0


def failure_in(error_file: Path) -> TrainerError | None:
    """The failure that another process `recorded`; None: it ended without words."""
    try:
        told = json.loads(error_file.read_text())["message"]["message"]
    except (OSError, ValueError):  # ValueError: it was killed while it wrote
        return None
    name, _, sentence = told.partition(": ")
    kind: type[TrainerError] = getattr(errors, name)
    return kind(sentence)


def _failure(error: Exception) -> TrainerError:
    """As one of the contract's own kinds, to be known again by its name."""
    if isinstance(error, TrainerError):
        kind: type[TrainerError] = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return kind(error.sentence)
    return TrainerError(f"Internal error: {type(error).__name__}: {error}")


def order_for(inputs: RunInputs, processes: int, device: torch.device) -> str:
    """All that `training.prepare` and `make_plan` look at, as JSON."""
    return json.dumps(
        {
            "processes": processes,
            "device": device.type,
            "log_level": logging.getLogger().level,
            "config": inputs.config.resolved_yaml(),
            "data": str(inputs.data),
            "output": str(inputs.output),
            "run_id": inputs.run_id,
            "run_key": inputs.run_key,
            "dataset_fingerprint": inputs.dataset_fingerprint,
            "limits": vars(inputs.limits),
        }
    )


def _inputs(order: Mapping[str, Any]) -> RunInputs:
    from trainer_image.config.model_config import parse_config

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


def _follow() -> None:
    from trainer_image.engine.training import make_plan, prepare

    store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
    order = json.loads(store.get(ORDER))
    logging.getLogger().setLevel(order["log_level"])
    inputs = _inputs(order)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if order["device"] == "cuda" else torch.device("cpu")
    torch.set_num_threads(1)  # until we know how many we are
    # A GPU's failure is nobody's code: the first process tells them apart in the same order.
    with plugins.blames(inputs.config.custom.entry_point), gpu_faults.told():
        problem = prepare(inputs, order["processes"])
        plan = make_plan(inputs, problem.recipe, device)
        store.set(READY.format(rank), identity(problem, plan))
        join = json.loads(store.get(JOIN))
        if rank >= join["world"]:
            return
        # torchrun passes SIGTERM on to everyone at once: the first process still needs us for the step, and ends us.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        torch.set_num_threads(join["threads"])
        member = Member(store, rank, join["world"], plan.device, Path(join["folder"]))
        Helper(problem, plan, member).follow()
        member.leave()


def identity(problem: Problem, plan: Plan) -> str:
    """A digest of what must be the same for all processes of a team: the model, the recipe, the shape of the data."""
    shapes = {
        split: {name: [str(tensor.dtype), *tensor.shape] for name, tensor in batch.items()}
        for split, batch in problem.splits.items()
    }
    same = [problem.model_description(), repr(plan.recipe), plan.bfloat16, shapes]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


class Helper:
    """Does what the first process says until it says `end`."""

    def __init__(self, problem: Problem, plan: Plan, member: Member) -> None:
        self._problem, self._plan, self._member = problem, plan, member
        torch.manual_seed(plan.seed)
        self._model = on_device(problem.predictor.build_model(), plan.device)
        self._stepper = Stepper(problem, plan, self._model, member, [])
        self._state: TrainingState | None = None
        self._rows: PhaseRows | None = None

    def follow(self) -> None:
        while True:
            word = self._member.hear()
            match word.do:
                case "begin":
                    self._begin()
                case "probe" | "step":
                    self._step(word)
                case "compile":
                    self._stepper.compiling.start()
                case "eager":
                    self._stepper.compiling.stop()
                case _:
                    break
        if self._rows:
            self._rows.close()

    def _begin(self) -> None:
        state = self._stepper.fresh_state(self._model)
        self._member.begin(state)
        # The first process keeps the average and the best weights.
        state.average = state.best = None
        state.model.train()
        if self._rows:
            self._rows.close()
        self._state = state
        self._rows = phase_rows(phase_split(self._problem, state.at), self._plan, state.at, self._member)

    def _step(self, word: Word) -> None:
        state, rows = self._state, self._rows
        assert state is not None
        assert rows is not None
        for name, value in word.at.items():
            setattr(state.at, name, value)
        # Our random numbers follow from the step alone: a resumed training draws the same again.
        torch.manual_seed((self._plan.seed * 1_000_003 + state.at.step * 4099 + self._member.rank) % 2**63)
        batch, share = rows.batch(state.at.epoch, state.at.batch, equal=word.equal)
        (self._stepper.step if word.do == "step" else self._stepper.probe)(state, batch, share)
