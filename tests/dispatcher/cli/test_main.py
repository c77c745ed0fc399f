"""The command line without any service: settings files, arguments, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import click.testing
import pytest
import yaml

from dispatcher.cli import support
from dispatcher.cli.main import main
from local_stack.processes import wait_until
from tests.world.repository import JOB_TEMPLATE, ROOT

MESSAGE = json.dumps({"task": "train", "model_container_name": "model-1"})
SETTINGS = {
    "JOB_TEMPLATE": str(JOB_TEMPLATE),
    "TRAINER_IMAGE": "trainer:1",
    "QUEUE_NAME": "requests",
    "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;",
    "API_BASE_URL": "http://localhost",
}


def dispatcher(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], **settings}
    argv = [sys.executable, "-m", "dispatcher", *arguments]
    return subprocess.run(argv, env=environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_a_settings_file_reaches_the_libraries_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.env"
    file.write_text("KUBECONFIG=/from/file\nAZURE_CLIENT_ID=file\nQUEUE_NAME=from-file\nAPI_KEY='a b'\n")
    for name in ("KUBECONFIG", "AZURE_CLIENT_ID", "API_KEY"):
        # Set first: only what monkeypatch has set is it sure to take away again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("QUEUE_NAME", "from-environment")
    found = support.read_environment(file)
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
    run: Any, arguments: list[str], code: int, sentence: str
) -> None:
    Path("latin.env").write_bytes(b"QUEUE_NAME=caf\xe9\n")
    found, said = run(*arguments, env={} if "run" in arguments else SETTINGS)
    assert found == code
    assert sentence in said


def test_a_mistake_is_no_traceback_of_the_program(tmp_path: Path) -> None:
    done = dispatcher("run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "QUEUE_NAME is not set" in done.stderr
    assert "Traceback" not in done.stderr


def _commands(group: click.Group, prefix: str = "") -> list[str]:
    return [
        found
        for name, command in group.commands.items()
        for found in (
            _commands(command, f"{prefix}{name} ") if isinstance(command, click.Group) else [f"{prefix}{name}"]
        )
    ]


@pytest.mark.parametrize("command", _commands(main))
def test_the_help_of_every_command_shows_how_it_is_used(command: str) -> None:
    found: click.Command = main
    for name in command.split():
        assert isinstance(found, click.Group)
        found = found.commands[name]
    examples = (found.epilog or "").splitlines()[2:]
    assert examples
    assert all(f"dispatcher {command}" in line or "dispatcher --config" in line for line in examples)


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [
        (["run"], signal.SIGINT, 0),
        (["run"], signal.SIGTERM, 0),
        (["check"], signal.SIGINT, 130),
        (["check"], signal.SIGTERM, 143),
    ],
)
def test_a_signal_in_the_first_moments_is_no_traceback(
    tmp_path: Path, arguments: list[str], number: signal.Signals, code: int
) -> None:
    """While the libraries are read: a finder of modules stands still at one of them."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, pathlib, sys, time\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'kubernetes':\n"
        "            pathlib.Path('reading').touch()\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    argv = [sys.executable, "-m", "dispatcher", *arguments]
    with subprocess.Popen(argv, env=environ, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_until((tmp_path / "reading").exists, 20)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (code, "")


def test_a_command_that_is_interrupted_says_nothing_and_exits_with_130(tmp_path: Path) -> None:
    message = tmp_path / "message"
    os.mkfifo(message)
    with (
        subprocess.Popen(
            [sys.executable, "-m", "dispatcher", "submit", "--message", f"@{message}"],
            env={"PATH": os.environ["PATH"], **SETTINGS},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        message.open("w"),
    ):  # open when the command has opened it, too; then it waits for its content
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("dispatcher sub", {"submit"}), ("dispatcher poison p", {"purge"}), ("dispatcher check --in", {"--in-pod"})],
)
def test_bash_completes_commands_and_options(tmp_path: Path, typed: str, offered: set[str]) -> None:
    """In a real bash: the printed script is sourced, and its function called as the shell does it."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    script = r"""
        source <(dispatcher completion bash)
        COMP_WORDS=($TYPED); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        $(complete -p dispatcher | sed 's/.*-F \([^ ]*\) .*/\1/') dispatcher
        printf '%s\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [bash, "-c", script],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TYPED": typed},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (set(done.stdout.split()), done.stderr) == (offered, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_for_another_shell_is_one_that_it_reads(tmp_path: Path, shell: str) -> None:
    script = dispatcher("completion", shell, cwd=tmp_path)
    assert script.returncode == 0
    assert "_DISPATCHER_COMPLETE" in script.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n"], input=script.stdout, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        wanted: dict[str, str | None] = {**dict.fromkeys(SETTINGS), "DISPATCHER_CONFIG": None, **(env or {})}
        result = click.testing.CliRunner().invoke(main, arguments, env=wanted)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return invoke


def test_a_settings_file_that_is_named_must_be_there(run: Any) -> None:
    assert run("check", env={"DISPATCHER_CONFIG": "gone.env"}) == (
        2,
        "dispatcher: DISPATCHER_CONFIG names a file that is not there: gone.env\n",
    )


def test_a_name_that_no_file_can_have_is_a_sentence(run: Any) -> None:
    code, said = run("--config", "x" * 5000, "check")
    assert code == 2
    assert "cannot be read as a settings file" in said


def test_what_is_no_setting_is_refused_by_its_line(run: Any) -> None:
    """python-dotenv passes over it: a quote that is not closed would silently unset a setting."""
    Path("my.env").write_text("# fine\nQUEUE_NAME=abc\n\nAPI_KEY='not closed\nPOLL_MAX_SECONDS=5\n")
    code, said = run("--config", "my.env", "check")
    assert (code, said) == (2, "dispatcher: my.env is no settings file: no NAME=value in line 4\n")


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_bytes(b"\xef\xbb\xbfexport QUEUE_NAME='a b' # why\nEMPTY=\nBARE\n")
    found = support.read_environment(file)
    assert (found["QUEUE_NAME"], found["EMPTY"]) == ("a b", "")
    assert "BARE" not in found


@pytest.mark.parametrize("command", [["render", MESSAGE], ["run"]])
def test_a_template_that_is_no_text_is_named(run: Any, command: list[str]) -> None:
    Path("latin.yaml").write_bytes(b"kind: Job # caf\xe9\n")
    code, said = run(*command, env={**SETTINGS, "JOB_TEMPLATE": "latin.yaml"})
    assert code == 2
    assert "JOB_TEMPLATE latin.yaml cannot be read: " in said


@pytest.mark.parametrize("field", ["model_container_name=model-2", "task=other"])
def test_a_field_does_not_send_the_request_for_another_model(run: Any, field: str) -> None:
    code, said = run("submit", "model-1", "--field", field, env=SETTINGS)
    assert code == 2
    assert f"--field {field.split('=', maxsplit=1)[0]} is given twice, or is not yours to set" in said


def test_half_a_character_is_not_sent(run: Any) -> None:
    code, said = run("submit", "--unchecked", "--message", "\udcff", env=SETTINGS)
    assert code == 2
    assert said.startswith("dispatcher: The message cannot be read")


def test_render_shows_the_job_for_several_nodes(run: Any) -> None:
    message = json.dumps({**json.loads(MESSAGE), "resources": {"nodes": 3}})
    code, said = run("render", message, env={**SETTINGS, "MAX_NODES": "3"})
    spec = yaml.safe_load(said)["spec"]
    assert (code, spec["completionMode"], spec["completions"], spec["parallelism"]) == (0, "Indexed", 3, 3)
    code, said = run("render", message, env=SETTINGS)
    assert code == 2
    assert "trainings on several nodes are off" in said
