"""The switch by which people pause the intake, and what the dispatchers answer on it. Pure.

It is a ConfigMap, `names.PAUSE`, beside the Jobs: every dispatcher of the namespace reads it, and while it is on writes
there how many messages it still has in hand. Its data:

    paused          since when (RFC 3339); missing, empty or "false": not paused
    pause           an id of this pause, so that answers to one before do not count
    reason, by      for people
    in-hand.ID      a dispatcher's answer: the pause's id, the number of messages in hand, a number that changes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training_common.text import one_line

_ANSWER = "in-hand."
_LONGEST = 300


@dataclass(frozen=True)
class Pause:
    """since: RFC 3339, or what somebody wrote by hand; id: "" where it was switched by hand."""

    since: str
    id: str = ""
    reason: str = ""
    by: str = ""

    @property
    def sentence(self) -> str:
        """For people: since when, by whom, why, and whose turn it is."""
        who = f" by {self.by}" if self.by else ""
        why = f": {self.reason}" if self.reason else ""
        return f"paused since {self.since}{who}{why}; `dispatcher resume` ends it"


def pause_of(data: Mapping[str, str] | None) -> Pause | None:
    """What the ConfigMap says; None where nothing is paused. data: None where there is no ConfigMap."""
    since = _words(data, "paused")
    if data is None or since.lower() in ("", "false"):
        return None
    return Pause(since, data.get("pause", ""), _words(data, "reason"), _words(data, "by"))


def switched_on(data: Mapping[str, str], pause: Pause) -> dict[str, str | None]:
    """The change of the data that pauses, and removes what was answered to a pause before."""
    old = dict.fromkeys((key for key in data if key.startswith(_ANSWER)), None)
    return {**old, "paused": pause.since, "pause": pause.id, "reason": pause.reason, "by": pause.by}


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


def _words(data: Mapping[str, str] | None, key: str) -> str:
    """Anybody with the right may have written it: one line that is not too long."""
    return one_line((data or {}).get(key, ""))[:_LONGEST]
