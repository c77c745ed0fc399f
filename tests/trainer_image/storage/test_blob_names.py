"""Blob names that would leave the folder, hide, or fall together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.storage.blob_names import first_problem, printable, problem_of


@pytest.mark.parametrize(
    "name",
    [
        "train.csv",
        "train/cat/1.png",
        "a b/c&d;e.txt",
        "ünïcödé/日本.txt",
        ".hidden",
        "a..b/c...d",
        "train/…",
        "-rf",
        "~/x",
    ],
)
def test_ordinary_names_are_accepted(name: str) -> None:
    assert problem_of(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("../etc/passwd", ".."),
        ("train/../../x", ".."),
        ("train/..", ".."),
        ("./x", "."),
        ("/etc/passwd", "absolute"),
        ("C:/x", "absolute"),
        ("c:x", "absolute"),
        ("..\\x", "backslash"),
        ("a\\b", "backslash"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("a\x85b", "control"),
        ("a\u2028b", "control"),
        ("a\ud800b", "control"),
        ("a//b", "empty folder"),
        ("a/", "empty folder"),
        ("x" * 256, "too long"),
        ("ü" * 128, "too long"),
        ("/".join(["x" * 200] * 11), "too long"),
    ],
)
def test_dangerous_names_are_refused(name: str, why: str) -> None:
    assert why in (problem_of(name) or "")


@pytest.mark.parametrize(
    ("names", "offender"),
    [
        (["a.csv", "A.csv"], "A.csv"),
        (["train/a", "Train/b"], "Train/b"),
        (["caf\u00e9", "cafe\u0301"], "cafe\u0301"),
        (["stra\u00dfe", "strasse"], "strasse"),
        (["train", "train/a"], "train"),
        (["train/a", "train"], "train"),
        (["TRAIN", "train/a"], "TRAIN"),
        (["ok", "../x"], "../x"),
    ],
)
def test_names_that_fall_together_are_refused(names: list[str], offender: str) -> None:
    found = first_problem(names)
    assert found is not None
    assert found[0] == offender


def test_names_side_by_side_are_accepted() -> None:
    assert first_problem(["train/a", "train/b", "test/a", "train.csv", "trains"]) is None


@given(st.text(max_size=40))
def test_an_accepted_name_stays_below_the_folder(name: str) -> None:
    if problem_of(name) is None:
        segments = name.split("/")
        assert ".." not in segments
        assert not name.startswith("/")
        assert "\x00" not in name


@given(st.text(max_size=500))
def test_a_name_in_a_sentence_is_one_short_printable_line(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert len(shown) <= 200
    shown.encode()
