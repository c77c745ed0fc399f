"""What a lost node costs a training: from its death to the next step of all, and what the time goes into.

Each node is a trainer on this machine, as docs/teams.md starts them by hand. The last one is killed with all of its
processes and started anew at once, so what a cluster needs for a pod is not in it; nor are the steps since the newest
checkpoint. The table is small and read in a moment: what is measured is the trainer.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from benchmarks.first_step import tree, write_table

# What node 1's log says, in this order, once another node is gone.
STAGES = {
    "the loss is noticed": "lost|closed the connection|has ended|begin anew",
    "the new trainer is connected": "is here",
    "all have read the data and are joined": "train together",
    "the next step is reported": " Epoch ",
}
PATIENCE_SECONDS = 300.0


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


class Nodes:
    """The trainers of one training; what node 1 says is heard with the time at which it came."""

    def __init__(self, count: int, folder: Path) -> None:
        self._folder, self._count = folder, count
        team, master = free_ports(2)
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "LOG_LEVEL": "DEBUG",
            "OMP_WAIT_POLICY": "passive",  # as the image says
            "RUN_ID": "lost-node",
            "NNODES": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(master),
            "TEAM_PORT": str(team),
        }
        self._said: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._running = [self._start(node) for node in range(count)]
        threading.Thread(target=self._listen, daemon=True).start()

    def _start(self, node: int) -> subprocess.Popen[str]:
        flags = ["--data=data", "--config=config.yaml", "--out=out", "--device=cpu"]
        return subprocess.Popen(
            [sys.executable, "-m", "trainer_image", "train", *flags],
            cwd=self._folder,
            env=self._environment | {"NODE_RANK": str(node)},
            stderr=subprocess.PIPE if node == 0 else subprocess.DEVNULL,
            text=True,
        )

    def _listen(self) -> None:
        stream = self._running[0].stderr
        assert stream is not None
        for line in stream:
            self._said.put((time.monotonic(), line))

    def heard(self, words: str) -> float:
        """When a line with one of these (divided by |) came; those before it are forgotten. Raises queue.Empty."""
        while True:
            at, line = self._said.get(timeout=PATIENCE_SECONDS)
            if any(word in line for word in words.split("|")):
                return at

    def lose_the_last(self) -> float:
        """Kills it, and starts it anew. When it was gone."""
        lost = self._running[-1]
        _kill(lost)
        at = time.monotonic()
        lost.wait()
        self._running[-1] = self._start(self._count - 1)
        return at

    def end(self) -> None:
        for node in self._running:
            _kill(node)
            node.wait()


def _kill(node: subprocess.Popen[str]) -> None:
    with suppress(FileNotFoundError):
        for pid in tree(node.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def table(count: int, times: int) -> str:
    """Seconds from the death, medians and the range, as a table."""
    with tempfile.TemporaryDirectory(prefix="lost-") as name:
        folder = Path(name)
        write_table(folder)
        nodes = Nodes(count, folder)
        try:
            found = []
            for _ in range(times):
                nodes.heard(STAGES["the next step is reported"])
                time.sleep(1.0)  # a checkpoint or two
                lost = nodes.lose_the_last()
                found.append([nodes.heard(words) - lost for words in STAGES.values()])
        finally:
            nodes.end()
    lines = [f"| seconds after one of {count} nodes was killed | median | range |", "| --- | --- | --- |"]
    for stage, seconds in zip(STAGES, zip(*found, strict=True), strict=True):
        lines.append(f"| {stage} | {statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} |")
    return "\n".join(lines)
