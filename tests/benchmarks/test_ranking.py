"""What the rankings of `make quality` say of figures, and that they go on from where they were broken off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.ranking import __main__ as command
from benchmarks.ranking.places import (
    OURS,
    Lacking,
    Placed,
    Ranked,
    beyond_chance,
    judged,
    mean_ranks,
    rank,
    ranks,
    record,
)
from benchmarks.ranking.texts import labelled


def of(figures: dict[str, float], name: str = "a table") -> Placed:
    return Placed(name, "tables", figures, dict.fromkeys(figures, 1.0), [])


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


def test_a_quick_rival_that_is_better_beyond_chance_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    y = np.arange(400)
    outputs = {name: y % 100 < share for name, share in {OURS: 70, "quick": 90, "slow": 90, "alike": 71}.items()}
    seconds = {OURS: 30.0, "quick": 1.0, "slow": 10.0, "alike": 1.0}
    found = judged("set", "texts", outputs, seconds, y, lambda y, right: float(right.mean()))
    assert found.beaten_by == ["quick"]
    rank([Ranked("set", "texts", lambda seconds, threads: found)], 1.0, 1)
    said = capsys.readouterr().out
    assert "BEATEN BEYOND CHANCE by quick\n" in said
    assert said.endswith("Goal, no set where a quick rival is better beyond chance: set\n")


def test_ours_has_to_be_first_in_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {OURS: 0.5, "x": 0.9}
    image = Placed("an image", "images", {OURS: 1, "y": 0}, {OURS: 1, "y": 1}, [])
    sets = [
        Ranked("a table", "tables", lambda seconds, threads: of(figures)),
        Ranked("an image", "images", lambda seconds, threads: image),
    ]
    assert not rank(sets, 1.0, 1)
    said = capsys.readouterr().out
    assert "tables, 1 sets: 0 wins, 0 ties, 1 losses against the best rival; mean rank: x 1.00, ours 2.00  NOT" in said
    assert "images, 1 sets: 1 wins, 0 ties, 0 losses against the best rival; mean rank: ours 1.00, y 2.00\n" in said
    figures[OURS] = 0.95
    assert rank(sets, 1.0, 1)


def test_a_ranking_that_was_broken_off_goes_on_from_the_sets_it_has_of_the_same_seconds(tmp_path: Path) -> None:
    kept, asked = tmp_path / "kept.jsonl", list[str]()

    def ranked(name: str) -> Ranked:
        def place(seconds: float, threads: int) -> Placed:
            asked.append(name)
            return of({OURS: 0.9, "x": 0.8}, name)

        return Ranked(name, "tables", place)

    first, second = ranked("first"), ranked("second")
    assert rank([first], 20, 2, kept)
    assert rank([first, second], 20, 2, kept)
    assert asked == ["first", "second"]
    assert rank([first, second], 60, 2, kept)
    assert asked == ["first", "second"] * 2
    assert len(kept.read_text().splitlines()) == 4


def test_the_rankings_have_tables_of_both_kinds_images_and_texts_enough() -> None:
    found = command.every()
    assert len({(each.group, each.name) for each in found}) == len(found)
    groups = [each.group for each in found]
    assert groups.count("tables, ROC AUC") + groups.count("tables, R²") >= 25
    assert min(groups.count("tables, ROC AUC"), groups.count("tables, R²")) >= 10
    assert sum("tables" not in group for group in groups) >= 6


def test_a_set_whose_classes_are_not_all_installed_says_which_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    def place(seconds: float, threads: int) -> Placed:
        labelled(((f"text {n}", "ab"[n % 7 == 0], f"file {n}") for n in range(100)), ["a", "b", "c"])
        raise AssertionError

    assert not rank([Ranked("a set", "texts", place)], 1.0, 1)
    assert "NOT RANKED: 20 texts of a class are needed" in (said := capsys.readouterr().out)
    assert "have fewer of b, c;" in said
    with pytest.raises(Lacking):
        place(1.0, 1)


def test_a_set_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "no such set"])
    assert "no set is named no such set; there are 401ksubs, tables, ROC AUC," in capsys.readouterr().err


def test_no_source_of_texts_is_in_both_parts_and_no_text_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ranking.texts.MOST_OF_A_CLASS", 50)
    rows = [(f"text {n % 150}", "ab"[n % 2], f"file {n % 150 // 5}") for n in range(300)]
    rows.append(("alone", "c", "file 99"))
    found = labelled(iter(rows))
    assert len(found.texts) == len(set(found.texts)) == 100
    source = {text: name for text, _, name in rows}
    parts = [{source[t] for t, held in zip(found.texts, found.test, strict=True) if held == part} for part in (0, 1)]
    assert parts[0]
    assert parts[1]
    assert not parts[0] & parts[1]
