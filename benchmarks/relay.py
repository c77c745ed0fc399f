"""instead: what N status checks of trainings, and N progress messages that wait, cost through the relay and without"""

from __future__ import annotations

import logging
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.controller.pace import Pace
from dispatcher.launch.model_locks import ModelLocks
from dispatcher.relay.listener import RelayServer
from dispatcher.relay.relay import Relay
from dispatcher.relay.tokens import RelayTokens
from local_stack.portal.client import start_portal
from portal_client.client import PortalClient
from portal_client.errors import PortalError
from portal_client.statuses import ProcessingStatus

# As many trainings as the relay's cache knows, and those of them that ask.
_KNOWN, _ASKED = 10_000, 200
# Each asks, and may have something new to tell, once in STATUS_PROGRESS_SECONDS.
_EVERY = 30.0
# Of thousands only a few a second have their turn: here none.
_PACE = 0.001
_KEY, _RUN = "a-key-of-the-benchmarks-relay-of-no-use", "20261123t080000-1a2b3c4d"

Call = Callable[[PortalClient, str], object]


def run(count: int) -> None:
    """Print seconds and the relay's CPU for each call, and what the trainings would take of a core.

    A progress message is put off by the relay, and taken by the portal.
    """
    with tempfile.TemporaryDirectory() as folder, start_portal(Path(folder), _KEY) as portal:
        for number in range(_ASKED):
            portal.set_model(str(number), "Processing")
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        relay = context.Process(target=_serve, args=(theirs, portal.url), daemon=True)
        relay.start()
        theirs.close()
        try:
            address, shares = ours.recv(), []
            for what, call in (("status check", _read), ("progress", _write)):
                direct, relayed, cpu = _measured(portal.url, address, ours, count, call)
                shares.append(cpu * _KNOWN / _EVERY)
                print(
                    f"{what}: {direct * 1000:.2f} ms without the relay, {relayed * 1000:.2f} ms through it, ratio"
                    f" {relayed / direct:.2f}; {cpu * 1000:.2f} ms of the relay's CPU",
                    flush=True,
                )
        finally:
            relay.terminate()
            relay.join()
    each = f"each asks once in {_EVERY:g} s"
    print(f"{_KNOWN} trainings, {each}: {shares[0]:.0%} of a core; with progress each time {sum(shares):.0%}")


def _serve(pipe: Connection, portal: str) -> None:
    """The relay as a dispatcher has it, without one; tells its CPU seconds whenever it is asked."""
    logging.disable(logging.CRITICAL)
    jobs = {f"model-{number}": _job(number) for number in range(_KNOWN)}
    nothing: Any = None  # of the cluster nothing is asked while a model is Processing
    relay = Relay(
        RelayTokens([_KEY]),
        PortalClient(portal, _KEY, pool_size=32),
        nothing,
        ModelLocks(),
        Pace(_PACE),
        jobs.get,
        address=portal,
        auth_method="auto",
        stopping=threading.Event(),
    )
    server = RelayServer("127.0.0.1", 0, relay)
    server.start()
    pipe.send(f"http://127.0.0.1:{server.port}")
    while pipe.recv():
        pipe.send(time.process_time())


def _job(number: int) -> Job:
    metadata = {
        "name": f"model-{number}",
        "uid": str(number),
        "labels": {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: str(number)},
        "annotations": {names.MESSAGE_ID: "m", names.RUN_ID: _RUN, names.ACKNOWLEDGED: "true"},
        "finalizers": [names.FINALIZER],
    }
    return msgspec.convert({"metadata": metadata}, Job)


def _measured(portal: str, relay: str, pipe: Connection, count: int, call: Call) -> tuple[float, float, float]:
    """Median seconds of a call without and with the relay, in turn, and the relay's CPU seconds for each of it.

    Each call has a connection of its own, as after half a minute of silence.
    """
    quiet = logging.getLogger("benchmarks.relay")
    quiet.setLevel(logging.CRITICAL)  # a progress that has to wait for its turn is a warning of its client's
    tokens = RelayTokens([_KEY])
    took: tuple[list[float], list[float]] = ([], [])
    pipe.send(True)
    before = pipe.recv()
    for number in range(count):
        model = str(number % _ASKED)
        for way, seconds in zip(((portal, _KEY), (relay, tokens.make(model, _RUN))), took, strict=True):
            client = PortalClient(*way, pool_size=1, logger=quiet)
            began = time.monotonic()
            call(client, model)
            seconds.append(time.monotonic() - began)
    pipe.send(True)
    return statistics.median(took[0]), statistics.median(took[1]), (pipe.recv() - before) / count


def _read(client: PortalClient, model: str) -> object:
    return client.get_model_status(model)


def _write(client: PortalClient, model: str) -> None:
    try:
        client.update_model_status(model, ProcessingStatus.PROCESSING, f"Epoch {time.monotonic():.0f}")
    except PortalError as error:
        if error.status_code != 429:  # to wait for its turn
            raise
