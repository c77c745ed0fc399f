"""Nodes of a training on this machine: each a process that has torch and the trainer imported when it begins."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.world.training_data import TABULAR, FolderStore, run_inputs
from trainer_image.contract import Place, RunInputs, RunResult
from trainer_image.engine import helper, processes, training
from trainer_image.engine.checkpoint import Checkpointer
from trainer_image.engine.steps.step import Stepper
from trainer_image.errors import TrainerError

# A process of this kind is forked from one that has imported all this, and computed nothing yet.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [__name__, "sklearn.linear_model", "trainer_image.tasks.tabular.task", "trainer_image.tasks.baselines"]
)

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Node:
    """What a node is given, and does beside its work. data: its own folder; store: node 0's, for checkpoints

    dies_at: it kills itself when it has taken this step; stops_at: it is asked to stop then; 0: never
    block_rows: its rows lie in files larger than its memory (see row_order.py)
    """

    folder: Path
    data: Path
    config: str = TABULAR
    processes: int = 1
    store: Path | None = None
    dies_at: int = 0
    stops_at: int = 0
    block_rows: int = 0

    def inputs(self, place: Place) -> RunInputs:
        """As this place of several, or of the only one."""
        store = None
        if self.store and place.node == 0:
            store = FolderStore(self.store)
            store.kept = sorted(self.store.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
        inputs = run_inputs(self.data, self.folder / "output", self.config, store=store)
        return replace(inputs, processes=self.processes, place=place if place.nodes > 1 else None)


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as server:
        port: int = server.getsockname()[1]
    return port


def train_together(nodes: Sequence[Node]) -> list[RunResult | TrainerError | int | None]:
    """What each node ends with: the first one's result, None of one that followed to the end, its error, or how the
    process ended that said nothing: an exit code, negative a signal."""
    port = free_port()
    running = []
    for number, node in enumerate(nodes):
        hears, tells = _context.Pipe(duplex=False)
        place = Place(number, len(nodes), ADDRESS, port)
        process = _context.Process(target=_run, args=(node, place, tells))
        process.start()
        tells.close()
        running.append((process, hears))
    try:
        return [_end(process, hears) for process, hears in running]
    finally:
        for process, _ in running:
            process.kill()


def _end(process: Any, hears: Connection) -> Any:
    if not hears.poll(240):
        raise TimeoutError("a node neither ends nor says why")
    try:
        return hears.recv()
    except EOFError:
        process.join(10)
        return process.exitcode


def _run(node: Node, place: Place, tells: Connection) -> None:
    inputs = node.inputs(place)
    step = Stepper.step

    def and_then(self: Stepper, state: Any, *arguments: Any) -> None:
        step(self, state, *arguments)
        if state.at.step == node.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if state.at.step == node.stops_at:
            inputs.stop.set()

    Stepper.step = and_then  # type: ignore[method-assign]
    # Small trainings would keep none before their end.
    Checkpointer.due = lambda self, *, epoch_ended: self._flight is None or self._flight.done()  # type: ignore[method-assign]
    # All nodes share this machine: threads that spin while they wait would take it from each other.
    training.usable_cpus = processes.usable_cpus = lambda: 1
    if node.block_rows:
        helper.block_rows = lambda split, processes: node.block_rows
    (node.folder / "output").mkdir(parents=True)
    try:
        tells.send(training.train(inputs) if place.node == 0 else training.follow(inputs))
    except TrainerError as error:
        tells.send(error)
