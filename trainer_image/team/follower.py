"""A follower's end of the link, for one generation."""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from trainer_image.errors import Terminated, TrainerError
from trainer_image.stop import Stop
from trainer_image.team import wire
from trainer_image.team.wire import Connection, Lost

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
_Said = TypeVar("_Said", bound=wire.FromLeader)
# What ends a generation for this node, whatever it is at.
_LAST = (wire.Over, wire.Blamed, wire.Published, wire.Refused, wire.Ended)


class Closed(Exception):
    """The generation is over for this node. last: the leader's last word, None where it is gone without one"""

    def __init__(self, last: Any, why: str) -> None:
        super().__init__(why)
        self.last, self.why = last, why


class Session:
    """A connection to the leader. Raises OSError where nobody listens.

    interrupt: called from a thread as soon as the generation is over, to end the worker
    stopping: set when programs are to stop; address: the leader's
    """

    def __init__(self, where: tuple[str, int], hello: wire.Hello, stop: Stop) -> None:
        stream = socket.create_connection(where, CONNECT_SECONDS)
        self.address: str = stream.getpeername()[0]
        self.stopping = threading.Event()
        self.interrupt: Callable[[], None] = lambda: None
        self._stop = stop
        self._connection = Connection(stream, time.monotonic(), leads=False)
        self._connection.say(hello)
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed: Closed | None = None
        self._over = False
        self._leaves = False
        self._thread = threading.Thread(target=self._keep, name="team", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join()
        self._connection.close()

    def say(self, message: wire.ToLeader) -> None:
        self._connection.say(message)

    def look(self) -> None:
        """Raises Closed where the generation is over."""
        if self._closed is not None:
            raise self._closed

    def hear(self, kind: type[_Said]) -> _Said:
        """The next word, of that kind. Raises Closed, and Terminated on a request to stop."""
        while True:
            if self._stop.is_set():
                raise Terminated("Stopped on request while this node waited for the others")
            with contextlib.suppress(queue.Empty):
                message = self._heard.get(timeout=wire.LOOK_SECONDS)
                if isinstance(message, kind):
                    return message
            self.look()

    def work(self) -> None:
        """A generation begins: a request to stop is told to the leader from now on, which has the state saved."""
        self._leaves = True

    def wait(self) -> NoReturn:
        """Until the generation is over: raises Closed."""
        while self._closed is None:
            time.sleep(wire.LOOK_SECONDS)
        raise self._closed

    def judge(self, error: TrainerError) -> NoReturn:
        """Raises the error where it is this node's own, Closed where another one's end has caused it."""
        self.say(wire.failed(error))
        while self._closed is None:
            if self._stop.event.wait(wire.LOOK_SECONDS):
                raise error
        if isinstance(self._closed.last, wire.Blamed):
            raise error
        raise self._closed

    # The thread's.

    def _keep(self) -> None:
        told = False
        try:
            while not self._over:
                select.select([self._connection.stream], [], [], wire.LOOK_SECONDS)
                for message in self._connection.pump(time.monotonic()):
                    self._take(message)
                if self._leaves and self._stop.is_set() and not told:
                    told = True
                    self._connection.say(wire.Leaving())
        except Lost as lost:
            self._end(None, f"node 1 {lost.why}")
        self._flush()

    def _take(self, message: Any) -> None:
        if isinstance(message, wire.Stopping):
            self.stopping.set()
        elif isinstance(message, _LAST):
            self._end(message, getattr(message, "why", ""))
        else:
            self._heard.put(message)

    def _end(self, last: Any, why: str) -> None:
        if self._closed is None:
            self._closed = Closed(last, why)
            self.interrupt()

    def _flush(self) -> None:
        """The last words, if there is somebody to hear them."""
        self._connection.finish()
        with contextlib.suppress(Lost):
            self._connection.pump(time.monotonic())
