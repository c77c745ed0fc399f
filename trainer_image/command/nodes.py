"""A program on several nodes: what torchrun and `env://` want to know, and whose failure its end is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from trainer_image.contract import RunInputs
from trainer_image.errors import PeerLost, TrainerError

# How gloo, NCCL and torch's store say that another process is gone, or out of reach.
_LOST = re.compile(
    r"connection (?:was )?(?:likely )?(?:closed|reset|refused)|broken pipe|socket closed|remote process exit"
    r"|ncclRemoteError"
    r"|communicator was aborted|Dist(?:Network|Store|Backend)Error|Rendezvous(?:Connection|Timeout)Error"
    r"|(?:recv|send)(?:Value|Bytes|Vector)? ?failed|failed to (?:recv|send|connect)",
    re.IGNORECASE,
)
_RAISED = re.compile(r"\b\w*(?:Error|Exception)\b")


def environment(inputs: RunInputs) -> dict[str, str]:
    """Nothing on one node. The variables of torchrun (PET_…), which then needs no options; with one process a node also
    those that `init_process_group("env://")` reads."""
    place = inputs.place
    if place is None:
        return {}
    processes = inputs.processes or inputs.gpus or 1
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


def echo(error: TrainerError, lines: Iterable[str]) -> PeerLost | None:
    """What a program's failure is where it has only lost another node. lines: what it printed last

    The first error in them tells: a node that fails by itself says so before its own processes miss each other.
    """
    first = next((line for line in lines if _LOST.search(line) or _RAISED.search(line)), "")
    if not _LOST.search(first):
        return None
    return PeerLost(error.sentence, step=error.step)
