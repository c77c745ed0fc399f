"""Two dispatchers, one of which stands still at any call: for a moment, for a delivery, or for ever."""

from __future__ import annotations

import pytest

from tests.crashes import explore, scenarios
from tests.crashes.scenarios import Scenario

pytestmark = pytest.mark.long

# A part of the stalls at each call, in turn; `python -m tests.crashes --deep` takes all.
PART = 3


def _name(scenario: Scenario) -> str:
    return scenario.__name__


@pytest.mark.parametrize("scenario", scenarios.SINGLE, ids=_name)
def test_one_that_stands_still_anywhere_spoils_nothing(scenario: Scenario) -> None:
    assert list(explore.one_switch(scenario, every=PART))


# None stands still for longer than what it has signed is good for, which is a day at least.
@pytest.mark.parametrize("scenario", [scenarios.hangs, scenarios.again, scenarios.twice_apart], ids=_name)
def test_with_scoped_credentials_one_that_stands_still_anywhere_spoils_no_secret(scenario: Scenario) -> None:
    assert list(explore.one_switch(scenarios.scoped(scenario, 2 * max(explore.STALLS.values())), every=PART))


@pytest.mark.parametrize("scenario", scenarios.SMALL, ids=_name)
def test_two_that_stand_still_anywhere_spoil_nothing(scenario: Scenario) -> None:
    assert list(explore.two_switches(scenario, stalls=[("delivery", "moment")]))


@pytest.mark.parametrize("scenario", scenarios.SINGLE, ids=_name)
def test_one_whose_watch_falls_silent_anywhere_spoils_nothing(scenario: Scenario) -> None:
    assert list(explore.silent_watch(scenario, every=PART))
