"""What a program may leave to be published."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.trainer_image.command.programs import LEAVE, PYTHON, inputs_for
from trainer_image import command, errors
from trainer_image.command import output
from trainer_image.limits import Limits


def test_figures_of_the_program_reach_report_and_termination_message(tmp_path: Path) -> None:
    code = LEAVE + (
        "o = os.environ['OUTPUT_DIR']; open(o + '/metrics.json', 'w').write("
        '\'{"accuracy": 0.9, "<b>": 1, "note": "x", "nan": NaN}\');'
        "open(os.environ['PROGRESS_FILE'], 'a').write('{\"step\": 2, \"loss\": 1}\\n')"
    )
    inputs = inputs_for(tmp_path, PYTHON, "-c", code)
    inputs.output.mkdir(parents=True)
    result = command.train(inputs)
    assert (dict(result.metrics), result.steps) == ({"accuracy": 0.9, "<b>": 1.0}, 2)
    report = json.loads((inputs.output / "report.json").read_text())
    assert (report["headline"], report["metrics"]) == ("accuracy", {"accuracy": 0.9, "<b>": 1.0})
    assert report["training"]["notes"] == ["2 entries of metrics.json are no finite numbers, or too many: left out."]
    assert (inputs.output / "metrics.jsonl").read_text() == '{"step": 2, "loss": 1.0}\n'
    assert "<b>" not in (inputs.output / "report.html").read_text()
    assert json.loads((inputs.output / "model.json").read_text())["task"] == "command"


@pytest.mark.parametrize("content", ["", "[1]", "{", "{" + '"a": 1,' * 20_000, "[" * 5000])
def test_a_metrics_file_that_cannot_be_read_costs_no_training(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    figures, notes = output.read_metrics(tmp_path / "metrics.json")
    assert figures == {}
    assert notes[0].startswith("metrics.json was not read: ")


def leave(folder: Path, what: str) -> None:
    """One thing in a program's OUTPUT_DIR."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_bytes(b"12345")
    if what == "link out":
        (folder / "passwd").symlink_to("/etc/passwd")
    elif what == "folder out":
        (folder / "etc").symlink_to("/etc")
    elif what == "link up":
        (folder / "up").symlink_to("../output2/x")
    elif what == "link in":
        (folder / "last").symlink_to("weights")
    elif what == "folder in":
        (folder / "sub").mkdir()
        (folder / "again").symlink_to("sub")
    elif what == "dangling":
        (folder / "gone").symlink_to("nothing")
    elif what == "pipe":
        os.mkfifo(folder / "pipe")
    elif what == "newline":
        (folder / "a\nb").touch()
    elif what == "twins":
        (folder / "README.MD").touch()
    elif what == "report folder":
        (folder / "report.json").mkdir()
        (folder / "report.json" / "x").touch()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("one file", None),
        ("link in", None),
        ("link out", "a link in OUTPUT_DIR that leads out of it: passwd"),
        ("folder out", "a link in OUTPUT_DIR that leads out of it: etc"),
        ("link up", "a link in OUTPUT_DIR that leads out of it: up"),
        ("folder in", "something in OUTPUT_DIR that is no file: again"),
        ("dangling", "something in OUTPUT_DIR that is no file: gone"),
        ("pipe", "something in OUTPUT_DIR that is no file: pipe"),
        ("newline", "no usable name: a\\nb: the name contains a control character"),
        ("twins", "no usable name: README.md: differs from README.MD"),
        ("report folder", "no usable name: report.json: the name is that of a file and of a folder"),
    ],
)
def test_only_files_of_the_program_s_own_are_published(tmp_path: Path, what: str, told: str | None) -> None:
    leave(tmp_path / "output", what)
    if told is None:
        assert "weights" in output.published(tmp_path / "output", Limits())
        return
    with pytest.raises(errors.UserCodeFailed) as refused:
        output.published(tmp_path / "output", Limits())
    assert told in refused.value.sentence


def test_a_model_beyond_the_operator_s_limit_is_not_published(tmp_path: Path) -> None:
    leave(tmp_path / "output", "one file")
    assert output.published(tmp_path / "output", Limits(output_bytes=5))
    with pytest.raises(errors.LimitExceeded, match="left 5 bytes in OUTPUT_DIR; the limit is 4 bytes"):
        output.published(tmp_path / "output", Limits(output_bytes=4))
