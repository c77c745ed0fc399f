"""Some of what `python -m tests.fuzz` tries, the same damaged files every time; and whether it would see a fault."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import run
from tests.fuzz.damage import Format
from tests.fuzz.formats import FORMATS
from tests.fuzz.mutations import damaged, lying
from trainer_image.errors import invalid

pytestmark = pytest.mark.long

RUNS = 40


@pytest.fixture(scope="module")
def done() -> dict[str, run.Done]:
    """All in one process, whose imports take longer than a format does."""
    return run.fuzz(list(FORMATS), 0, RUNS, 0)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_refused_by_name(done: dict[str, run.Done], name: str) -> None:
    assert not done[name].findings, "\n".join(done[name].findings)
    assert done[name].counts.total() == RUNS
    assert set(done[name].counts) <= {"read", *(kind.code for kind in FORMATS[name].errors)}


def _reads(folder: Path, content: bytes) -> object:
    match content:
        case b"index":
            raise IndexError("out of range")
        case b"another":
            raise invalid("another.file", "is damaged")
        case b"memory":
            return bytearray(64 * 1024**3)
        case b"slow":
            signal.raise_signal(signal.SIGALRM)
        case b"right":
            raise invalid("x.bin", "is \x1b[31mred\u2028")
    return content


@pytest.mark.parametrize(
    ("content", "outcome", "told"),
    [
        (b"index", "finding", "IndexError: out of range"),
        (b"another", "DatasetInvalid", "names no x.bin"),
        (b"memory", "finding", "MemoryError"),
        (b"slow", "finding", "_TooSlow"),
        (b"right", "DatasetInvalid", None),
        (b"read", "read", None),
    ],
)
def test_what_is_no_clean_refusal_is_a_finding(tmp_path: Path, content: bytes, outcome: str, told: str | None) -> None:
    form = Format(lambda: [b""], lambda content, samples, random: content, _reads, named="x.bin")
    before = signal.signal(signal.SIGALRM, run._too_slow)
    said = run._trial(form, tmp_path, content)
    signal.signal(signal.SIGALRM, before)
    assert said["outcome"] == outcome
    assert told is None if "finding" not in said else told and told in said["finding"]


DIES = """#!/bin/sh
case "$*" in
*"--first 5 "*)
    echo '{"format": "latest.json", "seed": 5}'
    echo '{"format": "latest.json", "seed": 5, "outcome": "read"}'
    echo '{"format": "latest.json", "seed": 6}'; kill -ABRT $$ ;;
*"--first 7 latest.json MANIFEST.json"*)
    echo '{"format": "latest.json", "seed": 7, "outcome": "read"}'
    echo '{"format": "MANIFEST.json", "seed": 5, "outcome": "read"}' ;;
esac
"""


def test_a_file_that_the_process_dies_of_is_told_with_the_command_that_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(DIES)
    python.chmod(0o755)
    monkeypatch.setattr(run.sys, "executable", str(python))
    done = run.fuzz(["latest.json", "MANIFEST.json"], 5, 3, 0)
    assert done["latest.json"].counts == {"read": 2, "died": 1}
    assert done["MANIFEST.json"].counts == {"read": 1}
    [finding] = done["latest.json"].findings
    assert "the process dies (SIGABRT)" in finding
    assert finding.endswith(".venv/bin/python -m tests.fuzz latest.json --seed 6 --runs 1")


def test_damage_is_of_every_kind_and_repeats_itself() -> None:
    sample = b'{"n": 12, "s": "text"}\n' * 40
    files = [damaged(sample, [sample], Random(seed), text=bool(seed % 2)) for seed in range(300)]
    assert files == [damaged(sample, [sample], Random(seed), text=bool(seed % 2)) for seed in range(300)]
    assert len(set(files)) > 250
    assert min(map(len, files)) < len(sample) < max(map(len, files))
    told = [lying({"a": [1, {"b": "c"}], "d": 0.5}, Random(seed)) for seed in range(300)]
    assert len(set(told)) > 150
    kinds = Counter(type(json.loads(value)["d"]).__name__ for value in told if '"d"' in value)
    assert {"float", "int", "str", "list", "dict", "NoneType", "bool"} <= set(kinds)
