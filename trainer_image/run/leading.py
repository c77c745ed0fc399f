"""Node 0 of several: it trains as one node alone does, and anew for as long as another node is the reason."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.contract import Place, Progress, RunInputs, RunResult
from trainer_image.errors import TrainerError
from trainer_image.run.backend import Workers
from trainer_image.stop import Stop
from trainer_image.team.leader import Leader
from trainer_image.team.roster import Roster
from trainer_image.team.wire import Welcome
from trainer_image.transfer.checkpoint_store import ContainerCheckpoints
from trainer_image.transfer.publish import Latest
from trainer_image.worker import messages


def processes(settings: Settings) -> str:
    """What has to be the same on all nodes, as sentences have it."""
    return f"GPUS={settings.gpus} PROCESSES={settings.processes}"


def leader(
    settings: Settings, stop: Stop, config: Config, key: str, fingerprint: str, start: Latest | None
) -> AbstractContextManager[Leader | None]:
    """The link to the other nodes; None where there are none. start: the model of a warm start"""
    if settings.nodes == 1:
        return nullcontext()
    initial = (start.run_id, start.manifest_sha256) if start and start.run_id and start.manifest_sha256 else None
    return Leader(
        (settings.pod_ip or settings.master_address or "", settings.team_port),
        Roster(settings.nodes, processes(settings), settings.run_id),
        Welcome(messages.config_bytes(config), key, fingerprint, initial),
        stop,
        stays=settings.dispatched,
    )


def train(
    leader: Leader,
    workers: Workers,
    settings: Settings,
    inputs: RunInputs,
    train: Callable[[RunInputs], RunResult],
) -> tuple[RunResult, RunInputs]:
    """The result, and the inputs of the generation that it is of. train: what one node alone does

    Raises what ends this node.
    """
    checkpoints = inputs.checkpoints
    assert isinstance(checkpoints, ContainerCheckpoints)
    place = Place(0, settings.nodes, settings.pod_ip or settings.master_address or "", settings.master_port)
    step = 0

    def progress(said: Progress) -> None:
        nonlocal step
        step = said.step
        inputs.progress(Progress(f"{said.message}, on {settings.nodes} nodes", said.step))

    def wait(text: str) -> None:
        inputs.progress(Progress(text, step))

    for generation in itertools.count(1):
        if generation > 1:
            workers.renew()
        newest = checkpoints.newest()  # one that is on its way is waited for, then nobody needs the folder
        folder = inputs.output.with_name(f"generation-{generation}")
        shutil.rmtree(folder.with_name(f"generation-{generation - 1}"), ignore_errors=True)
        given = replace(inputs, output=folder / "output", place=place, progress=progress, stop=threading.Event())
        given.output.mkdir(parents=True)
        leader.begin(newest, given.stop, workers.now.abandon, wait)
        try:
            result = train(given)
        except TrainerError as error:
            leader.judge(error)
        else:
            leader.trained()
            return result, given
    raise AssertionError("it returns or raises")
