"""Who of a team is there, and whose failure ended a generation. Pure: times are parameters, in seconds of any clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from trainer_image.errors import PeerLost
from trainer_image.team.wire import Failed, Hello, node_name

# A node that stays silent after another one's failure may have been lost before it: every other one has to be heard
# so long afterwards.
SETTLE_SECONDS = 2.0
# Whoever only lost its peer may be the first to say so: a program takes its time to end, its starter even more.
ECHO_SECONDS = 10.0


@dataclass
class Seat:
    """A follower that is connected. heard: when last; doing: what it says that it is busy with"""

    pod: str
    heard: float
    state: Literal["preparing", "ready", "training", "done", "leaving"] = "preparing"
    doing: str = ""


@dataclass(frozen=True)
class Failure:
    at: float
    said: Failed

    @property
    def echo(self) -> bool:
        """It lost its peer, and says no more."""
        return self.said.code == PeerLost.code


@dataclass(frozen=True)
class Verdict:
    """Why all begin anew. culprit: the node whose own failure it was; None: one was lost, or leaves"""

    culprit: int | None
    why: str


@dataclass
class Roster:
    """Node 0's view of its team.

    training: a generation is under way; ended: node 0's own worker has come to its end in it
    """

    nodes: int
    processes: str
    run_id: str
    seats: dict[int, Seat] = field(default_factory=dict)
    training: bool = False
    ended: bool = False
    failures: dict[int, Failure] = field(default_factory=dict)
    _gone: list[str] = field(default_factory=list)

    def objection(self, hello: Hello) -> tuple[str, bool] | None:
        """(why this pod is not taken, whether that is for good); None: it may take its seat."""
        if hello.run_id != self.run_id:
            return f"node 1 trains run {self.run_id}, not {hello.run_id}: RUN_ID has to be the same on all nodes", True
        if hello.nodes != self.nodes or not 0 < hello.node < self.nodes:
            asked = f"NODE_RANK {hello.node} of NNODES {hello.nodes}"
            return f"{asked} does not go with {self.nodes} nodes, of which node 1 has NODE_RANK 0", True
        if hello.processes != self.processes:
            here = f"node 1 has {self.processes}, {node_name(hello.node, self.nodes)} {hello.processes}"
            return f"all nodes need the same GPUS and PROCESSES: {here}", True
        seat = self.seats.get(hello.node)
        if seat is not None and seat.pod != hello.pod:
            return f"pod {seat.pod} is {node_name(hello.node, self.nodes)} and still there", False
        return None

    def sit(self, hello: Hello, now: float) -> None:
        """Its earlier connection, where it has one, was lost."""
        self.lost(hello.node, "has connected anew")
        self.seats[hello.node] = Seat(hello.pod, now)

    def lost(self, node: int, why: str) -> None:
        """Nothing was lost with one that had done its part."""
        seat = self.seats.pop(node, None)
        if seat is not None and self.training and seat.state != "done":
            self._gone.append(f"{node_name(node, self.nodes)} {why}")

    def failed(self, node: int, said: Failed, now: float) -> None:
        """node 0: this one's own worker."""
        self.failures.setdefault(node, Failure(now, said))
        self.ended |= node == 0

    def missing(self) -> list[int]:
        """Nodes that are not ready for a generation."""
        return [node for node in range(1, self.nodes) if node not in self.seats or self.seats[node].state != "ready"]

    def waiting_text(self) -> str:
        """For people, while `missing`."""
        missing = self.missing()
        named = [
            f"{node + 1} ({self.seats[node].doing})" if node in self.seats and self.seats[node].doing else f"{node + 1}"
            for node in missing[:8]
        ]
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        return f"Waiting for {len(missing)} of {self.nodes} nodes: node {', node '.join(named)}{more}"

    def begin(self) -> None:
        self.training, self.ended = True, False
        self.failures, self._gone = {}, []
        for seat in self.seats.values():
            seat.state = "training"

    @property
    def leaving(self) -> list[str]:
        """Nodes whose pods are about to end, while a generation is under way."""
        named = ((node, seat) for node, seat in sorted(self.seats.items()) if self.training)
        return [f"{node_name(node, self.nodes)} leaves" for node, seat in named if seat.state == "leaving"]

    def verdict(self, now: float) -> Verdict | None:
        """Why the generation is over, once that is known; None: it goes on, or it is too early to say.

        A lost node explains every failure. Where none is lost, the first failure counts that is more than an echo.
        """
        if self._gone:
            return Verdict(None, self._gone[0])
        if leaving := self.leaving:
            return Verdict(None, leaving[0]) if self.ended else None  # its state is being saved
        if not self.failures:
            return None
        first = min(failure.at for failure in self.failures.values())
        others = [seat for node, seat in self.seats.items() if node not in self.failures]
        own = {node: failure for node, failure in self.failures.items() if not failure.echo}
        all_failed = self.training and not others and 0 in self.failures
        if not all_failed and now < first + (SETTLE_SECONDS if own else ECHO_SECONDS):
            return None
        if any(seat.heard < first + SETTLE_SECONDS for seat in others):
            return None
        culprit = _first(own or self.failures)
        said = self.failures[culprit].said.sentence
        return Verdict(culprit, f"{node_name(culprit, self.nodes)} has failed: {said}")

    def over(self) -> None:
        """Of a generation all places are free, else those of nodes that failed: who stays connects anew."""
        for node in [*(self.seats if self.training else self.failures)]:
            self.seats.pop(node, None)
        self.training = False
        self.failures, self._gone = {}, []


def _first(failures: dict[int, Failure]) -> int:
    nodes: Iterable[int] = failures
    return min(nodes, key=lambda node: (failures[node].at, node))
