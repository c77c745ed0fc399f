"""The linear candidate for texts: what it counts in any script, and that what it leaves predicts what it fitted."""

from __future__ import annotations

import itertools
import threading
import unicodedata
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.world.training_data import text_records, write_jsonl
from trainer_image.tasks.base import TaskSettings, rows_in, take
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.text import grams, grams_model
from trainer_image.tasks.text.candidates import LinearCandidate
from trainer_image.tasks.text.task import TextClassification, TextProblem

SOME = st.text(st.sampled_from("aAbß .!_1\téÉ漢字की\u0301\U0001f600"), max_size=12)


def named(text: str) -> Counter[tuple[str, ...]]:
    """The features of a text, by name, one after another."""
    folded = " ".join(unicodedata.normalize("NFKC", text.casefold()).split())
    found = [
        ("characters", f" {part} "[at : at + order])
        for part in folded.split()
        for order in grams.ORDERS
        for at in range(len(part) + 3 - order)
    ]
    found = [feature for feature in found if feature[1] != " "]
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c == "_" else " " for c in folded)
    words = kept.split()
    found += [("word", word) for word in words]
    return Counter([*found, *(("pair", *pair) for pair in itertools.pairwise(words))])


@given(st.lists(SOME, max_size=5))
def test_features_are_the_words_their_pairs_and_the_ngrams_between_white_space_of_each_text(texts: list[str]) -> None:
    row, feature, occurrences = grams.counts([text.encode() for text in texts])
    names: dict[int, tuple[str, ...]] = {}
    for number, text in enumerate(texts):
        expected = named(text)
        found = dict(zip(feature[row == number].tolist(), occurrences[row == number].tolist(), strict=True))
        assert sorted(found.values()) == sorted(expected.values())
        assert sum(at >= grams.WORDS for at in found) == sum(name[0] != "characters" for name in expected)
        for name in expected:  # one number for one name, in every text
            [alone] = _numbers_of(name)
            assert found[alone] == expected[name]
            assert names.setdefault(alone, name) == name


def _numbers_of(name: tuple[str, ...]) -> set[int]:
    """The number of this feature: of all that a text has which holds little else, the one no shorter text has."""
    kind, *parts = name

    def seen(text: str) -> set[int]:
        found = grams.counts([text.encode()])[1]
        words = found[found >= grams.WORDS].tolist()
        return set(words if kind != "characters" else found[found < grams.WORDS].tolist())

    if kind == "word":
        return seen(parts[0])
    if kind == "pair":
        return seen(" ".join(parts)) - seen(parts[0]) - seen(parts[1])
    return set(_by_order(parts[0]))


def _by_order(part: str) -> list[int]:
    values = (np.array([ord(c) for c in part], np.uint64) + np.uint64(1)) * grams._MIX
    hashed = np.zeros(1, np.uint64)
    for value in values:
        hashed = hashed * grams._BASE + value
    return list(grams._numbered(hashed, np.zeros(1, np.int64), len(part), 0).tolist())


@pytest.mark.parametrize(
    ("one", "other"), [("STRASSE", "Straße"), ("ﬁne", "Fine"), ("É", "e\u0301"), ("a\n\tb", "A b")]
)
def test_what_people_read_as_one_text_is_one(one: str, other: str) -> None:
    for ours, theirs in zip(grams.counts([one.encode()]), grams.counts([other.encode()]), strict=True):
        assert np.array_equal(ours, theirs)


def test_bytes_that_are_no_characters_and_empty_texts_are_counted_as_they_are() -> None:
    row, _, _ = grams.counts([b"", b"\xff\xfe", b" ", b"a"])
    assert set(row.tolist()) == {1, 3}
    assert all(len(part) == 0 for part in grams.counts([]))


def problem(folder: Path, count: int = 120) -> TextProblem:
    write_jsonl(folder / "train.jsonl", text_records(count))
    made = TextClassification().prepare(folder, TaskSettings())
    assert isinstance(made, TextProblem)
    return made


def allowance(seconds: float = 60.0, stopped: bool = False) -> Allowance:
    stop = threading.Event()
    if stopped:
        stop.set()
    return Allowance(seconds, 1, 0, stop, lambda: None)


def test_the_linear_model_is_loaded_as_it_was_fitted_and_chooses_its_strength_once(tmp_path: Path) -> None:
    made = problem(tmp_path)
    [candidate] = made.candidates()
    fitted = candidate.fit(["train"], allowance(), None)
    assert fitted is not None
    model, chosen = fitted
    assert chosen["strength"] in (*grams_model.STRENGTHS, *grams_model.WEAKER)
    whole = take(made.splits["test"], slice(None))
    outputs = made.predictor.outputs(model, whole)
    assert float((outputs.argmax(1) == whole["target"]).float().mean()) >= 0.9
    loaded = made.predictor.build_candidate("linear", chosen)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(made.predictor.outputs(loaded, whole), outputs)
    # A row has the same outputs whatever stands beside it.
    assert torch.allclose(made.predictor.outputs(loaded, take(whole, slice(3, 5))), outputs[3:5])
    again = candidate.fit(["train", "validation"], allowance(), chosen)
    assert again is not None
    assert {**again[1], "features": 0} == {**chosen, "features": 0}
    sure = made.predictor.outputs(again[0], whole)
    assert float(sure.amax(1).mean()) == pytest.approx(float(outputs.amax(1).mean()), abs=0.1)
    assert again[1]["features"] > chosen["features"]


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_a_model_is_as_sure_as_the_labels_are(tmp_path: Path, noise: float) -> None:
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, 600)
    texts = [" ".join(f"{'ab'[kind]}{number}" for number in random.integers(0, 40, 4)) for kind in kinds]
    said = np.where(random.random(600) < noise, random.integers(0, 2, 600), kinds)
    write_jsonl(tmp_path / "train.jsonl", [{"text": t, "label": "xy"[s]} for t, s in zip(texts, said, strict=True)])
    made = TextClassification().prepare(tmp_path, TaskSettings())
    [candidate] = made.candidates()
    fitted = candidate.fit(["train"], allowance(), None)
    assert fitted is not None
    sure = made.predictor.outputs(fitted[0], take(made.splits["test"], slice(None))).amax(1).mean()
    assert float(sure) == pytest.approx(1 - noise / 2, abs=0.12)


def test_of_much_text_evenly_spaced_texts_are_fitted_on_and_of_many_features_the_frequent_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = problem(tmp_path)
    size = int(made.splits["train"]["lengths"].sum())
    monkeypatch.setattr(grams_model, "MOST_BYTES", size // 2)
    monkeypatch.setattr(grams_model, "MOST_WEIGHTS", 200)
    monkeypatch.setattr(grams_model, "PORTION_BYTES", 500)
    [candidate] = made.candidates()
    fitted = candidate.fit(["train"], allowance(), None)
    assert fitted is not None
    assert fitted[1]["features"] == 100
    assert candidate.note.startswith("it is fitted on evenly spaced texts")


@pytest.mark.parametrize(("seconds", "every"), [(900.0, 1), (24.0, 2), (9.0, None)])
def test_where_time_is_too_short_for_all_texts_evenly_spaced_ones_are_fitted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, every: int | None
) -> None:
    clock = itertools.count()
    made = problem(tmp_path)
    monkeypatch.setattr("trainer_image.tasks.text.candidates.time", SimpleNamespace(monotonic=lambda: next(clock)))
    texts = {split: made._texts[split].contents() for split in ("train", "validation")}
    kinds = {split: np.arange(len(part)) % 8 for split, part in texts.items()}
    candidate = LinearCandidate(texts, kinds, 8)
    fitted = candidate.fit(["train"], allowance(seconds), None)
    assert (fitted[1]["every"] if fitted else None) == every
    assert bool(candidate.note) == (every != 1)


@pytest.mark.parametrize(("seconds", "counted"), [(900.0, 1), (100.0, 2)])
def test_where_counting_takes_too_long_evenly_spaced_texts_are_counted_and_more_by_a_refit_with_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, counted: int
) -> None:
    """Counting used to take what a fit needed: of 125,000 lines none was fitted on, and the network alone published."""
    clock = itertools.count()
    made = problem(tmp_path)
    monkeypatch.setattr("trainer_image.tasks.text.candidates.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(grams_model, "PORTION_BYTES", int(made.splits["train"]["lengths"].sum()) // 20)
    [candidate] = made.candidates()
    fitted = candidate.fit(["train"], allowance(seconds), None)
    assert fitted is not None
    assert fitted[1]["counted"] == counted
    for longer, expected in ((seconds, counted), (9000.0, 1)):
        again = candidate.fit(["train"], allowance(longer), fitted[1])
        assert again is not None
        assert again[1] == fitted[1] | {"counted": expected, "features": len(again[0].get_buffer("features"))}
    no_time = candidate.fit(["train"], allowance(0.0), fitted[1])
    assert no_time is None, "the first fit stays"


@pytest.mark.parametrize(("candidates", "loaded"), [("auto", ["sklearn.svm"]), ((), [])])
def test_what_the_fit_needs_is_loaded_while_the_texts_are_read_where_there_will_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: str | tuple[str, ...], loaded: list[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("trainer_image.tasks.text.task.import_ahead", asked.append)
    write_jsonl(tmp_path / "train.jsonl", text_records(60))
    TextClassification().prepare(tmp_path, TaskSettings(candidates=candidates))
    assert asked == loaded


def test_a_fit_without_time_or_that_nobody_needs_sits_out(tmp_path: Path) -> None:
    made = problem(tmp_path)
    for given_up in (allowance(0.0), allowance(stopped=True)):
        [candidate] = made.candidates()
        assert candidate.fit(["train"], given_up, None) is None
        assert candidate.note


@pytest.mark.parametrize("chosen", [{}, {"features": 0}, {"features": 2**40}, {"features": True}, {"features": "9"}])
def test_a_strangers_description_builds_nothing(tmp_path: Path, chosen: dict[str, object]) -> None:
    made = problem(tmp_path, 30)
    with pytest.raises(ValueError, match="no candidate of this task"):
        made.predictor.build_candidate("linear", chosen)
    with pytest.raises(ValueError, match="no candidate of this task"):
        made.predictor.build_candidate("trees", {"features": 3})
    assert rows_in(made.splits["train"])
