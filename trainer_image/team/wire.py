"""What supervisors of a team say, and the connection that carries it: frames of msgpack over TCP, with beats."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from trainer_image.errors import MOST_CHARACTERS, Terminated, TrainerError, UsageError
from trainer_image.stop import Stop
from trainer_image.worker.messages import Frames, NoMessage, packed

log = logging.getLogger(__name__)

# Each side says something so often, and takes the other one for lost after so long without a word.
BEAT_SECONDS, SILENCE_SECONDS = 1.0, 10.0
# Of one message, in bytes: to the leader, and from it (a config.yaml may have 256 KiB).
MOST_TO_LEADER, MOST_FROM_LEADER = 64 * 1024, 4 * 1024**2
# Between two looks at a connection.
LOOK_SECONDS = 0.1
_PIECE = 64 * 1024

_Name = Annotated[str, Meta(max_length=253)]
_Sentence = Annotated[str, Meta(max_length=MOST_CHARACTERS)]
_Node = Annotated[int, Meta(ge=0, le=10_000)]


class Hello(Struct, tag=True):
    """A follower's first word. pod: tells two of one node apart; processes: how many GPUs and processes it was given"""

    run_id: _Name
    node: _Node
    nodes: _Node
    pod: _Name
    processes: _Name


class Doing(Struct, tag=True):
    """What a follower is busy with until it is ready."""

    what: _Sentence


class Ready(Struct, tag=True):
    """It has the dataset, and a worker that waits."""


class Done(Struct, tag=True):
    """Its worker has ended as it should."""


class Failed(Struct, tag=True):
    """Its worker, or it, has failed. It stays until it is told whose failure this was: Over, or Blamed."""

    code: _Name
    exit_code: Annotated[int, Meta(ge=1, le=255)]
    sentence: _Sentence


class Leaving(Struct, tag=True):
    """Its pod has to end soon, and the training is not done: its state is to be saved while all are here."""


class Beat(Struct, tag=True):
    """A sign of life."""


class Welcome(Struct, tag=True):
    """What is trained. config: as `worker.messages.config_bytes`; initial: (run, digest of its manifest) of the model
    that it starts from"""

    config: bytes
    run_key: str
    fingerprint: str
    initial: tuple[str, str] | None


class Begin(Struct, tag=True):
    """All nodes are ready. checkpoint: the step of the newest one, None where there is none"""

    checkpoint: int | None


class Stopping(Struct, tag=True):
    """The generation is about to end: node 0 saves the state. Programs are told to stop."""


class Over(Struct, tag=True):
    """The generation is over because of another node."""

    why: _Sentence


class Blamed(Struct, tag=True):
    """The failure is this node's own."""


class Published(Struct, tag=True):
    """The model is published: everybody's work is done."""


class Refused(Struct, tag=True):
    """This pod cannot be taken. run_id: what the leader trains; for_good: no other try will do better"""

    why: _Sentence
    run_id: _Name
    for_good: bool


class Ended(Struct, tag=True):
    """The leader's own end, without a model."""

    failure: Failed


ToLeader = Hello | Doing | Ready | Done | Failed | Leaving | Beat
FromLeader = Welcome | Begin | Stopping | Over | Blamed | Published | Refused | Ended | Beat

_to_leader = msgspec.msgpack.Decoder(ToLeader)
_from_leader = msgspec.msgpack.Decoder(FromLeader)


def node_name(node: int, nodes: int) -> str:
    """As sentences count."""
    return f"node {node + 1} of {nodes}"


def failed(error: TrainerError) -> Failed:
    return Failed(error.code, error.exit_code, error.sentence)


def elsewhere(said: Failed, node: int, nodes: int) -> TrainerError:
    """What ended another node, as the end of this one."""
    name = node_name(node, nodes)
    error = TrainerError(f"{name[0].upper()}{name[1:]}: {said.sentence}")
    error.code, error.exit_code = said.code, said.exit_code
    return error


class Lost(Exception):
    """The other side is gone. why: the end of a sentence"""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Connection:
    """One TCP connection, never waited for. `say` and `finish` from any thread, `pump` from one.

    heard: when something came last, by the clock that `pump` is given
    """

    def __init__(self, stream: socket.socket, now: float, *, leads: bool) -> None:
        stream.setblocking(False)
        with contextlib.suppress(OSError):  # it may be gone already
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = stream
        self.heard = now
        self._beat = now
        self._unsent = bytearray()
        self._finishing = self._finished = False
        self._saying = threading.Lock()
        self._frames = Frames(_to_leader, MOST_TO_LEADER) if leads else Frames(_from_leader, MOST_FROM_LEADER)

    def say(self, message: ToLeader | FromLeader) -> None:
        with self._saying:
            if not self._finishing:
                self._unsent += packed(message)

    def finish(self) -> None:
        """What was said is sent, and then its end; the other side closes. To close at once could lose the last word."""
        self._finishing = True

    def pump(self, now: float) -> list[Any]:
        """Sends what is to be said, beats among it; what has come. Raises Lost."""
        if now - self._beat >= BEAT_SECONDS:
            self._beat = now
            self.say(Beat())
        came = self._received()
        if came:
            self.heard = now
        elif came == b"":
            raise Lost("has closed the connection")
        elif now - self.heard > SILENCE_SECONDS:
            raise Lost(f"has given no sign of life for {SILENCE_SECONDS:g} s")
        self._send()
        try:
            return [message for message in self._frames.read(came or b"") if not isinstance(message, Beat)]
        except NoMessage as error:
            raise Lost(f"has sent what is no message ({error})") from None

    def _received(self) -> bytes | None:
        try:
            return self.stream.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Lost(f"is out of reach ({error.strerror})") from None

    def _send(self) -> None:
        with self._saying:
            try:
                while self._unsent:
                    del self._unsent[: self.stream.send(self._unsent[:_PIECE])]
                if self._finishing and not self._finished:
                    self.stream.shutdown(socket.SHUT_WR)
                    self._finished = True
            except BlockingIOError:
                pass
            except OSError:
                self._unsent.clear()  # what has come before is read first; then it is lost

    def close(self) -> None:
        self.stream.close()


def listening(where: tuple[str, int], stop: Stop) -> socket.socket:
    """A port that is taken (another pod's with hostNetwork, say) is waited for. Raises UsageError, Terminated."""
    address, port = where
    warned = False
    while True:
        try:
            family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((address, port), family=family, backlog=128)
            listener.setblocking(False)
            return listener
        except OSError as error:
            passing = error.errno == errno.EADDRINUSE or isinstance(error, socket.gaierror)
            if not passing:
                raise UsageError(
                    f"Node 1 cannot listen on {address} port {port} ({error.strerror}): POD_IP, or else MASTER_ADDR,"
                    " has to be an address of its own"
                ) from None
            if not warned:
                log.warning("Node 1 cannot listen on %s port %d yet: %s", address, port, error.strerror)
            warned = True
        if stop.event.wait(1.0):
            raise Terminated("Stopped on request before node 1 could listen for the others", step=0)
