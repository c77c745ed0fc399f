"""What the first process of a team and its helpers leave for each other: order, answers, and how one failed."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainer_image import errors
from trainer_image.config.model_config import parse_config
from trainer_image.contract import Place, RunInputs
from trainer_image.engine.plan import Plan
from trainer_image.errors import GpuFault, PeerLost, TrainerError, UsageError
from trainer_image.host.devices import computes_bfloat16
from trainer_image.limits import Limits
from trainer_image.tasks import hooks
from trainer_image.tasks.base import Problem, Recipe

# What is under these names in torch's store: the order for a node's processes before there is a team, who joins it,
# and what each helper says once it is ready.
ORDER, JOIN, READY = "order/{}", "join", "ready/{}"

# With fewer rows a process batch norm's statistics are noise, and most of the time goes into communication.
FEWEST_ROWS = 8


def listening(place: Place) -> socket.socket:
    """A socket on node 0's address alone. Raises PeerLost where there can be none: nobody could join."""
    try:
        found = socket.getaddrinfo(place.address, place.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(found[4][:2], family=found[0])
    except OSError as error:
        where = f"{place.address}, port {place.port}"
        why = str(error.strerror).partition(" (")[0]
        raise PeerLost(f"The others of the training cannot join: {where} cannot be opened ({why})") from None


def order_for(inputs: RunInputs, processes: int, device: torch.device) -> str:
    """All that `preparing.prepare` and `make_plan` look at, as JSON. processes: of a node"""
    return json.dumps(
        {
            "processes": processes,
            "device": device.type,
            "bfloat16": device.type == "cuda" and computes_bfloat16(inputs.device),
            "promised": inputs.gpus,
            "place": None if inputs.place is None else vars(inputs.place),
            "log_level": logging.getLogger().level,
            "config": inputs.config.resolved_yaml(),
            "data": str(inputs.data),
            "output": str(inputs.output),
            "initial": None if inputs.initial is None else str(inputs.initial),
            "run_id": inputs.run_id,
            "run_key": inputs.run_key,
            "dataset_fingerprint": inputs.dataset_fingerprint,
            "limits": vars(inputs.limits),
        }
    )


def order_of_node(first: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Node 0's order for another node, whose own one would be `ours`: with the place and the folders of that, as JSON.

    Raises UsageError where the nodes cannot train together, GpuFault where one has fewer GPUs than it was promised,
    PeerLost where this is another run's order: an address that was node 0's may be another pod's by now.
    """
    if first["run_id"] != ours["run_id"]:
        raise PeerLost("The others of the training are out of reach: another run answers at the first node's address")
    if any(first[name] != ours[name] for name in ("processes", "device", "bfloat16")):
        place = ours["place"]
        kind: type[TrainerError] = UsageError
        if any(order["device"] == "cuda" and order["processes"] < order["promised"] for order in (first, ours)):
            kind = GpuFault
        raise kind(
            f"Node {place['node'] + 1} of {place['nodes']} would train with {_with(ours)}, node 1 with {_with(first)}: "
            "every node needs the same number of processes (GPUs, or PROCESSES) of one kind"
        )
    return json.dumps({**first, **{name: ours[name] for name in ("place", "data", "output", "initial")}})


def _with(order: Mapping[str, Any]) -> str:
    count = order["processes"]
    number = f"{count} process{'es' if count > 1 else ''} on {order['device'].upper()}"
    return f"{number} without bfloat16" if order["device"] == "cuda" and not order["bfloat16"] else number


def inputs_of(order: Mapping[str, Any]) -> RunInputs:
    """The inverse of `order_for`. processes: of this node, always said"""
    return RunInputs(
        config=parse_config(order["config"].encode()),
        data=Path(order["data"]),
        output=Path(order["output"]),
        initial=None if order["initial"] is None else Path(order["initial"]),
        run_id=order["run_id"],
        run_key=order["run_key"],
        dataset_fingerprint=order["dataset_fingerprint"],
        device=order["device"],
        processes=order["processes"],
        place=None if order["place"] is None else Place(**order["place"]),
        limits=Limits(**order["limits"]),
        stop=threading.Event(),
        progress=lambda progress: None,
    )


def identity(problem: Problem, plan: Plan) -> str:
    """A digest of what must be the same on every rank: the model, the recipe, the shape of the data, which row is in
    which split."""
    shapes = {
        split: {name: [str(tensor.dtype), *tensor.shape] for name, tensor in batch.items()}
        for split, batch in problem.splits.items()
    }
    rows = {split: int(of.sum()) for split, of in problem.hashes.of.items()} if problem.hashes else {}
    same = [hooks.description_of(problem), repr(plan.recipe), plan.bfloat16, shapes, rows]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def useful(processes: int, asked: bool, recipe: Recipe) -> tuple[int, list[str]]:
    """How many of the processes this recipe can use, and a note when it cannot use all."""
    if processes > 1 and recipe.small and not asked:
        return 1, [f"1 of {processes} GPUs trains: a step is so little work that dividing it would cost time."]
    most = max(1, recipe.batch_size // FEWEST_ROWS)
    if processes > most:
        rows = f"a batch of {recipe.batch_size} rows is not divided into parts of fewer than {FEWEST_ROWS}"
        return most, [f"{most} of {processes} processes train: {rows}."]
    return processes, []


def failure_of(error: Exception) -> TrainerError:
    """The error as a TrainerError of the contract's own kinds, which `failure_in` finds by name."""
    if isinstance(error, TrainerError):
        kind: type[TrainerError] = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return kind(error.sentence)
    return TrainerError(f"Internal error: {type(error).__name__}: {error}")


def failure_in(error_file: Path) -> TrainerError | None:
    """The failure that a helper left in torch's error file; None: it left none."""
    try:
        recorded = json.loads(error_file.read_text())["message"]["message"]
    except (OSError, ValueError):  # ValueError: it was killed while it wrote
        return None
    name, _, sentence = recorded.partition(": ")
    kind: type[TrainerError] = getattr(errors, name)
    return kind(sentence)
