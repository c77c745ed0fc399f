"""From which of several queues messages are received next, and how many: a flood in one starves no other. Pure.

Whose turn it is goes by start-time fair queuing (Goyal, Vin, Cheng: SIGCOMM 1996): what a queue has given is told in
rounds, a message in 1/weight of one. The queue that is behind comes first; one that was empty, or had no room, begins
where the others are and makes up for nothing. So over time queues with messages and room give in the ratio of their
weights, and none waits for longer than the others' turns of one round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lane:
    """A queue. weight: more than 0; cap: most of its Jobs that may be unfinished, None where it has none of its own."""

    name: str
    weight: float = 1.0
    cap: int | None = None


def reserve(lanes: Sequence[Lane], most: int) -> int:
    """How many of the `most` unfinished Jobs are kept for each queue: a tenth, and one at least while there are enough.

    0 for a queue that is alone.
    """
    return min(max(1, most // 10), most // len(lanes)) if len(lanes) > 1 else 0


def rooms(lanes: Sequence[Lane], active: Mapping[str, int], most: int) -> dict[str, int]:
    """How many more Jobs each queue may have; 0 where it has none left.

    active: unfinished Jobs and messages in hand by queue. Those without a queue (""), from before there were several,
    are of the first; those of a queue that is not read any more take room from all.
    """
    count, free, kept = own(lanes, active), most - sum(active.values()), reserve(lanes, most)
    unused = {lane.name: max(0, _at_most(kept, lane) - count[lane.name]) for lane in lanes}
    found = {}
    for lane in lanes:
        for_others = sum(unused.values()) - unused[lane.name]
        room = _at_most(count[lane.name] + free - for_others, lane) - count[lane.name]
        # Its reserve is its own also where the others have more than they should: several replicas each received as
        # many at once, or the settings have changed.
        found[lane.name] = max(room, unused[lane.name])
    return found


def own(lanes: Sequence[Lane], active: Mapping[str, int]) -> dict[str, int]:
    """The unfinished Jobs of each queue. active: as `rooms` takes it."""
    count = {lane.name: active.get(lane.name, 0) for lane in lanes}
    count[lanes[0].name] += active.get("", 0)
    return count


def _at_most(number: int, lane: Lane) -> int:
    return number if lane.cap is None else min(number, lane.cap)


@dataclass(frozen=True)
class Turns:
    """What the queues have given, in rounds. at: where the last one began; ends: by queue, where what it gave ends."""

    at: float = 0.0
    ends: Mapping[str, float] = field(default_factory=dict)

    def order(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Whom to ask, the one that is behind first; of equals the one that comes first in `lanes`."""
        return sorted(lanes, key=self._start)

    def took(self, lane: Lane, number: int) -> Turns:
        """After so many messages of this queue."""
        start = self._start(lane)
        return Turns(start, {**self.ends, lane.name: start + number / lane.weight})

    def _start(self, lane: Lane) -> float:
        return max(self.at, self.ends.get(lane.name, 0.0))
