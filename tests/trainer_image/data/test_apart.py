from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from trainer_image.data import apart
from trainer_image.errors import DatasetInvalid, LimitExceeded, OutOfMemory, TrainerError

PARSER = "tests.world.programs.doomed_parser"


def ask(do: str) -> list[bytes]:
    """What the parser answers: its process id, what it was asked to do, b"end"."""
    return [bytes(part) for part in apart.asked(PARSER, "x.bin", {"name": "x.bin", "do": do})]


@pytest.mark.parametrize(
    ("do", "kind", "told"),
    [
        ("abort", DatasetInvalid, r"x\.bin: cannot be read: .* crashes its reader \(SIGABRT\)"),
        ("raise", DatasetInvalid, r"x\.bin: cannot be read: .* crashes its reader \(exit code 1\)"),
        ("refuse", DatasetInvalid, r"x\.bin: row 7: is no number"),
        ("take memory", LimitExceeded, r"x\.bin takes more than [\d.]+ [GM]iB of memory to read"),
        ("be killed", OutOfMemory, r"the process that reads x\.bin was killed"),
    ],
)
def test_whatever_becomes_of_the_parser_is_a_sentence_that_names_the_file(
    do: str, kind: type[TrainerError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        ask(do)
    assert ask("nothing")[-1] == b"end", "the next file has a parser again"


def test_a_parser_that_does_not_start_is_no_fault_of_the_file() -> None:
    with pytest.raises(RuntimeError, match=r"tests\.world\.no_such_parser does not start \(exit code 1\)"):
        list(apart.asked("tests.world.no_such_parser", "x.bin", {}))


def test_a_machine_that_starts_no_process_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_idle", {})
    monkeypatch.setattr(apart.sys, "executable", "/no/such/python")
    with pytest.raises(OutOfMemory, match=r"no process can be started to read the dataset \(No such file"):
        ask("nothing")


def test_a_parser_that_falls_silent_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = int(ask("nothing")[0])  # it has started: only what it does now is waited for
    monkeypatch.setattr(apart, "SILENT_SECONDS", 0.2)
    with pytest.raises(DatasetInvalid, match=r"x\.bin: cannot be read: nothing comes of it within"):
        ask("fall silent")
    assert not Path(f"/proc/{pid}").exists()


def test_files_share_a_parser_also_after_one_was_refused() -> None:
    first = ask("nothing")[0]
    with pytest.raises(DatasetInvalid):
        ask("refuse")
    assert ask("nothing")[0] == first


def test_a_parser_that_has_left_for_want_of_files_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask("nothing")[0]
    [child] = apart._idle[PARSER]
    child._to.close()  # as if it had waited long enough: its input ends, and so does it
    child._process.wait()
    reading, writing = os.pipe()
    os.close(reading)
    child._process.stdin = os.fdopen(writing, "wb", buffering=0)
    monkeypatch.setattr(apart._Child, "has_ended", lambda child: False)  # it leaves just after we have looked
    assert ask("nothing")[0] != first


def test_a_reading_that_is_given_up_ends_its_parser() -> None:
    parts = apart.asked(PARSER, "x.bin", {"name": "x.bin", "do": "fall silent"})
    pid = int(bytes(next(parts)))
    parts.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{pid}").exists()


def test_what_a_library_prints_is_no_answer() -> None:
    assert ask("print")[1:] == [b"end"]


def test_a_parser_gets_no_credentials_and_no_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_idle", {})
    monkeypatch.setenv("API_KEY", "key-of-the-portal")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=x;AccountKey=c2VjcmV0")
    pid, environment, _ = ask("tell")
    assert b"key-of-the-portal" not in environment
    assert b"c2VjcmV0" not in environment
    assert os.getpgid(int(pid)) != os.getpgid(0)
    os.kill(int(pid), signal.SIGKILL)
