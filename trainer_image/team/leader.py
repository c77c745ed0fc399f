"""Node 0's end of the link: takes the followers in, begins generations, and says whose failure ended one."""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from trainer_image.errors import Terminated, TrainerError, shown
from trainer_image.stop import Stop
from trainer_image.team import wire
from trainer_image.team.roster import Roster, Verdict
from trainer_image.team.wire import Connection, Lost

log = logging.getLogger(__name__)

# Connections that have not said who they are: how long they may take, and how many there may be.
HELLO_SECONDS, MOST_STRANGERS = 5.0, 64
# A program that is told to stop tells its other ranks. Node 0's is told first: ended by the word of another one, it
# would seem to have come to its end.
STOPPING_SECONDS = 1.0
# The last words on the link are waited for so long.
LAST_WORDS_SECONDS = 3.0


class Leader:
    """Listens from `with` to its end. where: address and port; stays: no permanent failure of another node ends this
    one, because Kubernetes does"""

    def __init__(
        self, where: tuple[str, int], roster: Roster, welcome: wire.Welcome, stop: Stop, *, stays: bool
    ) -> None:
        self._where, self._roster, self._welcome, self._stop, self._stays = where, roster, welcome, stop, stays
        self._nodes = roster.nodes
        self._changed = threading.Condition()
        self._seated: dict[int, Connection] = {}
        self._strangers: dict[Connection, float] = {}
        self._finishing: dict[Connection, float] = {}
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._serve, name="team", daemon=True)
        self._ending = threading.Event()
        self._stopping: float | None = None  # since when; infinite once the others were told, too
        self._interrupt: Callable[[], None] = lambda: None
        self._verdict: Verdict | None = None
        self._failure: TrainerError | None = None  # another node's, which ends this one
        self._trained = self._closed = False

    def __enter__(self) -> Self:
        self._listener = wire.listening(self._where, self._stop)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        log.info("Node 1 of %d waits for the others on %s port %d", self._nodes, *self._where)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, TrainerError):
            self._last_word(wire.Ended(wire.failed(error)))
        self._closed = True
        self._thread.join()
        for connection in [*self._connections()]:
            connection.close()
        self._listener.close()
        self._selector.close()

    def begin(
        self,
        checkpoint: int | None,
        ending: threading.Event,
        interrupt: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """A generation, as soon as all nodes are ready for it. Raises Terminated, and what ends this node meanwhile.

        ending: is set when the state is to be saved, and the worker to end; interrupt: ends the worker at once;
        say: is told whom it waits for
        """
        said = ""
        with self._changed:
            while self._roster.missing():
                if self._stop.is_set():
                    raise Terminated("Stopped on request while node 1 waited for the others")
                if self._failure is not None:
                    raise self._failure
                if (text := self._roster.waiting_text()) != said:
                    said = text
                    say(text)
                self._changed.wait(wire.LOOK_SECONDS)
            self._ending, self._interrupt, self._verdict, self._stopping = ending, interrupt, None, None
            self._roster.begin()
            self._to_all(wire.Begin(checkpoint))

    def trained(self) -> None:
        """Node 0 has the model: the others have nothing more to do than to hear that it is published."""
        with self._changed:
            self._trained = True
            self._roster.training = False

    def judge(self, error: TrainerError) -> None:
        """The worker has ended so. Raises what ends this node; returns where all begin anew because of another one."""
        with self._changed:
            if self._verdict is None:
                self._roster.failed(0, wire.failed(error), time.monotonic())
            while self._verdict is None:
                if self._stop.is_set():
                    raise error
                self._changed.wait(wire.LOOK_SECONDS)
            if self._failure is not None:
                raise self._failure
            if self._verdict.culprit == 0 or self._stop.is_set():
                raise error
        here = "" if isinstance(error, Terminated) else f" (here: {error.sentence})"
        log.warning("All nodes begin anew from the newest checkpoint: %s%s", self._verdict.why, here)

    def published(self) -> None:
        """Tells all, and waits a little for them to hear it."""
        self._last_word(wire.Published())

    def _last_word(self, message: wire.FromLeader) -> None:
        with self._changed:
            self._to_all(message, finish=True)
            self._changed.wait_for(lambda: not self._finishing, LAST_WORDS_SECONDS)

    # The thread's.

    def _serve(self) -> None:
        while not self._closed:
            try:
                ready = [key.fileobj for key, _ in self._selector.select(wire.LOOK_SECONDS)]
                with self._changed:
                    now = time.monotonic()
                    if self._listener in ready:
                        self._accept(now)
                    for connection in self._connections():
                        self._hear(connection, now)
                    self._look(now)
                    self._changed.notify_all()
            except Exception:
                log.exception("The link between the nodes stumbled")
                time.sleep(wire.BEAT_SECONDS)

    def _connections(self) -> list[Connection]:
        return [*self._seated.values(), *self._strangers, *self._finishing]

    def _accept(self, now: float) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:  # it is gone already, or this process has no descriptor left
            time.sleep(wire.LOOK_SECONDS)
            return
        connection = Connection(stream, now, leads=True)
        self._strangers[connection] = now
        self._selector.register(stream, selectors.EVENT_READ)
        while len(self._strangers) > MOST_STRANGERS:
            self._drop(next(iter(self._strangers)))

    def _hear(self, connection: Connection, now: float) -> None:
        node = next((node for node, seated in self._seated.items() if seated is connection), None)
        try:
            for message in connection.pump(now):
                if connection in self._strangers:
                    node = self._greet(connection, message, now)
                elif node is not None and self._seated.get(node) is connection:
                    self._take(node, message, now)
            if connection in self._strangers and now - self._strangers[connection] > HELLO_SECONDS:
                raise Lost("has not said who it is")
        except Lost as lost:
            if node is not None and self._seated.get(node) is connection:
                level = logging.INFO if self._trained else logging.WARNING
                log.log(level, "%s %s", wire.node_name(node, self._nodes).capitalize(), lost.why)
                self._roster.lost(node, lost.why)
            elif connection in self._strangers:
                log.debug("A connection from elsewhere %s", lost.why)
            self._drop(connection)
        else:
            if node is not None and node in self._roster.seats:
                self._roster.seats[node].heard = connection.heard

    def _greet(self, connection: Connection, message: Any, now: float) -> int | None:
        """Its node, where it is one of ours."""
        if not isinstance(message, wire.Hello):
            raise Lost("has not said who it is")
        objection = self._roster.objection(message)
        if objection is not None:
            why, for_good = objection
            log.warning("Pod %s is not taken: %s", shown(message.pod), shown(why))
            connection.say(wire.Refused(shown(why), self._roster.run_id, for_good))
            self._finish(connection)
            return None
        if (before := self._seated.pop(message.node, None)) is not None:
            self._drop(before)
        del self._strangers[connection]
        self._seated[message.node] = connection
        self._roster.sit(message, now)
        log.info("%s is here: pod %s", wire.node_name(message.node, self._nodes).capitalize(), shown(message.pod))
        if not self._trained:
            connection.say(self._welcome)
        return message.node

    def _take(self, node: int, message: Any, now: float) -> None:
        seat = self._roster.seats.get(node)
        if seat is None:
            return  # what it had to say is decided: it is about to hear this node's end
        match message:
            case wire.Doing(what):
                seat.doing = shown(what)
            case wire.Ready() if seat.state == "preparing":
                seat.state, seat.doing = "ready", ""
            case wire.Done():
                if seat.state == "training":
                    seat.state = "done"
            case wire.Failed():
                log.warning("%s: %s", wire.node_name(node, self._nodes).capitalize(), shown(message.sentence))
                if not self._trained:
                    self._roster.failed(node, message, now)
            case wire.Leaving():
                if seat.state == "training":
                    seat.state = "leaving"
            case _:
                raise Lost(f"has sent {type(message).__name__} where that means nothing")

    def _look(self, now: float) -> None:
        """What follows from what was heard."""
        roster = self._roster
        if self._trained:
            return
        if roster.training and self._stopping is None and (roster.leaving or self._stop.is_set()):
            self._stopping = now
            self._ending.set()
        if roster.training and self._stopping is not None and now >= self._stopping + STOPPING_SECONDS:
            self._stopping = math.inf
            self._to_all(wire.Stopping())
        verdict = roster.verdict(now)
        if verdict is None:
            return
        if verdict.culprit:
            self._condemn(verdict.culprit)
        # Where this node ends, too, its own end is what the others are told.
        ends = verdict.culprit == 0 or self._failure is not None
        for node in [*self._seated] if roster.training else [*roster.failures]:
            if node == verdict.culprit or not ends:
                self._dismiss(node, wire.Blamed() if node == verdict.culprit else wire.Over(shown(verdict.why)))
        if roster.training:
            self._verdict = verdict
            self._interrupt()
        roster.over()

    def _dismiss(self, node: int, last: wire.FromLeader) -> None:
        if (connection := self._seated.pop(node, None)) is not None:
            connection.say(last)
            self._finish(connection)

    def _condemn(self, node: int) -> None:
        said = self._roster.failures[node].said
        if said.exit_code <= 127 and not self._stays:
            self._failure = wire.elsewhere(said, node, self._nodes)

    def _to_all(self, message: wire.FromLeader, *, finish: bool = False) -> None:
        for connection in [*self._seated.values()]:
            connection.say(message)
            if finish:
                self._finish(connection)

    def _finish(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        self._finishing[connection] = time.monotonic()
        connection.finish()

    def _drop(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        self._finishing.pop(connection, None)
        for node in [node for node, seated in self._seated.items() if seated is connection]:
            del self._seated[node]
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.stream)
        connection.close()
