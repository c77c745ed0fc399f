"""How the time of a training is divided, and how a schedule follows measured steps."""

from __future__ import annotations

from functools import partial

import pytest

from trainer_image.engine import budget as budgets
from trainer_image.engine.budget import Pace, fitted, more_epochs
from trainer_image.tasks.base import Problem

Budget = partial(budgets.Budget, candidates_share=Problem.candidates_share)


def test_search_and_refit_share_what_there_is() -> None:
    budget = Budget(100, growth=1.25, refit=True)
    ends = budget.search_ends(10, 8)
    search = ends - 10
    assert 10 + search + 8 * 1.25 + search * 1.25 == pytest.approx(budget.total)
    assert Budget(100, 1.25, refit=False).search_ends(0, 0) == budget.total


@pytest.mark.parametrize("seconds", [1, 60, 1800, 86400])
def test_a_longer_budget_gives_the_network_a_larger_share(seconds: float) -> None:
    share = Budget(seconds, 1.2, refit=False).candidates / seconds
    assert share <= 0.35
    assert Budget(2 * seconds, 1.2, refit=False).candidates / (2 * seconds) <= share


def test_a_schedule_grows_back_after_a_slow_step() -> None:
    pace, stop_at, most = Pace(0, 0, 100), 1000, 1000
    seconds, stops = 0.0, []
    for step in range(1, 400):
        seconds += 20.0 if step == 5 else 0.1
        if (fitting := pace.fitting(seconds, step)) is not None:
            stop_at = fitted(step, stop_at, most, fitting)
        stops.append(stop_at)
    assert min(stops) < 100
    assert stops[-1] > 600


def test_what_the_test_will_take_is_kept_back_but_never_more_than_half() -> None:
    assert [Budget(100, 1.2, refit=False, testing=seconds).total for seconds in (0, 3, 20, 500)] == [95, 95, 80, 50]


def test_what_follows_the_last_step_is_kept_free() -> None:
    pace = Pace(0, 0, 100)
    assert pace.fitting(0.5, 3) is None
    assert [pace.fitting(20.5, 23, after) for after in (0, 10)] == [23 + 79, 23 + 69]
    pace.until(60.5)
    assert pace.fitting(20.5, 23) == 23 + 40


def test_a_schedule_ends_with_the_time() -> None:
    pace = Pace(0, 0, 10)
    assert pace.fitting(10.5, 3) == 3
    assert fitted(95, 100, 1000, 500) == 100  # the learning rate has nearly come down


@pytest.mark.parametrize(
    ("done", "best", "left", "added"), [(20, 20, 100, 20), (20, 19, 12, 12), (20, 18, 100, 0), (20, 20, 3, 0)]
)
def test_more_epochs_follow_where_the_best_is_the_last_and_time_is_left(done, best, left, added) -> None:
    assert more_epochs(done, best, left, 1.0) == added


def test_epochs_are_counted_without_a_refit_that_leaves_too_few() -> None:
    budget, alone = Budget(100, growth=1.25, refit=True), Budget(100, growth=1.25, refit=False)
    assert alone.epochs(1, 50, candidates=False) == pytest.approx(95)
    assert budget.epochs(1, 50, candidates=False) == pytest.approx(95 / 2.25)  # more than half of 50
    assert budget.epochs(1, 100, candidates=False) == pytest.approx(95)


def test_candidates_that_cost_nothing_once_more_leave_their_time_to_the_network() -> None:
    budget = Budget(100, growth=1.2, refit=False)
    first, again = (budget.for_network(candidates=True, again=again) for again in (False, True))
    assert (first, again) == pytest.approx((95 - 0.35 * 95, 95 - 0.35 * 95 * 2.2))
