"""Log lines: which model they are about, for people and for machines, and never a secret."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest

from dispatcher.telemetry import logs

KEY = "portal-key-0123456789"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], _ = handlers, root.setLevel(level)


def test_a_json_line_carries_what_its_thread_works_on(capfd: pytest.CaptureFixture[str]) -> None:
    logs.log_to_stderr("INFO", True, [KEY])
    with logs.bind(model="1", job="model-1"), logs.bind(message_id="m", attempt=2):
        logging.getLogger("portal_client").info("Current status of model %s: %s", "1", "Created")
    logging.getLogger("dispatcher").info("idle")
    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert first["time"].endswith("Z")
    assert {k: v for k, v in first.items() if k != "time"} == {
        "level": "info",
        "logger": "portal_client",
        "message": "Current status of model 1: Created",
        "model": "1",
        "job": "model-1",
        "message_id": "m",
        "attempt": 2,
    }
    assert "model" not in second


def test_threads_do_not_see_each_others_models(capfd: pytest.CaptureFixture[str]) -> None:
    logs.log_to_stderr("INFO", True, ())

    def work(model: str) -> None:
        with logs.bind(model=model):
            logging.info("at work on %s", model)  # noqa: LOG015

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = list(map(json.loads, capfd.readouterr().err.splitlines()))
    assert sorted(line["model"] for line in lines) == sorted(map(str, range(20)))
    assert all(line["message"].endswith(f" {line['model']}") for line in lines)


def test_a_line_for_people_names_the_job_first(capfd: pytest.CaptureFixture[str]) -> None:
    logs.log_to_stderr("INFO", False, ())
    with logs.bind(job="model-1"):
        logging.getLogger("x").warning("Intake pauses")
    assert capfd.readouterr().err.endswith(" WARNING [model-1] Intake pauses\n")
    with logs.bind(message_id="7f6c2f0e-0d6b-4a0c-9a52-1f0f3c9d2b11", attempt=2):
        logging.getLogger("x").warning("it is redelivered")
        with logs.bind(job="model-1"):
            logging.getLogger("x").info("launched")
    assert [line.split(" ", 3)[-1] for line in capfd.readouterr().err.splitlines()] == [
        "[message 7f6c2f0e attempt 2] it is redelivered",
        "   [model-1 message 7f6c2f0e attempt 2] launched",
    ]


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_reaches_a_line_or_its_exception(as_json: bool, capfd: pytest.CaptureFixture[str]) -> None:
    logs.log_to_stderr("DEBUG", as_json, [KEY])
    try:
        raise ValueError(f"refused: {KEY}")
    except ValueError:
        logging.getLogger("x").exception("failed with %s", KEY)
    text = capfd.readouterr().err
    assert "ValueError" in text
    assert KEY not in text


def test_a_json_line_is_one_line_whatever_it_says(capfd: pytest.CaptureFixture[str]) -> None:
    logs.log_to_stderr("INFO", True, ())
    logging.getLogger("x").info("two\nlines and \u2028 more")
    text = capfd.readouterr().err
    assert text.count("\n") == 1
    assert json.loads(text)["message"] == "two\nlines and \u2028 more"
