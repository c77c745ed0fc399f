"""A program on several nodes: what torchrun and `env://` want to know, and whose failure its end is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from trainer_image.contract import RunInputs
from trainer_image.errors import PeerLost, TrainerError

# How gloo, NCCL and torch's store say that another process is gone, or out of reach.
LOST = re.compile(
    r"connection (?:was )?(?:likely )?(?:closed|reset|refused)|broken pipe|socket closed|remote process exit"
    r"|ncclRemoteError"
    r"|communicator was aborted|Dist(?:Network|Store|Backend)Error|Rendezvous(?:Connection|Timeout)Error"
    r"|(?:recv|send)(?:Value|Bytes|Vector)? ?failed|failed to (?:recv|send|connect)",
    re.IGNORECASE,
)
# torchrun's own choice.
_PORT = "29500"
# Further back nothing is told of the end.
_LAST = 200
_RAISED = re.compile(r"\b\w*(?:Error|Exception)\b")


def environment(inputs: RunInputs) -> dict[str, str]:
    """The variables of torchrun (PET_…), which then needs no options; on several nodes with one process each also those
    that `init_process_group("env://")` reads."""
    place, processes = inputs.place, _processes(inputs)
    if place is None:
        return {"PET_NPROC_PER_NODE": str(processes)}
    given = {
        "NNODES": place.nodes,
        "NODE_RANK": place.node,
        "MASTER_ADDR": os.environ.get("MASTER_ADDR") or place.address,
        "MASTER_PORT": place.port,
    }
    given |= {f"PET_{name}": value for name, value in given.items()} | {"PET_NPROC_PER_NODE": processes}
    if processes == 1:
        given |= {"RANK": place.node, "WORLD_SIZE": place.nodes, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    return {name: str(value) for name, value in given.items()}


def alone(inputs: RunInputs) -> dict[str, str]:
    """What an argument may name of the nodes besides: the same argv then runs on one node, too."""
    given = {"NPROC_PER_NODE": str(_processes(inputs))}
    if inputs.place is None:
        given |= {"NNODES": "1", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _PORT}
    return given


def _processes(inputs: RunInputs) -> int:
    return inputs.processes or inputs.gpus or 1


def echo(error: TrainerError, lines: Sequence[str]) -> PeerLost | None:
    """What a program's failure is where it has only lost another node. lines: what it printed last

    The first error in them tells: a node that fails by itself says so before its own processes miss each other.
    """
    first = next((line for line in lines[-_LAST:] if LOST.search(line) or _RAISED.search(line)), "")
    if not LOST.search(first):
        return None
    return PeerLost(error.sentence, step=error.step)
