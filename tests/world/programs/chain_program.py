"""A program on several nodes without torch: a step is a hash over what every rank sends, so a lost rank ends them all.

python chain_program.py STEPS SECONDS [RANK STEP CODE FILE]: the pause of a step; that rank ends so at that step, once

It writes the step that it is at to the file AT, where one is named, goes on from CHECKPOINT_DIR, leaves the last hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TextIO


def peers(rank: int, world: int) -> list[TextIO]:
    """Rank 0's to all others, in order; of another rank that to rank 0."""
    where = os.environ["PET_MASTER_ADDR"], int(os.environ["PET_MASTER_PORT"])
    if rank:
        while True:
            try:
                stream = socket.create_connection(where)
                break
            except OSError:
                time.sleep(0.02)
        stream.sendall(f"{rank}\n".encode())
        return [stream.makefile("rw", buffering=1)]
    found = {}
    with socket.create_server(where) as listener:
        while len(found) < world - 1:
            file = listener.accept()[0].makefile("rw", buffering=1)
            found[int(file.readline())] = file
    return [found[other] for other in sorted(found)]


def heard(file: TextIO) -> str:
    line = file.readline()
    if not line:
        raise ConnectionError("Connection closed by peer")
    return line.strip()


def main(steps: int, pause: float, failing: list[str]) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    saved = Path(os.environ["CHECKPOINT_DIR"], "state.json")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    begun = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "hash": ""}
    state, others = begun["hash"], peers(rank, world)
    for step in range(begun["step"], steps):
        if failing and [str(rank), str(step)] == failing[:2] and not Path(failing[3]).exists():
            Path(failing[3]).touch()
            sys.exit(int(failing[2]))
        time.sleep(pause)
        ours = f"{rank}:{step}:{'stop' if stopped else 'go'}"
        if rank:
            print(ours, file=others[0])
            state, ends = heard(others[0]).split()
        else:
            said = [ours, *map(heard, others)]
            state = hashlib.sha256("".join([state, *(word.rpartition(":")[0] for word in said)]).encode()).hexdigest()
            ends = "stop" if any(word.endswith("stop") for word in said) else "go"
            part = saved.with_name(".state.json")
            part.write_text(json.dumps({"step": step + 1, "hash": state}))
            part.replace(saved)
            if at := os.environ.get("AT"):
                Path(at).write_text(str(step + 1))
            with Path(os.environ["PROGRESS_FILE"]).open("a") as progress:
                print(json.dumps({"step": step + 1}), file=progress)
            for file in others:
                print(state, ends, file=file)
        if ends == "stop":
            return
    if rank == 0:
        Path(os.environ["OUTPUT_DIR"], "model.txt").write_text(state)


def undisturbed(steps: int, nodes: int = 2) -> str:
    """The hash that is left where nothing happens to any of the nodes."""
    state = ""
    for step in range(steps):
        said = "".join(f"{node}:{step}" for node in range(nodes))
        state = hashlib.sha256(f"{state}{said}".encode()).hexdigest()
    return state


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
