"""The switch by which people pause the intake, and what the dispatchers answer on it. Pure.

It is a ConfigMap, `names.PAUSE`, beside the Jobs: every dispatcher of the namespace reads it, and while it is on writes
there how many messages it still has in hand. Its data:

    paused          since when (RFC 3339); missing, empty or "false": not paused
    pause           an id of this pause, so that answers to one before do not count
    reason, by      for people
    paused.QUEUE    the same for one of several queues alone, with pause.QUEUE, reason.QUEUE, by.QUEUE
    in-hand.ID      a dispatcher's answer to a pause of all: its id, messages in hand, a number that changes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training_common.text import one_line

_ANSWER = "in-hand."
_KEYS = ("paused", "pause", "reason", "by")
_LONGEST = 300


@dataclass(frozen=True)
class Pause:
    """since: RFC 3339, or what somebody wrote by hand; id: "" where it was switched by hand; queue: "" for all."""

    since: str
    id: str = ""
    reason: str = ""
    by: str = ""
    queue: str = ""

    @property
    def sentence(self) -> str:
        """For people: since when, by whom, why, and whose turn it is."""
        who = f" by {self.by}" if self.by else ""
        why = f": {self.reason}" if self.reason else ""
        ends = f"dispatcher resume --queue {self.queue}" if self.queue else "dispatcher resume"
        return f"paused since {self.since}{who}{why}; `{ends}` ends it"


def pause_of(data: Mapping[str, str] | None, queue: str = "") -> Pause | None:
    """What the ConfigMap says of all queues together, or of one alone; None where that is not paused.

    data: None where there is no ConfigMap.
    """
    paused, id_, reason, by = (_words(data, key) for key in _keys(queue))
    return None if paused.lower() in ("", "false") else Pause(paused, id_, reason, by, queue)


def pauses_of_queues(data: Mapping[str, str] | None) -> dict[str, Pause]:
    """Queue → the pause of it alone."""
    queues = sorted(key.removeprefix("paused.") for key in data or () if key.startswith("paused."))
    return {queue: pause for queue in queues if (pause := pause_of(data, queue)) is not None}


def switched_on(data: Mapping[str, str], pause: Pause) -> dict[str, str | None]:
    """The change of the data that pauses; that of all removes what was answered to a pause before."""
    values = (pause.since, pause.id, pause.reason, pause.by)
    return {**({} if pause.queue else _answered(data)), **dict(zip(_keys(pause.queue), values, strict=True))}


def switched_off(data: Mapping[str, str], queue: str = "") -> dict[str, str | None]:
    """The change of the data that ends the pause of all, or of one queue; the other ones stay."""
    return {**({} if queue else _answered(data)), **dict.fromkeys(_keys(queue), None)}


def answer_of(dispatcher: str, pause: Pause, in_hand: int, beat: int) -> dict[str, str]:
    """The change of the data by which a dispatcher says how many messages it has in hand.

    beat: another number each time, by which a dispatcher that has died with messages in hand is known.
    """
    return {f"{_ANSWER}{dispatcher}": f"{pause.id} {in_hand} {beat}"}


def answers(data: Mapping[str, str], pause: Pause) -> dict[str, tuple[int, str]]:
    """Dispatcher → (messages in hand, the answer as it stands there), of those that answered to this pause."""
    found = {}
    for key, text in data.items():
        words = text.split(" ")
        if key.startswith(_ANSWER) and len(words) == 3 and words[0] == pause.id and words[1].isdecimal():
            found[key.removeprefix(_ANSWER)] = int(words[1]), text
    return found


def _answered(data: Mapping[str, str]) -> dict[str, str | None]:
    return dict.fromkeys((key for key in data if key.startswith(_ANSWER)), None)


def _keys(queue: str) -> tuple[str, ...]:
    return tuple(f"{key}.{queue}" if queue else key for key in _KEYS)


def _words(data: Mapping[str, str] | None, key: str) -> str:
    """Anybody with the right may have written it: one line that is not too long."""
    return one_line((data or {}).get(key, ""))[:_LONGEST]
