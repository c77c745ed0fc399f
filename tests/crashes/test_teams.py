"""Trainings on several nodes: a pod lost before, at and after the meeting, at a checkpoint, at publication; and faults.

Broken on purpose, each rule of decisions for them is missed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.decisions import ends, team_waiting, teams
from dispatcher.launch.teams import TeamNetworks
from tests.crashes import explore, scenarios
from tests.crashes.explore import Finding
from tests.crashes.scenarios import TEAMS, Scenario
from tests.world.simulated.world import World


def _name(value: object) -> str:
    return getattr(value, "__name__", "")


def judged(scenario: Scenario) -> World:
    """One run in which nothing else happens, and what the portal is told in the end. Raises Finding."""
    world = explore.explored("team", scenario, "calm", explore.live)
    model, (status, words) = world.models["1"], TEAMS[scenario]
    if model.status is not status or not re.fullmatch(words, model.message.rstrip(".")):
        raise Finding(f"{scenario.__name__}: {model.status.title}, {model.message}")
    return world


@pytest.mark.parametrize("scenario", TEAMS, ids=_name)
def test_what_becomes_of_a_team_is_told_as_it_is(scenario: Scenario) -> None:
    assert judged(scenario).settled


@pytest.mark.parametrize("scenario", TEAMS, ids=_name)
def test_a_crash_at_any_call_loses_and_doubles_nothing(scenario: Scenario) -> None:
    assert list(explore.singles(scenario, [("after", explore.crash)]))


@pytest.mark.parametrize("scenario", [scenarios.team_loses_a_node_at_publication, scenarios.team_sidecars], ids=_name)
def test_what_people_do_and_writes_that_land_late_spoil_nothing(scenario: Scenario) -> None:
    troubles = [explore.deleted, explore.pods_deleted, explore.late]
    assert list(explore.singles(scenario, [("before", trouble) for trouble in troubles]))


@pytest.mark.parametrize(
    "scenario",
    [scenarios.team_loses_a_node_in_training, scenarios.team_loses_node_1_at_publication, scenarios.team_invalid],
    ids=_name,
)
def test_two_dispatchers_of_which_one_stands_still_anywhere_spoil_nothing(scenario: Scenario) -> None:
    assert list(explore.one_switch(scenario))


def _by_anybody(job: Job, pod: Pod) -> bool:
    """A follower's word counts as node 0's."""
    return ends.reports_completed(pod)


def _never(job: Job, pods: Sequence[Pod], newest: Any) -> None:
    """A team has no limit of its own."""
    return


def _last(pods: Sequence[Pod], blamed: str = "") -> Pod | None:
    """The last end is told."""
    return max((pod for pod in pods if pod.phase == "Failed"), key=teams.ended_at, default=None)


def _by_number(pods: Sequence[Pod]) -> Pod:
    """The order of the nodes decides, whatever they say."""
    return min(pods, key=lambda pod: pod.index or 0)


def _by_pods(pods: Sequence[Pod]) -> int:
    """Each pod that has failed is an attempt."""
    return sum(pod.phase == "Failed" for pod in pods)


def _nowhere(networks: TeamNetworks, job: Job) -> str:
    """The pods of a team start without a NetworkPolicy."""
    del networks, job
    return ""


@pytest.mark.parametrize(
    ("module", "name", "broken", "scenario"),
    [
        (ends, "has_published", _by_anybody, scenarios.team_outlives_node_1),
        (team_waiting, "_incomplete_since", _never, scenarios.team_never_whole),
        (teams, "first", _by_number, scenarios.team_fails),
        (teams, "cause", _last, scenarios.team_invalid),
        (teams, "attempts", _by_pods, scenarios.team_fails),
        (TeamNetworks, "open", _nowhere, scenarios.team),
    ],
    ids=_name,
)
def test_a_broken_rule_shows(module: Any, name: str, broken: Any, scenario: Scenario) -> None:
    with mock.patch.object(module, name, broken), pytest.raises(Finding):
        judged(scenario)
