"""A further process of a training on several GPUs: the command `train` where RANK, in the environment, is not 0.

The trainer starts it as torchrun would (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), and torchrun may start
it instead. By way of torch's store the first process says what to prepare and we that we are ready; then we hear

    begin → step, step, … → end

It reads the same dataset folder, holds the same network, and takes its part of every step that the first process
announces. It decides nothing, keeps nothing and ends with the first process.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed import rendezvous  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

from trainer_image.engine.batches import PhaseRows, phase_rows, phase_split
from trainer_image.engine.plan import Plan
from trainer_image.engine.preparing import make_plan, prepare
from trainer_image.engine.rendezvous import JOIN, ORDER, READY, failure_of, identity, inputs_of
from trainer_image.engine.state import TrainingState
from trainer_image.engine.step import Stepper, on_device
from trainer_image.engine.team import PATIENCE, Member, Word
from trainer_image.errors import TrainerError, causes
from trainer_image.host import child_environment, exhaustion, gpu_faults, memory
from trainer_image.tasks import plugins
from trainer_image.tasks.base import Problem

log = logging.getLogger(__name__)

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
        failure = exhaustion.found(error, kills_before) or failure_of(error)
        log.error("%s", failure.sentence, exc_info=None if isinstance(error, TrainerError) else error)
        if any(isinstance(seen, RuntimeError) for seen in causes(error)):
            time.sleep(LATER_SECONDS)
        get_error_handler().record_exception(failure)
        return failure.exit_code
    return 0


def _follow() -> None:
    store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
    order = json.loads(store.get(ORDER))
    logging.getLogger().setLevel(order["log_level"])
    inputs = inputs_of(order)
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
