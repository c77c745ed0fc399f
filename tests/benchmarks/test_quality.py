"""The quality table, in small: its rivals are computed, its sets are disjoint, and a missed gate fails."""

from __future__ import annotations

import lzma
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import Line, measure, of_chunks, of_sources
from benchmarks.quality_texts import Chunks, Sources, standard_library, standard_library_chunks

pytestmark = pytest.mark.long


def line(metric: str, own: float, gate: float | None) -> Line:
    return Line("set", metric, [own, own], [0.5, 0.5], "rival", gate, 1.0)


@pytest.mark.parametrize(
    ("metric", "own", "gate", "missed"),
    [
        ("accuracy", 0.7, 0.73, True),
        ("accuracy", 0.73, 0.73, False),
        ("bits_per_byte", 1.7, 1.603, True),
        ("bits_per_byte", 1.5, 1.603, False),
        ("accuracy", 0.1, None, False),
    ],
)
def test_a_missed_gate_is_told_and_fails(metric: str, own: float, gate: float | None, missed: bool, capsys) -> None:
    found = line(metric, own, gate)
    assert measure([partial(line, "accuracy", 0.9, 0.8), lambda: found]) is not missed
    assert ("GATE MISSED" in capsys.readouterr().out) is missed


def test_no_file_is_in_the_training_and_the_test() -> None:
    chunks = standard_library_chunks()
    assert len(set(chunks.packages)) == 20
    assert np.unique(chunks.packages, return_counts=True)[1].max() == 600
    for train_rows, test_rows in chunks.folds(quick=False):
        assert not set(chunks.files[train_rows]) & set(chunks.files[test_rows])
    sources = standard_library()
    files = [*sources.train, *sources.validation, *sources.test]
    assert len(set(files)) == len(files) > 300


def test_few_chunks_are_told_apart_about_as_well_as_the_rival_does() -> None:
    whole = standard_library_chunks()
    rows = np.flatnonzero(np.isin(whole.packages, ["ctypes", "email", "json", "tkinter"]))[::2]
    chunks = Chunks([whole.texts[row] for row in rows], whole.packages[rows], whole.files[rows])
    found = of_chunks("few", chunks, 0.6, quick=True, preset="fast")
    assert not found.missed
    assert np.mean(found.own) > np.mean(found.other) - 0.1


def test_xz_and_a_small_model_are_measured_on_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.py" for number in range(6)]
    for number, file in enumerate(files):
        file.write_text("".join(f"value_{k} = compute({k * 7 % 13})\n" for k in range(number * 10, number * 10 + 60)))
    sources = Sources(files[:4], files[4:5], files[5:])
    alone, after = sources.rivals()
    text = files[5].read_bytes()
    assert alone == pytest.approx(8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text))
    assert after < alone
    found = of_sources("few", sources, gated=True, preset="fast", budget="10s")
    assert found.gate == min(1.603, alone)
    assert 0 < found.own[0] < 8
