"""Whose failure ended a generation, told from all that the leader hears: an incident is one failed pod, a loss none."""

from __future__ import annotations

import pytest

from trainer_image.errors import GpuFault, PeerLost, Terminated, TrainerError, UserCodeFailed
from trainer_image.team.roster import ECHO_SECONDS, SETTLE_SECONDS, Roster, Verdict
from trainer_image.team.wire import Failed, Hello, failed

SAME = "GPUS=1 PROCESSES=0"


def hello(node: int, pod: str = "", **other: object) -> Hello:
    given: dict[str, object] = {"run_id": "run-1", "nodes": 3, "processes": SAME, **other}
    return Hello(node=node, pod=pod or f"pod-{node}", **given)  # type: ignore[arg-type]


def said(kind: type[TrainerError] = UserCodeFailed) -> Failed:
    return failed(kind("it failed"))


@pytest.fixture
def roster() -> Roster:
    """Three nodes that train since second 0."""
    roster = Roster(3, SAME, "run-1")
    for node in (1, 2):
        roster.sit(hello(node), 0.0)
        roster.seats[node].state = "ready"
    roster.begin()
    return roster


def heard(roster: Roster, at: float, *nodes: int) -> None:
    for node in nodes:
        roster.seats[node].heard = at


def culprit(verdict: Verdict | None) -> int | None:
    assert verdict is not None
    return verdict.culprit


def test_a_generation_waits_for_every_node_and_says_for_whom() -> None:
    roster = Roster(3, SAME, "run-1")
    roster.sit(hello(1), 0.0)
    roster.seats[1].doing = "Downloading the dataset: 3 GB of 10 GB"
    assert roster.missing() == [1, 2]
    assert roster.waiting_text() == (
        "Waiting for 2 of 3 nodes: node 2 (Downloading the dataset: 3 GB of 10 GB), node 3"
    )
    roster.seats[1].state = "ready"
    assert roster.missing() == [2]


@pytest.mark.parametrize(
    ("other", "why", "for_good"),
    [
        ({"run_id": "run-2"}, "node 1 trains run run-1, not run-2: RUN_ID has to be the same", True),
        ({"nodes": 4}, "NODE_RANK 1 of NNODES 4 does not go with 3 nodes", True),
        ({"node": 0}, "NODE_RANK 0 of NNODES 3", True),
        ({"node": 3}, "NODE_RANK 3 of NNODES 3", True),
        ({"processes": "GPUS=8 PROCESSES=0"}, "node 1 has GPUS=1 PROCESSES=0, node 2 of 3 GPUS=8", True),
        ({"node": 2, "pod": "a zombie"}, "pod pod-2 is node 3 of 3 and still there", False),
    ],
)
def test_a_pod_that_does_not_belong_here_is_not_taken(
    roster: Roster, other: dict[str, object], why: str, for_good: bool
) -> None:
    objection = roster.objection(hello(**{"node": 1, **other}))  # type: ignore[arg-type]
    assert objection is not None
    assert why in objection[0]
    assert objection[1] is for_good


def test_the_same_pod_takes_its_own_place_over_and_has_lost_its_generation(roster: Roster) -> None:
    assert roster.objection(hello(2)) is None
    roster.sit(hello(2), 5.0)
    assert culprit(roster.verdict(5.0)) is None


def test_a_lost_node_explains_every_failure(roster: Roster) -> None:
    roster.failed(0, said(), 1.0)
    roster.failed(1, said(PeerLost), 1.1)
    assert roster.verdict(1.2) is None, "node 3 may have been lost before: it has not been heard since"
    roster.lost(2, "has given no sign of life for 10 s")
    assert roster.verdict(11.0) == Verdict(None, "node 3 of 3 has given no sign of life for 10 s")


def test_a_failure_is_its_node_s_own_once_every_other_one_has_been_heard_after_it(roster: Roster) -> None:
    roster.failed(2, said(), 1.0)
    heard(roster, 1.0 + SETTLE_SECONDS - 0.1, 1)
    assert roster.verdict(20.0) is None
    heard(roster, 1.0 + SETTLE_SECONDS, 1)
    assert culprit(roster.verdict(1.0 + SETTLE_SECONDS)) == 2


def test_who_only_lost_its_peer_is_an_echo_even_where_it_speaks_first(roster: Roster) -> None:
    roster.failed(0, said(PeerLost), 1.0)
    heard(roster, 9.0, 1, 2)
    assert roster.verdict(9.0) is None, "the one that failed may need its time to end"
    roster.failed(2, said(GpuFault), 9.5)
    heard(roster, 11.6, 1)
    verdict = roster.verdict(11.6)
    assert culprit(verdict) == 2
    assert verdict == Verdict(2, "node 3 of 3 has failed: it failed")


def test_of_echoes_alone_the_first_one_ends_so_that_no_broken_network_is_tried_for_ever(roster: Roster) -> None:
    roster.failed(1, said(PeerLost), 1.0)
    roster.failed(0, said(PeerLost), 1.1)
    heard(roster, 30.0, 2)
    assert roster.verdict(1.0 + ECHO_SECONDS - 0.1) is None
    assert culprit(roster.verdict(1.0 + ECHO_SECONDS)) == 1


def test_where_all_have_failed_there_is_nothing_more_to_wait_for(roster: Roster) -> None:
    for node, kind in enumerate((PeerLost, UserCodeFailed, PeerLost)):
        roster.failed(node, said(kind), 1.0 + node / 10)
    assert culprit(roster.verdict(1.3)) == 1


def test_a_leaving_node_is_no_failure_and_waits_for_the_checkpoint(roster: Roster) -> None:
    roster.seats[1].state = "leaving"
    roster.failed(2, said(), 1.0)
    assert roster.verdict(30.0) is None, "the state is being saved"
    roster.failed(0, said(Terminated), 31.0)
    assert roster.verdict(31.0) == Verdict(None, "node 2 of 3 leaves")


def test_a_node_that_has_done_its_part_may_go(roster: Roster) -> None:
    roster.seats[1].state = "done"
    roster.lost(1, "has closed the connection")
    assert roster.verdict(30.0) is None


def test_of_nodes_that_cannot_prepare_one_ends_and_the_others_keep_their_place() -> None:
    roster = Roster(3, SAME, "run-1")
    for node in (1, 2):
        roster.sit(hello(node), 0.0)
    roster.failed(1, said(), 1.0)
    heard(roster, 4.0, 2)
    assert culprit(roster.verdict(4.0)) == 1
    roster.over()
    assert list(roster.seats) == [2]
    assert roster.verdict(30.0) is None
