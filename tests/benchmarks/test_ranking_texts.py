"""What the ranking on texts says of figures, and that its tests are of other sources than its training."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ranking_texts
from benchmarks.ranking_texts import Found, beaten, labelled, rank


def test_no_source_is_in_both_parts_and_no_text_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_texts, "MOST_OF_A_CLASS", 50)
    rows = [(f"text {n % 150}", "ab"[n % 2], f"file {n % 150 // 5}") for n in range(300)]
    rows.append(("alone", "c", "file 99"))
    found = labelled(iter(rows))
    assert len(found.texts) == len(set(found.texts)) == 100
    source = {text: name for text, _, name in rows}
    parts = [{source[t] for t, held in zip(found.texts, found.test, strict=True) if held == part} for part in (0, 1)]
    assert parts[0]
    assert parts[1]
    assert not parts[0] & parts[1]


def of(share: float, name: str, seconds: float = 1.0) -> Found:
    return Found(name, np.arange(400) % 100 < 100 * share, seconds)


def test_a_quick_rival_that_is_better_beyond_chance_is_named_and_fails_the_ranking(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, better, slow, alike = of(0.7, "ours"), of(0.9, "quick"), of(0.9, "slow", 10.0), of(0.7, "alike")
    assert beaten([ours, better, slow, alike]) == ["quick"]
    assert not rank({"set": lambda seconds: [ours, better]}, 1.0)
    assert "set              BEATEN BEYOND CHANCE by quick" in capsys.readouterr().out
    assert rank({"set": lambda seconds: [of(0.9, "ours"), of(0.7, "quick")]}, 1.0)
