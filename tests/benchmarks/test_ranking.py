"""What the ranking of `make quality` says of figures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ranking
from benchmarks.ranking import OURS, Placed, beyond_chance, mean_ranks, ranks, record
from benchmarks.ranking_tables import RankedTable, tables


def of(figures: dict[str, float]) -> Placed:
    return Placed("a table", "r2", figures, dict.fromkeys(figures, 1.0), [])


def test_models_whose_figures_are_the_same_share_the_mean_of_their_ranks() -> None:
    assert ranks({"a": 0.5, "b": 0.90001, "c": 0.9, "d": 0.1}) == {"a": 3.0, "b": 1.5, "c": 1.5, "d": 4.0}


def test_the_mean_rank_is_over_tables_and_the_best_comes_first() -> None:
    found = mean_ranks([of({OURS: 0.8, "x": 0.9}), of({OURS: 0.9, "x": 0.1}), of({OURS: 0.5, "x": 0.4})])
    assert list(found) == [OURS, "x"]
    assert found[OURS] == pytest.approx(4 / 3)


def test_wins_ties_and_losses_are_against_the_best_rival_of_each_table() -> None:
    tables = [{OURS: 0.8, "x": 0.7, "y": 0.9}, {OURS: 0.9, "x": 0.9, "y": 0.1}, {OURS: 0.9, "x": 0.7, "y": 0.8}]
    assert record(map(of, tables)) == (1, 1, 1)


def test_a_rival_is_better_beyond_chance_only_where_other_rows_would_say_the_same() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=200)

    def score(labels: np.ndarray, found: np.ndarray) -> float:
        return -float(((labels - found) ** 2).mean())

    near, nearer, far = (y + random.normal(scale=scale, size=200) for scale in (0.5, 0.49, 1.0))
    assert beyond_chance(far, near, y, score)
    assert not beyond_chance(near, nearer, y, score)


def test_a_ranking_that_ours_does_not_lead_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {OURS: 0.5, "x": 0.9}
    monkeypatch.setattr(ranking, "placed", lambda table, seconds, threads: of(figures))
    chosen = [RankedTable("a table", "r2", lambda: None)]  # type: ignore[arg-type, return-value]
    assert not ranking.rank(chosen, 1.0)
    assert "mean rank: x 1.00, ours 2.00  NOT FIRST" in capsys.readouterr().out
    figures[OURS] = 0.95
    assert ranking.rank(chosen, 1.0)


def test_the_ranking_has_tables_enough_of_both_kinds() -> None:
    found = tables()
    assert len({table.name for table in found}) == len(found) >= 25
    assert {table.figure for table in found} == {"roc_auc", "r2"}
