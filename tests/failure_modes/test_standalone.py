"""Failure modes of a trainer that a person runs: a portal that is away, signals, settings. Real processes and a portal.

What is trained is a program of one line, so that a training takes a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_stack.portal.client import StandInPortal
from local_stack.processes import wait_until
from tests.world.repository import ROOT
from tests.world.trainer_fakes import write_dataset

pytestmark = pytest.mark.long

MODEL = "import os; open(os.environ['OUTPUT_DIR'] + '/weights', 'w').write('w')"
# Trains until it is told to stop, which it does in its own time.
ENDLESS = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " open('{started}', 'w').close(); time.sleep(600)"
)


class Standalone:
    """One person's folder, with a model at the portal."""

    def __init__(self, folder: Path, portal: StandInPortal, model: str) -> None:
        self.folder, self.portal, self.model = folder, portal, model
        self.words, self.log = folder / "last-words", folder / "log"
        self.running: list[subprocess.Popen[str]] = []
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TERMINATION_MESSAGE_PATH": str(self.words),
        }
        write_dataset(folder)
        self.program(MODEL)
        self.settings = {
            "API_BASE_URL": portal.url,
            "API_KEY": portal.api_key,
            "MODEL_CONTAINER": f"model-{model}",
            "ALLOW_COMMAND": "on",
            "REPORT_RETRY_SECONDS": "0.5",
        }

    def program(self, code: str) -> None:
        config = {"task": "command", "command": {"argv": [sys.executable, "-c", code]}}
        (self.folder / "config.yaml").write_text(json.dumps(config))

    def start(self, *arguments: str, output: int | None = None) -> subprocess.Popen[str]:
        """`python -m trainer_image …` there, with the settings in config.env alone. output: in place of the log"""
        lines = [f"{name}={value}\n" for name, value in self.settings.items()]
        (self.folder / "config.env").write_text("".join(lines))
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer_image", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=self.log.open("w") if output is None else output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(process)
        return process

    def train(self, output: int | None = None) -> subprocess.Popen[str]:
        where = ("--data", "data", "--config", "config.yaml", "--out", "out")
        return self.start("train", *where, "--run-id", "mine", "--device", "cpu", output=output)

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """(exit code, what it said)"""
        process.wait(60)
        said = self.log.read_text()
        assert "Traceback" not in said
        return process.returncode, said

    def status(self) -> tuple[str, str]:
        return self.portal.status(self.model)

    def last_words(self) -> dict[str, Any]:
        words: dict[str, Any] = json.loads(self.words.read_bytes())
        return words


@pytest.fixture
def person(tmp_path: Path, portal: StandInPortal, model_id: str) -> Iterator[Standalone]:
    portal.set_model(model_id)
    made = Standalone(tmp_path, portal, model_id)
    yield made
    for process in made.running:
        process.kill()
        process.wait()


def away_at_the_end(person: Standalone, method: str = "PUT", count: int | None = None) -> None:
    """The program itself makes the portal refuse these calls from then on, or so many of them."""
    body = json.dumps({"kind": "status", "method": method, "model": person.model, "status": 503, "count": count})
    address = f"{person.portal.url}/_stub/faults"
    call = f"urllib.request.urlopen(urllib.request.Request({address!r}, {body.encode()!r}, method='POST'))"
    config = json.loads((person.folder / "config.yaml").read_text())
    person.program(f"import urllib.request; {call}; {config['command']['argv'][2]}")


def test_f66_a_model_whose_completion_could_not_be_told_is_202_and_report_tells_it(person: Standalone) -> None:
    away_at_the_end(person)
    code, said = person.ended(person.train())
    assert code == 202
    assert "The model is published, but the portal was not told that it is Completed" in said
    assert "python -m trainer_image report --out out" in said
    assert person.last_words()["exit"] == 202
    assert person.status()[0] == "Processing"
    code, said = person.ended(person.start("report", "--out", "out"))
    assert (code, "The portal was not told" in said) == (202, True)
    person.portal.clear_faults()
    code, said = person.ended(person.start("report", "--out", "out"))
    assert (code, person.status()) == (0, ("Completed", "Model training completed successfully")), said
    code, said = person.ended(person.start("report", "--out", "out"))
    assert (code, "No run in out has left an outcome" in said) == (0, True)


def test_f66_a_rerun_tells_what_could_not_be_told_and_trains_nothing(person: Standalone) -> None:
    away_at_the_end(person)
    assert person.ended(person.train())[0] == 202
    person.portal.clear_faults()
    code, said = person.ended(person.train())
    assert (code, person.status()[0]) == (0, "Completed"), said
    assert "has ended before, and the portal was not told: it is told now" in said
    assert "Running" not in said


def test_f66_a_rerun_tells_a_failure_that_could_not_be_told(person: Standalone) -> None:
    person.program("raise SystemExit(7)")
    away_at_the_end(person)
    assert person.ended(person.train())[0] == 79
    assert person.status()[0] == "Processing"
    person.portal.clear_faults()
    code, said = person.ended(person.train())
    assert (code, person.status()[0]) == (79, "Failed"), said
    assert "ended with exit code 7" in person.status()[1]


def test_f66_an_untold_outcome_does_not_cover_what_a_person_has_set_since(person: Standalone) -> None:
    away_at_the_end(person)
    assert person.ended(person.train())[0] == 202
    person.portal.clear_faults()
    person.portal.set_model(person.model, "Reconfigure")
    code, said = person.ended(person.start("report", "--out", "out"))
    assert (code, person.status()[0]) == (0, "Reconfigure"), said


def test_f66_a_status_that_cannot_be_read_at_the_end_does_not_keep_the_outcome_back(person: Standalone) -> None:
    away_at_the_end(person, "GET")
    code, said = person.ended(person.train())
    person.portal.clear_faults()
    assert (code, person.status()[0]) == (0, "Completed"), said


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_f66_every_signal_that_ends_it_is_told_however_often_it_comes(
    person: Standalone, number: signal.Signals, times: int
) -> None:
    started = person.folder / "started"
    person.program(ENDLESS.format(started=started))
    person.settings["GRACE_SECONDS"] = "1" if times == 1 else "600"
    process = person.train()
    wait_until(started.exists, 60, what="the program to run")
    process.send_signal(number)
    if times > 1:
        wait_until(lambda: "the training stops" in person.log.read_text(), 10)
        person.portal.add_fault("hang", method="PUT", model=person.model, seconds=1)
    for _ in range(times - 1):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    code, said = person.ended(process)
    assert (code, person.status()[0]) == (143, "Failed"), said
    assert "Stopped on request" in person.status()[1]
    assert person.last_words()["exit"] == 143


def test_f66_no_signal_takes_an_exit_code_away(person: Standalone) -> None:
    """Also where they come without end, while the outcome is told and after that."""
    process = person.train()
    wait_until(lambda: "Completed" in person.log.read_text(), 60, what="the outcome to be told")
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
    code, said = person.ended(process)
    assert (code, person.status()[0]) == (0, "Completed"), said


def test_f66_a_terminal_that_is_closed_is_told(person: Standalone) -> None:
    """What is written to it afterwards fails."""
    started = person.folder / "started"
    person.program(ENDLESS.format(started=started))
    person.settings["GRACE_SECONDS"] = "1"
    ours, its = os.openpty()
    process = person.train(its)
    os.close(its)
    wait_until(started.exists, 60, what="the program to run")
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert (process.wait(60), person.status()[0]) == (143, "Failed")


def test_f66_nohup_is_respected(person: Standalone) -> None:
    started = person.folder / "started"
    person.program(f"open({str(started)!r}, 'w').close(); import time; time.sleep(1); {MODEL}")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = person.train()
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_until(started.exists, 60, what="the program to run")
    process.send_signal(signal.SIGHUP)
    code, said = person.ended(process)
    assert (code, person.status()[0]) == (0, "Completed"), said


def test_f66_a_portal_that_comes_back_while_somebody_waits_is_told(person: Standalone) -> None:
    away_at_the_end(person, count=2)
    person.settings["REPORT_RETRY_SECONDS"] = "60"
    code, said = person.ended(person.train())
    assert (code, person.status()[0]) == (0, "Completed"), said
    assert not list((person.folder / "out").rglob("unreported.json"))


@pytest.mark.parametrize("missing", ["API_KEY", "API_BASE_URL"])
def test_f67_what_is_missing_in_config_env_is_named_and_tracking_is_not_off(person: Standalone, missing: str) -> None:
    del person.settings[missing]
    code, said = person.ended(person.train())
    assert code == 64
    assert f"WARNING {missing} not configured" in said
    assert "STATUS_TRACKING is off" not in said
    assert f"{missing} not configured" in person.last_words()["message"]
    assert person.status()[0] == "Created"


@pytest.mark.parametrize("name", ["model123", "training-1", "Model_1"])
def test_f67_a_name_without_a_model_id_is_named(person: Standalone, name: str) -> None:
    person.settings["MODEL_CONTAINER"] = name
    code, said = person.ended(person.train())
    assert code == 64
    assert "WARNING No model ID extracted" in said
    assert "MODEL_CONTAINER" in person.last_words()["message"]


def test_f67_tracking_is_off_where_somebody_says_so(person: Standalone) -> None:
    del person.settings["API_KEY"]
    person.settings["STATUS_TRACKING"] = "off"
    code, said = person.ended(person.train())
    assert (code, "WARNING STATUS_TRACKING is off" in said, person.status()[0]) == (0, True, "Created")


def test_f67_a_line_of_config_env_that_says_nothing_is_named(person: Standalone) -> None:
    person.settings["API_KEY"] = "x\n=nonsense"
    code, said = person.ended(person.train())
    assert (code, said) == (64, "error: config.env is no settings file: no NAME=value in line 3\n")


def test_f67_the_environment_comes_before_config_env(person: Standalone) -> None:
    person.environment["STATUS_TRACKING"] = "off"
    code, said = person.ended(person.train())
    assert (code, "STATUS_TRACKING is off" in said, person.status()[0]) == (0, True, "Created")


@pytest.mark.parametrize(
    ("name", "value"),
    [("API_KEY", '"with a blank"'), ("API_KEY", "tab\there"), ("API_CA_BUNDLE", "no.pem"), ("API_CA_BUNDLE", "none")],
)
def test_f69_a_credential_that_cannot_be_used_is_78_with_its_name(person: Standalone, name: str, value: str) -> None:
    (person.folder / "no.pem").write_text("no certificate")
    person.settings[name] = value
    code, said = person.ended(person.train())
    words = person.last_words()
    assert (code, words["exit"], words["code"]) == (78, 78, "ConfigInvalid"), said
    assert name in words["message"]
    assert person.status()[0] == "Created"
