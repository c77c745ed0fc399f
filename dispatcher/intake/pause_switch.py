"""Looks every other second whether people have paused the intake, and answers while they have.

A crash anywhere here: the next process reads the switch before it receives its first message.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, ClusterForbidden
from dispatcher.decisions.pauses import Pause, answer_of, pause_of, pauses_of_queues
from dispatcher.ports import Switches

log = logging.getLogger(__name__)

# Seconds. A call of a few hundred bytes; whoever pauses waits for as long.
_EVERY = 2.0


@dataclass(eq=False)
class PauseSwitch:
    """dispatcher: an id of this process; in_hand(): how many messages are received and not settled."""

    cluster: Switches
    dispatcher: str
    in_hand: Callable[[], int]
    _: KW_ONLY
    stopping: threading.Event
    every: float = _EVERY

    pause: Pause | None = field(default=None, init=False)  # of all queues
    queues: dict[str, Pause] = field(default_factory=dict, init=False)  # of one queue alone, by its name
    problem: str = field(default="", init=False)  # why the switch cannot be read now
    is_known: bool = field(default=False, init=False)  # since it was read first
    _answered: tuple[str, int] = field(default=("", 0), init=False)  # the pause's id and the number, last written
    _beat: int = field(default=0, init=False)

    def holds(self, queue: str) -> bool:
        """Whether no message of this queue is received: a pause, or a start that does not know yet."""
        return self.pause is not None or queue in self.queues or not self.is_known

    def pause_of(self, queue: str) -> Pause | None:
        """What holds this queue, as far as it is known."""
        return self.pause or self.queues.get(queue)

    def run(self, alive: Callable[[], None]) -> None:
        while not self.stopping.is_set():
            self.look()
            alive()
            self.stopping.wait(self.every)

    def look(self) -> None:
        """Read the switch, and answer. What cannot be read leaves the last known state as it is."""
        try:
            data = self.cluster.get_config_map(names.PAUSE)
        except ClusterError as error:
            self._unread(error)
            return
        found, queues = pause_of(data), pauses_of_queues(data)
        if self.problem:
            log.info("The switch of `dispatcher pause` can be read again")
            self.problem = ""
        if found != self.pause:
            log.warning("Intake %s", f"is {found.sentence}" if found else "continues: `dispatcher resume`")
        for queue in sorted({*queues, *self.queues}):
            if (one := queues.get(queue)) != self.queues.get(queue):
                state = f"is {one.sentence}" if one else "continues: `dispatcher resume`"
                log.warning("Intake from queue %s %s", queue, state)
        self.pause, self.queues, self.is_known = found, queues, True
        if found is not None and found.id:
            self._answer(found)

    def _unread(self, error: ClusterError) -> None:
        # Without the right nobody of this dispatcher's Role can have paused it: a Role from before goes on as before.
        # In an outage nothing is known, and nothing could be launched.
        self.is_known = self.is_known or isinstance(error, ClusterForbidden)
        if not self.problem:
            state = "paused" if self.pause else "running" if self.is_known else "not known"
            log.warning(
                "The switch of `dispatcher pause` cannot be read: %s. The intake stays as it is: %s", error, state
            )
        self.problem = str(error)

    def _answer(self, pause: Pause) -> None:
        """While messages are in hand again and again, so that one who waits sees that this process lives; then once."""
        number = self.in_hand()
        if not number and self._answered == (pause.id, 0):
            return
        self._beat += 1
        try:
            self.cluster.patch_config_map(names.PAUSE, answer_of(self.dispatcher, pause, number, self._beat))
        except ClusterError as error:
            log.debug("%s; `dispatcher drain` does not hear of this process", error)
            return
        self._answered = pause.id, number
