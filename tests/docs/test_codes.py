"""Every code that a user may read stands in the docs with the words that the code writes, and no other does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from dispatcher.decisions import codes, pod_failure
from dispatcher.intake import loop
from tests.world.pages import section, table_rows
from tests.world.repository import ROOT, read
from trainer_image import errors
from trainer_image.errors import TrainerError

TROUBLESHOOT = read("docs/troubleshoot.md")
TRAINER_TABLE = section(TROUBLESHOOT, "Said by the trainer")
KUBERNETES_TABLE = section(TROUBLESHOOT, "Read from Kubernetes")
POISON_TABLE = section(TROUBLESHOOT, "Codes in the poison queue")
SOURCES = [
    path
    for package in ("training_common", "dispatcher", "portal_client", "trainer_image")
    for path in (ROOT / package).rglob("*.py")
]


def _codes(table: str) -> set[str]:
    return {row[0].strip("`") for row in table_rows(table)}


def _calls(files: list[Path], *functions: str) -> Iterator[ast.Call]:
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in functions:
                    yield node


def _literal_codes(*functions: str) -> set[str]:
    """Arguments of these calls that look like a code: one word in camel case."""
    return {
        argument.value
        for call in _calls(sorted((ROOT / "dispatcher").rglob("*.py")), *functions)
        for argument in call.args
        if isinstance(argument, ast.Constant)
        and isinstance(argument.value, str)
        and re.fullmatch(r"(?:[A-Z][a-z]+)+", argument.value)
    }


def _trainer_codes() -> dict[str, int]:
    """Code → exit code of every way that the trainer ends."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TrainerError)]
    return {kind.code: kind.exit_code for kind in kinds} | {"Completed": 0}


def _kubernetes_codes() -> set[str]:
    disruptions = {code for code, _ in pod_failure._DISRUPTIONS.values()}
    # Chosen by an expression, where no call names them.
    return _literal_codes("Verdict") - {"Completed"} | disruptions | {"Disrupted", "JobFailed"}


def test_every_code_that_is_read_from_kubernetes_is_documented_and_no_other() -> None:
    assert _codes(KUBERNETES_TABLE) == _kubernetes_codes()


def test_every_code_of_the_trainer_is_documented_with_its_exit_code() -> None:
    rows = {row[0].strip("`"): int(row[1]) for row in table_rows(TRAINER_TABLE)}
    assert rows == _trainer_codes()


def test_the_authors_page_has_every_exit_code() -> None:
    rows = table_rows(section(read("docs/trainer-authors.md"), "Exit codes"))
    found = {code: int(row[0]) for row in rows for code in re.findall(r"`(\w+)`", row[1])}
    assert found == _trainer_codes()


def test_every_code_of_the_poison_queue_is_documented_and_no_other() -> None:
    known = _literal_codes("_bad", "_message_failed", "PoisonEntry") | set(loop._POISON_CODES.values())
    assert _codes(POISON_TABLE) == known


@pytest.mark.parametrize("table", [TRAINER_TABLE, KUBERNETES_TABLE, POISON_TABLE])
def test_the_tables_say_whose_fault_each_code_is_as_the_metric_does(table: str) -> None:
    rows = {row[0].strip("`"): row for row in table_rows(table)}
    faults = {code: row[-2] for code, row in rows.items() if row[-2] != "–"}
    assert faults == {code: str(codes.FAULTS[code]) for code in rows if code not in (codes.COMPLETED, "Unknown")}
    told = {code for code, row in rows.items() for cell in row if cell.startswith('"') and "Tell the operator" in cell}
    assert all(faults[code] == codes.Fault.OPERATOR for code in told), "a sentence that sends them to the wrong one"


def test_every_event_on_a_job_is_documented_and_no_other() -> None:
    calls = _calls(sorted((ROOT / "dispatcher").rglob("*.py")), "record", "make_event")
    said = {arg.value for call in calls for arg in call.args[1:2] if isinstance(arg, ast.Constant)}
    # Of a report it is the status.
    said |= {"Completed", "Failed"}
    rows = table_rows(section(read("docs/operate.md"), "The events of one training"))
    assert {reason for row in rows for reason in re.findall(r"`(\w+)`", row[0])} == said


def test_the_labels_of_metrics_are_the_codes_that_there_are() -> None:
    assert set(codes.REPORTED_BY_TRAINER) == set(_trainer_codes()) - {codes.COMPLETED}
    assert set(codes.READ_FROM_KUBERNETES) == _kubernetes_codes() - set(codes.REPORTED_BY_TRAINER)
    # An entry without our envelope is none of our making.
    assert set(codes.POISON) == _codes(POISON_TABLE) - {"Unknown"}


def test_the_exit_codes_of_the_dispatcher_are_those_of_its_help() -> None:
    from dispatcher.cli.main import _EPILOG

    rows = [row[0] for row in table_rows(section(read("docs/operate.md"), "Exit codes"))]
    said = re.findall(r"\b(\d+) [a-z]", _EPILOG.split("Exit codes:")[1])
    assert rows == said


@cache
def _written_words() -> list[str]:
    """Every text in the sources; f-strings in the pieces between their placeholders."""
    return [
        " ".join(node.value.split())
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def _quoted() -> list[str]:
    """The sentences in double quotes in the tables of codes and of waiting."""
    waiting = section(TROUBLESHOOT, "Waiting: messages under Processing")
    answers = section(TROUBLESHOOT, "What the cluster and the queue answer")
    cells = [
        cell
        for table in (TRAINER_TABLE, KUBERNETES_TABLE, POISON_TABLE, waiting, answers)
        for row in table_rows(table)
        for cell in row
    ]
    return [sentence for cell in cells if cell.startswith('"') for sentence in [cell[1 : cell.rindex('"')]]]


@pytest.mark.parametrize("sentence", _quoted())
def test_a_quoted_sentence_is_one_that_the_code_writes(sentence: str) -> None:
    for piece in sentence.split("…"):
        # Around a placeholder a colon, a bracket or a full stop may be of the caller's making.
        words = piece.strip(" .:()")
        assert not words or any(words in written for written in _written_words()), f"nobody writes {words!r}"
