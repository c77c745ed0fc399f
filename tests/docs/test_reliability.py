"""docs/reliability.md has a row for each known failure, and names exactly the tests that show it."""

from __future__ import annotations

import re

from tests.world.pages import section, table_rows
from tests.world.repository import ROOT, read

PAGE = read("docs/reliability.md")
ROWS = table_rows(section(PAGE, "Known failures, row by row"))


def _tests() -> dict[str, set[str]]:
    """F1 → the names of its tests, in words."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests" / "failure_modes").glob("test_*.py")):
        for number, name in re.findall(r"^def test_f(\d\d)_(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(f"F{int(number)}", set()).add(name.replace("_", " "))
    return found


def test_every_known_failure_has_its_row() -> None:
    assert [row[0] for row in ROWS] == [f"F{number}" for number in range(1, 43)]


def test_every_row_names_the_tests_that_exist_and_no_other() -> None:
    assert {row[0]: set(row[3].split("; ")) for row in ROWS} == _tests()


def test_every_row_says_what_happens() -> None:
    assert all(len(row[2]) > 20 for row in ROWS)


def test_every_test_of_a_failure_is_named_after_its_row() -> None:
    for path in sorted((ROOT / "tests" / "failure_modes").glob("test_*.py")):
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.match(r"test_f\d\d_", name), f"{path.name}: {name}"
