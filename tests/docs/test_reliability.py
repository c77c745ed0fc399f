"""docs/reliability.md has a row for each known failure, and names exactly the tests that show it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.world.pages import section, table_rows
from tests.world.repository import ROOT, read

ROWS = table_rows(section(read("docs/reliability.md"), "Known failures, row by row"))
FILES = sorted((ROOT / "tests" / "failure_modes").glob("test_*.py"))
# A test elsewhere: [its name in words](../tests/…/its_file.py)
_LINK = re.compile(r"\[(?P<words>[^\]]+)\]\(\.\./(?P<file>tests/[\w/]+\.py)\)")


def _tests(path: Path) -> list[str]:
    return re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def _own() -> dict[str, set[str]]:
    """F1 → the names of its tests in tests/failure_modes, in words."""
    found: dict[str, set[str]] = {row[0]: set() for row in ROWS}
    for path in FILES:
        for name in _tests(path):
            number, words = re.fullmatch(r"test_f(\d\d)_(\w+)", name).groups()  # type: ignore[union-attr]
            found[f"F{int(number)}"].add(words.replace("_", " "))
    return found


def test_every_known_failure_has_its_row() -> None:
    numbers = [int(row[0].removeprefix("F")) for row in ROWS]
    assert numbers == list(range(1, 91))


def test_every_row_names_its_tests_of_failure_modes_and_no_other() -> None:
    named = {row[0]: {entry for entry in row[3].split("; ") if not _LINK.fullmatch(entry)} for row in ROWS}
    assert named == _own()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_test_elsewhere_that_a_row_names_is_there(row: list[str]) -> None:
    for link in _LINK.finditer(row[3]):
        assert f"test_{link['words'].replace(' ', '_')}" in _tests(ROOT / link["file"]), link[0]


def test_every_row_says_what_happens_and_is_shown_by_a_test() -> None:
    assert all(len(row[2]) > 20 and row[3] for row in ROWS)


def test_every_test_of_a_failure_is_named_after_its_row() -> None:
    for path in FILES:
        for name in _tests(path):
            assert re.match(r"test_f\d\d_", name), f"{path.name}: {name}"
