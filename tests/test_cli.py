"""The command line without any service: settings files, arguments, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dispatcher import cli_support

TEMPLATE = Path(__file__).parents[1] / "manifests" / "base" / "job-template.yaml"


def dispatcher(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], **settings}
    argv = [sys.executable, "-m", "dispatcher", *arguments]
    return subprocess.run(argv, env=environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_a_settings_file_reaches_the_libraries_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.env"
    file.write_text("KUBECONFIG=/from/file\nAZURE_CLIENT_ID=file\nQUEUE_NAME=from-file\nAPI_KEY='a b'\n")
    for name in ("KUBECONFIG", "AZURE_CLIENT_ID", "API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QUEUE_NAME", "from-environment")
    found = cli_support.read_environment(file)
    monkeypatch.setenv("KUBECONFIG", os.environ["KUBECONFIG"])  # so that it is removed again afterwards
    monkeypatch.setenv("AZURE_CLIENT_ID", os.environ["AZURE_CLIENT_ID"])
    assert (found["QUEUE_NAME"], found["API_KEY"]) == ("from-environment", "a b")
    assert os.environ["KUBECONFIG"] == "/from/file"
    assert "API_KEY" not in os.environ, "nobody but us needs it"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "Usage"),
        (["run"], 2, "QUEUE_NAME is not set"),
        (["--config", "gone.env", "run"], 2, "gone.env"),
        (["--config", "latin.env", "run"], 2, "latin.env cannot be read as a settings file"),
        (["render", "@gone.json"], 2, "The message cannot be read"),
        (["render", "[]"], 2, "an object"),
        (["submit"], 2, "Name a model container"),
        (["submit", "model-1", "--message", "{}"], 2, "Name a model container"),
        (["submit", "model-1", "--field", "x"], 2, "has no NAME=VALUE"),
        (["poison", "purge"], 2, "Say which entries"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "latin.env").write_bytes(b"QUEUE_NAME=caf\xe9\n")
    settings = (
        {}
        if "run" in arguments
        else {
            "JOB_TEMPLATE": str(TEMPLATE),
            "TRAINER_IMAGE": "trainer:1",
            "QUEUE_NAME": "requests",
            "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;",
            "API_BASE_URL": "http://localhost",
        }
    )
    done = dispatcher(*arguments, cwd=tmp_path, **settings)
    assert done.returncode == code
    assert sentence in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
