"""One fault, then two, at every outside call of a launch and a report: nothing is lost, nothing doubled."""

from __future__ import annotations

import pytest

from tests.crashes import explore, scenarios
from tests.crashes.explore import Trouble
from tests.crashes.scenarios import Scenario

pytestmark = pytest.mark.long

TROUBLES: dict[str, list[tuple[str, Trouble]]] = {
    "a crash": [("before", explore.crash), ("after", explore.crash)],
    "a call that fails": [("before", explore.fail), ("after", explore.fail)],
    "a write that lands late": [("before", explore.late), ("before", explore.late_crash)],
    "what people do": [
        ("before", explore.deleted),
        ("before", explore.deleted_and_crash),
        ("before", explore.forced),
        ("before", explore.pods_deleted),
        ("before", explore.purged),
        ("before", explore.purged_and_crash),
        ("before", explore.asked_again),
    ],
}

# A crash comes at every call, of the others a part at each call, in turn; `python -m tests.crashes --deep` takes all.
PART = dict.fromkeys(TROUBLES, 2) | {"a crash": 1, "what people do": 3}


def _name(scenario: Scenario) -> str:
    return scenario.__name__


@pytest.mark.parametrize("scenario", scenarios.SINGLE, ids=_name)
def test_without_faults_every_request_reaches_its_status(scenario: Scenario) -> None:
    assert explore.length(scenario) > 5


@pytest.mark.parametrize("scenario", scenarios.SINGLE, ids=_name)
@pytest.mark.parametrize("kind", TROUBLES)
def test_one_trouble_at_any_call_loses_and_doubles_nothing(kind: str, scenario: Scenario) -> None:
    assert list(explore.singles(scenario, TROUBLES[kind], every=PART[kind]))


@pytest.mark.parametrize("scenario", scenarios.SCOPED, ids=_name)
@pytest.mark.parametrize("kind", TROUBLES)
def test_with_scoped_credentials_one_trouble_at_any_call_leaves_no_pod_without_its_own(
    kind: str, scenario: Scenario
) -> None:
    assert list(explore.singles(scenario, TROUBLES[kind], every=PART[kind]))


@pytest.mark.parametrize("scenario", [*scenarios.SMALL, scenarios.denied, scenarios.next_attempt_waits], ids=_name)
def test_a_portal_that_drips_at_any_call_loses_and_doubles_nothing(scenario: Scenario) -> None:
    assert list(explore.drips(scenario))


@pytest.mark.parametrize("scenario", scenarios.OUTAGES, ids=_name)
def test_an_outage_costs_a_message_one_delivery_whenever_a_process_dies(scenario: Scenario) -> None:
    assert list(explore.singles(scenario, [("after", explore.crash)]))


# The first fault of a pair is a crash that leaves the call done; `python -m tests.crashes --deep` makes them all.
@pytest.mark.parametrize(
    ("scenario", "second"),
    [
        (scenarios.completes, ("after", explore.crash)),
        (scenarios.invalid_unreported, ("before", explore.late)),
        (scenarios.twice_apart, ("before", explore.late_crash)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_crash_and_another_fault_at_any_two_calls_lose_and_double_nothing(
    scenario: Scenario, second: tuple[str, Trouble]
) -> None:
    assert list(explore.pairs(scenario, ("after", explore.crash), second))


def test_a_deletion_and_a_crash_at_any_two_calls_end_in_a_true_status() -> None:
    assert list(explore.pairs(scenarios.completes, ("before", explore.deleted), ("before", explore.crash)))
