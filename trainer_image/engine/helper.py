"""A helper of a training on several GPUs or nodes: every process of it but rank 0.

On a further node the worker itself is one. The others are programs of their own, with a RANK in the environment: the
trainer starts them as torchrun would (RANK, LOCAL_RANK, GROUP_RANK, MASTER_ADDR, MASTER_PORT), or torchrun starts them.
A helper receives through torch's store what to prepare, answers that it is ready, and follows the commands of rank 0:

    begin → step, step, … → end

It reads the same dataset, holds the same network, and computes its part of every step. It decides nothing, keeps
nothing and ends with rank 0.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

import torch
from torch.distributed import Store, rendezvous  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

from trainer_image.contract import RunInputs
from trainer_image.engine.plan import Plan
from trainer_image.engine.preparing import make_plan, prepare
from trainer_image.engine.rendezvous import JOIN, ORDER, READY, failure_of, identity, inputs_of, useful
from trainer_image.engine.steps.batches import PhaseRows, phase_rows, phase_split
from trainer_image.engine.steps.row_order import block_rows
from trainer_image.engine.steps.state import TrainingState
from trainer_image.engine.steps.step import Stepper, on_device
from trainer_image.engine.team import PATIENCE, Command, Member, reaching_others
from trainer_image.errors import PeerLost, TrainerError, causes
from trainer_image.host import exhaustion, gpu_faults, memory
from trainer_image.tasks import plugins
from trainer_image.tasks.base import Problem

log = logging.getLogger(__name__)

# A helper whose partner is gone fails, too. It waits so long first, that rank 0 reports the one that failed by itself.
LATER_SECONDS = 5.0


def main() -> int:
    """Exit code of the process: 0 after `end`, else the failure's own, recorded in torch's error file."""
    # If rank 0 is killed, nobody else would end this process.
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    # Ctrl-C reaches every process of a terminal: rank 0 finishes the step with the helpers, then ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rank = int(os.environ["RANK"])
    logging.basicConfig(format=f"%(asctime)s %(levelname)s [process {rank}] %(message)s", force=True)
    return recorded(_follow)


def recorded(work: Callable[[], None]) -> int:
    """Exit code of this work: 0, or that of its failure, which is written to torch's error file."""
    kills_before = memory.kills()
    try:
        work()
    except Exception as error:
        failure = exhaustion.found(error, kills_before) or failure_of(error)
        log.error("%s", failure.sentence, exc_info=None if isinstance(error, TrainerError) else error)
        if any(isinstance(seen, RuntimeError | PeerLost) for seen in causes(error)):
            time.sleep(LATER_SECONDS)
        get_error_handler().record_exception(failure)
        return failure.exit_code
    return 0


def _follow() -> None:
    with reaching_others():
        store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
        order = json.loads(store.get(ORDER.format(os.environ["GROUP_RANK"])))
    logging.getLogger().setLevel(order["log_level"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if order["device"] == "cuda" else torch.device("cpu")
    torch.set_num_threads(1)  # until the number of processes is known

    def joined() -> bytes:
        with reaching_others():
            said: bytes = store.get(JOIN)
        # torchrun sends SIGTERM to every process at once: rank 0 still needs this one for the step, and then ends it.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return said

    inputs = inputs_of(order)
    # A GPU's failure is not the plug-in's: the same order as in `training.train`.
    with plugins.blames(inputs.config.custom.entry_point), gpu_faults.as_gpu_failures():
        help_out(store, rank, inputs, device, joined)


def help_out(store: Store, rank: int, inputs: RunInputs, device: torch.device, joined: Callable[[], bytes]) -> None:
    """Trains along as this rank, to the end; where the team has no use for it, it has only prepared.

    inputs: of an order; joined: waits for what is under JOIN, and returns it
    """
    problem = prepare(inputs, inputs.processes)
    plan = make_plan(inputs, problem.recipe, device)
    if place := inputs.place:
        # A spare node asks nothing more: the others may have trained before it has read the dataset.
        count, _ = useful(inputs.processes * place.nodes, True, plan.recipe)
        if rank >= count:
            return
    blocks = block_rows(problem.splits["train"], inputs.processes)
    with reaching_others():
        store.set(READY.format(rank), json.dumps({"identity": identity(problem, plan), "block_rows": blocks}))
    join = json.loads(joined())
    if rank >= join["world"]:
        return
    torch.set_num_threads(join["threads"])
    if join["size"]:
        problem.resize(join["size"])
        plan = make_plan(inputs, problem.recipe, device)
    member = Member(store, rank, join["world"], plan.device, inputs.place)
    in_peace = False
    try:
        Helper(problem, plan, member).follow()
        in_peace = True
    finally:
        member.leave(in_peace=in_peace)


class Helper:
    """Follows the commands of rank 0 until `end`."""

    def __init__(self, problem: Problem, plan: Plan, member: Member) -> None:
        self._problem, self._plan, self._member = problem, plan, member
        torch.manual_seed(plan.seed)
        self._model = on_device(problem.predictor.build_model(), plan.device)
        self._stepper = Stepper(problem, plan, self._model, member, [])
        self._state: TrainingState | None = None
        self._rows: PhaseRows | None = None

    def follow(self) -> None:
        try:
            self._obey()
        finally:
            # Threads that make batches would be waited for when the process ends, whatever they are at.
            if self._rows:
                self._rows.close()

    def _obey(self) -> None:
        while True:
            command = self._member.receive()
            match command.name:
                case "begin":
                    self._begin()
                case "probe" | "step":
                    self._step(command)
                case "compile":
                    self._stepper.compiling.start()
                case "eager":
                    self._stepper.compiling.stop()
                case _:
                    return

    def _begin(self) -> None:
        state = self._stepper.fresh_state(self._model)
        self._member.begin(state)
        # Rank 0 keeps the average and the best weights.
        state.average = state.best = None
        state.model.train()
        if self._rows:
            self._rows.close()
        self._state = state
        split = phase_split(self._problem, state.at)
        self._rows = phase_rows(self._problem, split, self._plan, state.at, self._member)

    def _step(self, command: Command) -> None:
        state, rows = self._state, self._rows
        assert state is not None
        assert rows is not None
        for name, value in command.at.items():
            setattr(state.at, name, value)
        # Random numbers follow from the step and rank alone: a resumed training draws the same ones.
        torch.manual_seed((self._plan.seed * 1_000_003 + state.at.step * 4099 + self._member.rank) % 2**63)
        batch, share = rows.batch(state.at.epoch, state.at.batch, equal=command.equal)
        (self._stepper.step if command.name == "step" else self._stepper.probe)(state, batch, share)


if __name__ == "__main__":
    sys.exit(main())
