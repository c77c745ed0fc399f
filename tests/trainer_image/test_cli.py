"""The command line as a person and as a pod use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from local_stack.processes import wait_until
from tests.world.repository import ROOT
from tests.world.trainer_fakes import FakeBackend, write_config, write_dataset
from trainer_image import cli, errors
from trainer_image.contract import RunInputs
from trainer_image.transfer.sources import Dataset


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine that runs the tests."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "API_", "MODEL_", "STATUS_", "DATASET_", "LAUNCHED_", "RUN_", "WORK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERMINATION_MESSAGE_PATH", str(tmp_path / "termination-log"))


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setattr("trainer_image.run.backend.start_worker", lambda config, settings: nullcontext(fake))
    return fake


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.cli, [str(a) for a in arguments])


def local(tmp_path: Path) -> list[object]:
    return ["--data", write_dataset(tmp_path), "--config", write_config(tmp_path), "--device", "cpu"]


def test_a_training_on_a_laptop_ends_in_words(backend: FakeBackend, tmp_path: Path) -> None:
    result = call("train", *local(tmp_path), "--out", tmp_path / "out", "--run-id", "mine")
    assert result.exit_code == 0, result.output
    assert "Model training completed successfully" in result.stdout
    assert "test accuracy: 0.9  (baselines: trivial 0.5)" in result.stdout
    assert f"model: {tmp_path}/out/runs/mine" in result.stdout
    assert "STATUS_TRACKING is off" in result.stderr


def test_without_a_command_it_trains_as_the_environment_says(
    backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = call()
    assert result.exit_code == 64
    assert "MODEL_CONTAINER is not set" in result.stderr
    words = json.loads((tmp_path / "termination-log").read_bytes())
    assert (words["code"], words["exit"]) == ("UsageError", 64)


def test_every_problem_of_a_configuration_is_a_line(backend: FakeBackend, tmp_path: Path) -> None:
    config = write_config(tmp_path, "task: tabular\ntrain: {lr: x, seed: y}")
    result = call("validate", "--data", write_dataset(tmp_path), "--config", config)
    assert result.exit_code == 78
    assert [line.split(":")[2].strip() for line in result.stderr.splitlines() if line.startswith("error: ")] == [
        "train.lr", "train.seed", "data.target",
    ]  # fmt: skip


def test_validating_asks_the_task_before_the_dataset_is_there(
    tmp_path: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise errors.ConfigInvalid("Invalid configuration: custom.params.window: is unknown")

    def never(dataset: Dataset) -> None:
        raise AssertionError("the dataset was waited for")

    monkeypatch.setattr(backend, "check_config", refuse)
    monkeypatch.setattr(Dataset, "wait", never)
    result = call("validate", *local(tmp_path))
    assert (result.exit_code, result.stderr) == (78, "error: Invalid configuration: custom.params.window: is unknown\n")


def test_validating_reads_the_dataset_and_publishes_nothing(backend: FakeBackend, tmp_path: Path) -> None:
    result = call("validate", *local(tmp_path))
    assert result.exit_code == 0, result.output
    assert "Configuration and dataset are valid: 1 file in " in result.stdout
    assert backend.inputs[0].data == tmp_path / "data"


def test_an_invalid_dataset_is_told_by_validate(
    backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(inputs: RunInputs) -> str:
        raise errors.DatasetInvalid("Invalid dataset: train.csv: row 3: 'b' is empty")

    monkeypatch.setattr(backend, "validate_dataset", refuse)
    result = call("validate", *local(tmp_path))
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        65,
        "error: Invalid dataset: train.csv: row 3: 'b' is empty",
    )


def test_the_schema_is_printed_as_json() -> None:
    assert json.loads(call("schema").stdout)["title"] == "config.yaml"


def test_help_names_commands_examples_and_exit_codes() -> None:
    text = call("--help").output
    for word in ("predict", "schema", "train", "validate", "--out ./model", "143", "204", "84"):
        assert word in text
    listed = {
        error.exit_code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "exit_code")
    }
    assert all(str(code) in text for code in listed)


def test_the_version_is_printed() -> None:
    assert call("--version").output.startswith("trainer_image, version ")


@pytest.mark.parametrize("arguments", [["train", "--nonsense"], ["nonsense"], ["train", "--data"]])
def test_wrong_flags_exit_64(arguments: list[str]) -> None:
    reply = subprocess.run(
        [sys.executable, "-m", "trainer_image", *arguments], cwd=ROOT, capture_output=True, check=False
    )
    assert reply.returncode == 64
    assert b"Traceback" not in reply.stderr


def test_the_command_line_does_not_import_torch() -> None:
    code = "import sys, trainer_image.cli; sys.exit('torch' in sys.modules or 'azure.storage.blob' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


WAITING = """
import sys
sys.path.insert(0, {root!r})
from tests.world.trainer_fakes import FakeBackend
from trainer_image import cli, errors
from trainer_image.run import lifecycle

def during(inputs):
    print("training", flush=True)
    inputs.stop.wait({patience})
    if {polite}:
        raise errors.Terminated("Training was stopped at step 1", step=1)
    import time
    time.sleep(60)

lifecycle.run.__kwdefaults__["backend"] = lambda: FakeBackend(during)
cli.main()
"""


@pytest.mark.parametrize("polite", [True, False], ids=["stops", "is deaf"])
def test_sigterm_ends_with_143_and_a_second_one_at_once(tmp_path: Path, polite: bool) -> None:
    code = WAITING.format(root=str(ROOT), patience=60, polite=polite)
    arguments = [str(a) for a in ("train", *local(tmp_path), "--out", tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        process.send_signal(signal.SIGTERM)
        if not polite:
            assert process.stderr is not None
            while "SIGTERM: the training stops" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 143
    if polite:
        assert json.loads((tmp_path / "termination-log").read_bytes())["exit"] == 143
