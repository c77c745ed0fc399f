"""When a report to the portal counts as acknowledged, superseded or refused: the one table, for both images (pure).

Before a write the portal is asked what it has (`before_write`); after it, how it ended decides (`after_failure`). The
portal has no compare-and-set, its answers may come from a cache or a replica that lags behind, and gateways answer in
its name: what a status or a refusal proves depends on what stood before our own write, and on what else is taken.

    shown                 our Processing was    it                                        then
    Completed, Failed     -                     is our own outcome, or is looked at again ACKNOWLEDGED
    another end           -                     cannot have stood there before            SUPERSEDED
    another end           -                     may, or the first look is too recent      LOOK_AGAIN
    another end           -                     is still there after any plausible lag    SUPERSEDED
    Processing            -                     -                                         WRITE
    Created, Reconfigure  never acknowledged    -                                         WRITE
    Created, Reconfigure  acknowledged          cannot have stood there before            SUPERSEDED
    Created, Reconfigure  acknowledged          may, or the first look is too recent      LOOK_AGAIN
    Created, Reconfigure  acknowledged          is still there after any plausible lag    SUPERSEDED

    a failed write                                                                        then
    409, 412, 423; no answer; 5xx; not confirmed                                          AGAIN, from the look on
    another 4xx than of key, model, time, conflict; denied by its body; with words left   SHORTER
    refused for less than a day                                                           AGAIN
    refused for a day, and no other model's outcome was taken in that time                AGAIN: the portal's outage
    refused for a day, while other models' outcomes were taken                            GIVEN_UP
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from enum import Enum, auto

from portal_client.errors import NotAcknowledged, PortalError
from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus

PLAUSIBLE_LAG = 60.0
"""Seconds by which a cache or a replica of the portal may be behind a write."""

GIVEN_UP_AFTER = 86_400.0
"""Seconds for which an outcome that the portal refuses is kept at least."""

_SHORT = 200  # characters
# So many answers of 500, or cut connections, in a row are taken for an outage, before the words are suspected.
_OUTAGE_ANSWERS = 4
# 4xx that are about the key, the model, the time or another writer. Firewalls refuse words by all others.
_NOT_THE_WORDS = {401, 404, 407, 408, 409, 410, 412, 421, 423, 425, 429}
# What rules of web application firewalls look for: quotes, tags, paths, code.
_PLAIN = re.compile(r"[^A-Za-z0-9 .,:-]+")


class Step(Enum):
    WRITE = auto()
    ACKNOWLEDGED = auto()  # an end stands there: nothing is left to report
    LOOK_AGAIN = auto()  # what is shown may be older than our own write
    SUPERSEDED = auto()  # somebody has moved on: nobody asks for this outcome any more
    SHORTER = auto()  # the same status with fewer words
    AGAIN = auto()  # later, from the look on
    GIVEN_UP = auto()


@dataclass(frozen=True)
class OwnWrites:
    """What we have written for the model so far.

    acknowledged: the portal has taken our Processing. before: what it showed before that; None where nobody knows.
    since: seconds since the last of our writes that it took. lag: seconds by which its answers may be behind.
    """

    acknowledged: bool
    before: ProcessingStatus | None = None
    since: float = float("inf")
    lag: float = PLAUSIBLE_LAG


def before_write(
    shown: ProcessingStatus, own: OwnWrites, doubted_for: float | None, outcome: ProcessingStatus | None = None
) -> Step:
    """The table's first half. doubted_for: seconds since a look first contradicted our writes; None: none has yet.

    outcome: of a training that tells its own, and never looks again: another end may be that of the training before.
    None: whoever writes looks at each model once more, later than any plausible lag.
    """
    if shown.is_terminal and outcome in (None, shown):
        return Step.ACKNOWLEDGED
    if shown is ProcessingStatus.PROCESSING or (shown.may_start and not own.acknowledged):
        return Step.WRITE
    return Step.SUPERSEDED if is_proof(shown, own, doubted_for) else Step.LOOK_AGAIN


def is_proof(shown: ProcessingStatus, own: OwnWrites, doubted_for: float | None) -> bool:
    """Whether somebody must have set the status after our own write: else it may be what stood there before.

    Before a launch there stands Created or Reconfigure; before Reconfigure, the end of the training before.
    """
    if own.before is ProcessingStatus.CREATED and shown is not ProcessingStatus.CREATED:
        return True
    if own.before is None and shown.is_terminal:
        return True
    return doubted_for is not None and min(own.since, doubted_for) >= own.lag


def after_failure(error: PortalError, *, words_left: bool, refused_for: float, others_taken: bool) -> Step:
    """The table's second half. refused_for: seconds since the portal first refused this outcome for good."""
    if words_left and _may_be_the_words(error):
        return Step.SHORTER
    if error.retryable or refused_for < GIVEN_UP_AFTER or not others_taken:
        return Step.AGAIN
    return Step.GIVEN_UP


def _may_be_the_words(error: PortalError) -> bool:
    status = error.status_code
    if status is None:
        return False
    # Success that its body denies; or a key that has just read the status, and may lack the right to write it.
    return isinstance(error, NotAcknowledged) or (400 <= status < 500 and status not in _NOT_THE_WORDS)


def may_become_the_words(error: PortalError) -> bool:
    """Whether a write that ends so again and again, though the status can be read, may be refused for its words: with
    500, by a column that is too short; by a firewall that cuts the connection.
    """
    return error.status_code == 500 or (error.status_code is None and error.ambiguous)


def wordings(sentence: str, code: str) -> tuple[str, ...]:
    """What may stand as `Message` under an outcome, the fullest first: a column is too short, or a firewall dislikes
    a word.
    """
    short = " ".join(_PLAIN.sub(" ", sentence[: 2 * _SHORT]).split())[:_SHORT].rstrip()
    return tuple(dict.fromkeys((sentence, short or code, code)))


def write(
    portal: Portal, model_id: str, status: ProcessingStatus, texts: tuple[str, ...], server_errors: int = 0
) -> str:
    """PUT with the fullest of `texts` that the portal takes, which is returned. Raises PortalError: that of the last.

    server_errors: how often in a row this has ended as `may_become_the_words` says. A few times may be an outage; then
    each try begins with the next text.
    """
    first = 0 if server_errors < _OUTAGE_ANSWERS else (server_errors - _OUTAGE_ANSWERS + 1) % len(texts)
    for number, text in enumerate(texts[first:], first + 1):
        try:
            portal.update_model_status(model_id, status, text)
        except PortalError as error:
            step = after_failure(error, words_left=number < len(texts), refused_for=0.0, others_taken=False)
            if step is not Step.SHORTER:
                raise
        else:
            return text
    raise AssertionError("the last text is returned or raises")


@dataclass(eq=False)
class OutcomeWrites:
    """Which models' outcomes (or requests) the portal takes and refuses: one refused model is its own matter, several
    without one that is taken are the portal's. Thread-safe; times in seconds, by the callers' clock.
    """

    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _taken: dict[str, float] = field(default_factory=dict, init=False)  # the last two models
    _refused: dict[str, str] = field(default_factory=dict, init=False)  # by model, in its words, since one was taken

    def taken(self, model_id: str, now: float) -> None:
        with self._guard:
            self._refused.clear()
            self._taken.pop(model_id, None)
            self._taken[model_id] = now
            while len(self._taken) > 2:
                del self._taken[next(iter(self._taken))]

    def refused(self, model_id: str, words: str) -> None:
        with self._guard:
            if model_id in self._refused or len(self._refused) < 2:
                self._refused[model_id] = words

    def forget(self, model_id: str) -> None:
        """Nothing is left to report for the model."""
        with self._guard:
            self._refused.pop(model_id, None)

    def others_taken(self, model_id: str, since: float) -> bool:
        """Whether the outcome of another model was taken at `since` or later."""
        with self._guard:
            return any(at >= since for model, at in self._taken.items() if model != model_id)

    def outage(self) -> str:
        """What the portal says where it takes no model's outcome; "" where it takes some, or one alone is refused."""
        with self._guard:
            return next(iter(self._refused.values())) if len(self._refused) > 1 else ""
