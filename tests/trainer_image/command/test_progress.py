"""What a program writes of its progress."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_image.command.progress import PrintedProgress, ProgressFile
from trainer_image.contract import Progress

LINES = [
    ("plain words", ("plain words", 0, {})),
    ('{"step": 3, "loss": 0.5}', ("Step 3, loss 0.5", 3, {"loss": 0.5})),
    ('{"message": "Epoch 2", "step": 4, "fraction": 0.25}', ("Epoch 2", 4, {})),
    ('{"step": "x", "fraction": 7, "loss": NaN, "ok": true}', ("Step 0", 0, {})),
    ('{"step": -1, "big": 1e999, "huge": 1' + "0" * 400 + "}", ("Step 0", 0, {})),
    ("{broken", ("{broken", 0, {})),
    ("[1, 2]", ("[1, 2]", 0, {})),
    ("\x1b[31mred\x07", ("red ", 0, {})),
    ("x" * 400, ("x" * 299 + "…", 0, {})),
]


@pytest.mark.parametrize(("line", "expected"), LINES, ids=range(len(LINES)))
def test_a_line_of_progress_is_a_message_or_figures(
    tmp_path: Path, line: str, expected: tuple[str, int, dict[str, float]]
) -> None:
    said: list[Progress] = []
    progress = ProgressFile(tmp_path / "progress", tmp_path / "history", said.append)
    with progress.path.open("w") as file:
        file.write(line)
    progress.drain()
    assert said == [], "half a line is not read"
    with progress.path.open("a") as file:
        file.write("\n\n")
    progress.drain()
    assert said == [Progress(*expected[:2])]
    kept = progress.history.read_text().splitlines() if progress.history.exists() else []
    assert [json.loads(record) for record in kept] == ([{"step": expected[1], **expected[2]}] if expected[2] else [])


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_in_the_progress_file_harm_the_trainer(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("progress")
    progress = ProgressFile(folder / "progress", folder / "history", lambda progress: None)
    for part in parts:
        with progress.path.open("ab") as file:
            file.write(part)
        progress.poll()
    progress.drain()
    assert progress.poll() is False


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "nothing"])
def test_what_is_no_file_in_place_of_the_progress_file_is_passed_over(tmp_path: Path, kind: str) -> None:
    said: list[Progress] = []
    progress = ProgressFile(tmp_path / "progress", tmp_path / "history", said.append)
    progress.path.unlink()
    if kind == "pipe":
        os.mkfifo(progress.path)
    elif kind == "link":
        (tmp_path / "secret").write_text("secret\n")
        progress.path.symlink_to(tmp_path / "secret")
    elif kind == "folder":
        progress.path.mkdir()
    progress.drain()
    assert said == []


def test_printed_lines_for_which_there_was_no_time_are_read_the_next_time(tmp_path: Path) -> None:
    said: list[Progress] = []
    printed = PrintedProgress(ProgressFile(tmp_path / "progress", tmp_path / "history", said.append))
    lines = iter([(f"Epoch {epoch} of 3, loss 0.{epoch}", False) for epoch in (1, 2, 3)])
    printed.take(lines, within=0.0)
    printed.take(lines)
    assert [progress.step for progress in said] == [1, 3]
