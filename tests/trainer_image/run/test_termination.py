"""The termination message: always JSON, never too long, never a secret."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.contract import RunResult
from trainer_image.run import termination
from trainer_image.run.outcome import Outcome
from trainer_image.run.termination import MAX_BYTES, termination_message, write_termination


def message(text: str, secrets: Iterable[str] = (), **more: Any) -> bytes:
    metrics = more.pop("metrics", None)
    result = RunResult("tabular", metrics, {}, steps=0, seconds=0.0) if metrics else None
    return termination_message("run-1", Outcome(66, "DatasetMissing", text, result=result, **more), secrets)


def test_the_message_comes_first_and_the_rest_in_order() -> None:
    content = message("Failed", step=7, metrics={"accuracy": 0.9, "odd": float("nan")})
    assert list(json.loads(content)) == ["message", "code", "exit", "retryable", "run_id", "step", "metrics"]
    assert json.loads(content)["metrics"] == {"accuracy": 0.9}
    assert list(json.loads(message("x"))) == ["message", "code", "exit", "retryable", "run_id", "step"]


@given(
    st.text(alphabet=st.characters() | st.sampled_from('"\\\n\x00ü€😀'), max_size=6000)
    | st.text().map(lambda t: t * 3000)
)
def test_any_message_is_valid_json_of_at_most_4096_bytes(text: str) -> None:
    content = message(text)
    assert len(content) <= MAX_BYTES
    kept = json.loads(content.decode("utf-8"))["message"]
    assert "\n" not in kept


@pytest.mark.parametrize("character", ["x", "ü", "€", "😀", '"', "\\"])
def test_as_much_of_a_long_message_is_kept_as_fits(character: str) -> None:
    content = message(character * 10_000)
    assert MAX_BYTES - 8 < len(content) <= MAX_BYTES
    assert json.loads(content)["message"].endswith("…")


def test_too_many_metrics_are_left_out_before_the_message_is_cut() -> None:
    body = json.loads(message("Completed", metrics={f"m{n}": 0.5 for n in range(1000)}))
    assert body["message"] == "Completed"
    assert "metrics" not in body


def test_secrets_are_redacted() -> None:
    content = message("https://a/b?sv=1&sig=abcdef AccountKey=c2VjcmV0; key-of-portal", secrets=["key-of-portal"])
    for secret in (b"abcdef", b"c2VjcmV0", b"key-of-portal"):
        assert secret not in content


def test_it_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_bytes(b"x" * 5000)
    write_termination(path, b'{"message": "m"}')
    assert path.read_bytes() == b'{"message": "m"}'
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_a_folder_that_cannot_be_written_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "termination-log"
    path.write_bytes(b"x" * 5000)

    def refuse(self: Path, content: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    write_termination(path, b"{}")
    assert path.read_bytes() == b"{}"


def test_kubernetes_own_file_is_not_made_where_there_is_no_kubernetes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "termination-log"
    monkeypatch.setattr(termination, "KUBERNETES_FILE", path)
    write_termination(path, b"{}")
    assert not path.exists()
    path.write_text("")
    write_termination(path, b"{}")
    assert path.read_bytes() == b"{}"


def test_a_laptop_without_the_file_is_no_error(tmp_path: Path) -> None:
    write_termination(tmp_path / "nowhere" / "termination-log", b"{}")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    write_termination(locked / "termination-log", b"{}")
    locked.chmod(stat.S_IRWXU)


def test_nothing_in_the_last_words_breaks_a_line_or_turns_the_writing_round() -> None:
    odd = "\u2028one\u2029\u202etwo\u2066\u200f\u061cthree\x1b[31m\x85\ufefffour\r\n"
    words = json.loads(termination_message("run", Outcome(65, "DatasetInvalid", f"Invalid dataset: {odd}: x")))
    assert words["message"] == "Invalid dataset: one two three four : x"
