"""What the demo expects of each request, and how it shows what it saw."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from local_stack import stack
from local_stack.demo import run
from local_stack.demo.requests import REQUESTS, Outcome, Request, mismatch, on_nodes
from local_stack.demo.view import Progress, print_outcomes
from local_stack.demo.watch import Seen, Snapshot

BY_NAME = {request.name: request for request in REQUESTS}

GOOD = {
    "table": Outcome(("Completed", "done"), job=True, metrics={"accuracy": 0.97}, runs=1, place="model-tumours/runs/1"),
    "images": Outcome(("Completed", "done"), job=True, metrics={"accuracy": 0.97}, runs=1),
    "reconfigure": Outcome(("Completed", "done"), job=True, metrics={"r2": 0.5}, runs=1),
    "no dataset": Outcome(("Failed", "Failed to download dataset from container: dataset-missing"), job=True),
    "bad config": Outcome(
        ("Failed", "Invalid configuration: train.time_budgt: no such key; did you mean time_budget?"), job=True
    ),
    "completed": Outcome(("Completed", "Model training completed successfully"), runs=0),
    "bad name": Outcome(poison=("InvalidContainerName", "why")),
    "no JSON": Outcome(poison=("NotJson", "why")),
    "table again": Outcome(("Completed", "done"), runs=1),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_expected_outcome_is_no_mismatch(name: str) -> None:
    assert mismatch(BY_NAME[name], GOOD[name]) is None


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("table", {"portal": ("Processing", "Epoch 3")}, "should be Completed, but is Processing"),
        ("table", {"portal": None}, "is unknown to the portal"),
        ("table", {"runs": 2}, "should hold one run, but holds 2"),
        ("table", {"metrics": {"accuracy": 0.5}}, "should be at least 0.9, but is 0.500"),
        ("table", {"metrics": {"loss": 0.5}}, "has no test accuracy, but loss"),
        ("table", {"poison": ("NotJson", "")}, "in the poison queue"),
        ("no dataset", {"portal": ("Failed", "Out of memory")}, 'but is "Out of memory"'),
        ("no dataset", {"portal": ("Completed", "")}, "should be Failed, but is Completed"),
        ("completed", {"job": True}, "there is a Job for it"),
        (
            "completed",
            {"portal": ("Processing", "")},
            "should still be Completed (Model training completed successfully), but is Processing",
        ),
        ("bad name", {"poison": None}, "should be in the poison queue"),
        ("bad name", {"poison": ("NotJson", "")}, "gives NotJson as its reason"),
        ("table again", {"runs": 2}, "should hold one run, but holds 2"),
    ],
)
def test_another_outcome_is_explained_in_a_sentence(name: str, change: dict[str, object], says: str) -> None:
    sentence = mismatch(BY_NAME[name], dataclasses.replace(GOOD[name], **change))  # type: ignore[arg-type]
    assert sentence is not None
    assert says in sentence


def test_a_demo_on_several_nodes_asks_for_them_and_for_no_model_of_another_request() -> None:
    request = on_nodes(3)
    assert json.loads(request.message)["resources"] == {"nodes": 3, "gpus": 1}
    assert request.container not in {other.container for other in REQUESTS}
    assert mismatch(request, GOOD["images"]) is None


def _console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=160, highlight=False), text


def test_the_last_table_shows_every_request_and_counts_what_is_wrong() -> None:
    console, text = _console()
    assert print_outcomes(console, REQUESTS, GOOD) == 0
    assert print_outcomes(console, REQUESTS, {**GOOD, "table": Outcome()}, ["the dispatcher died"]) == 2
    shown = text.getvalue()
    assert all(request.name in shown for request in REQUESTS)
    assert "accuracy 0.970" in shown
    assert "InvalidContainerName" in shown
    assert "not as expected: table: its status should be Completed" in shown
    assert "not as expected: the dispatcher died" in shown


def test_piped_output_has_a_line_for_each_change_and_none_for_no_change() -> None:
    console, text = _console()
    request = BY_NAME["table"]

    def snapshot(seen: Seen) -> Snapshot:
        return Snapshot({request.name: seen}, queued=0, poison={}, gpus_busy=0)

    with Progress(console, [request], gpus=2) as progress:
        for status, words in (("Created", ""), ("Processing", "[Epoch 1]"), ("Processing", "[Epoch 1]")):
            progress.show(1.0, snapshot(Seen((status, words), "running")))
    assert [line.split()[2:4] for line in text.getvalue().splitlines()] == [
        ["table", "Created"],
        ["table", "Processing"],
    ]
    assert "[Epoch 1]" in text.getvalue()


def test_a_second_demo_says_that_one_is_up_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".local" / "demo"
    folder.mkdir(parents=True)
    for name, value in {"FOLDER": folder, "STATE": folder / "state.json", "ROOT": tmp_path}.items():
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr("local_stack.demo.help.ROOT", tmp_path)
    monkeypatch.setattr(run, "running", lambda: {"azurite": (123, "mark")})
    assert run.run() == run.EXIT_NOT_STARTED
    shown = capsys.readouterr().out
    assert "A demo is already up" in shown
    assert "azurite (pid 123)" in shown
    assert "make demo-down" in shown
    assert list(folder.iterdir()) == []


def test_every_secret_that_the_job_template_takes_is_one_that_the_stack_fills() -> None:
    template = yaml.safe_load(stack.JOB_TEMPLATE.read_text(encoding="utf-8"))
    wanted = {key for keys in stack.referenced_secrets(template).values() for key in keys}
    assert wanted == {"API_KEY", "AZURE_STORAGE_CONNECTION_STRING"}


def test_requests_do_not_share_models_but_for_the_one_sent_twice() -> None:
    containers = [request.container for request in REQUESTS if request.container and request.after is None]
    assert len(containers) == len(set(containers))
    again: Request = BY_NAME["table again"]
    assert again.message == BY_NAME["table"].message
