"""One connection of the link: bounded, never waited for, and given up when nothing comes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from trainer_image.errors import Terminated, UsageError
from trainer_image.stop import Stop
from trainer_image.team import wire
from trainer_image.team.wire import Connection, Lost
from trainer_image.worker.messages import packed


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    """The leader's and a follower's, at second 0."""
    one, two = socket.socketpair()
    leader, follower = Connection(one, 0.0, leads=True), Connection(two, 0.0, leads=False)
    yield leader, follower
    leader.close()
    follower.close()


def test_words_arrive_in_their_order_and_beats_are_nobody_s_business(ends: tuple[Connection, Connection]) -> None:
    leader, follower = ends
    follower.say(wire.Doing("Downloading"))
    follower.say(wire.Ready())
    follower.pump(2.0)
    assert leader.pump(2.0) == [wire.Doing("Downloading"), wire.Ready()]


def test_who_beats_is_not_lost_and_who_is_silent_is(ends: tuple[Connection, Connection]) -> None:
    leader, follower = ends
    for second in range(1, 30):
        follower.pump(float(second))
        assert leader.pump(float(second)) == []
    leader.pump(29.0 + wire.SILENCE_SECONDS)
    with pytest.raises(Lost, match="no sign of life for 10 s"):
        leader.pump(29.5 + wire.SILENCE_SECONDS)


def test_what_waits_to_be_read_is_read_before_anybody_is_lost(ends: tuple[Connection, Connection]) -> None:
    """This process may have stood still itself."""
    leader, follower = ends
    follower.say(wire.Ready())
    follower.pump(1.0)
    assert leader.pump(1000.0) == [wire.Ready()]


def test_the_last_word_is_heard_though_the_other_side_has_closed(ends: tuple[Connection, Connection]) -> None:
    leader, follower = ends
    leader.say(wire.Published())
    leader.finish()
    leader.say(wire.Over("too late"))
    leader.pump(1.0)
    assert follower.pump(1.0) == [wire.Published()]
    with pytest.raises(Lost, match="has closed the connection"):
        follower.pump(1.0)


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (wire.MOST_TO_LEADER + 1).to_bytes(4, "big"),
        packed(wire.Over("a word of the leader's")),
        packed(wire.Hello("run", -1, 2, "pod", "")),
        packed(wire.Failed("code", 0, "it failed")),
        packed(wire.Doing("x" * 10_000)),
    ],
    ids=["http", "too long", "the leader's", "no node", "no failure", "a long sentence"],
)
def test_what_is_no_word_of_a_follower_s_ends_the_connection(content: bytes) -> None:
    one, two = socket.socketpair()
    with two:
        leader = Connection(one, 0.0, leads=True)
        two.sendall(content)
        with pytest.raises(Lost, match="has sent what is no message"):
            leader.pump(0.0)
        leader.close()


def test_a_peer_that_reads_nothing_is_not_waited_for(ends: tuple[Connection, Connection]) -> None:
    leader, follower = ends
    leader.say(wire.Welcome(b"x" * 3 * 1024**2, "key", "fingerprint", None))
    leader.pump(0.0)
    found: list[object] = []
    while not found:
        found = follower.pump(0.5)
        leader.pump(0.5)
    assert isinstance(found[0], wire.Welcome)


def test_another_node_s_end_keeps_its_code_and_says_where_it_was() -> None:
    error = wire.elsewhere(wire.Failed("GpuOutOfMemory", 81, "Out of GPU memory at batch size 1"), 1, 4)
    assert (error.code, error.exit_code) == ("GpuOutOfMemory", 81)
    assert error.sentence == "Node 2 of 4: Out of GPU memory at batch size 1"


def test_a_port_that_is_taken_is_waited_for_and_an_address_of_another_machine_is_not() -> None:
    stop = Stop()
    with socket.create_server(("127.0.0.1", 0)) as other:
        stop.set("terminated")
        with pytest.raises(Terminated, match="before node 1 could listen"):
            wire.listening(other.getsockname(), stop)
    with pytest.raises(UsageError, match=r"^Node 1 cannot listen on 192\.0\.2\.1 port 29400 \(.*\): POD_IP, or else"):
        wire.listening(("192.0.2.1", 29400), Stop())
