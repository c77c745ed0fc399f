"""The commands in README and docs parse; those that are cheap are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from dispatcher.cli.main import main as dispatcher
from tests.world import json_objects
from tests.world.pages import PAGES, blocks
from tests.world.repository import ROOT, read
from trainer_image.cli import cli as trainer

pytestmark = pytest.mark.long

README = read("README.md")
README_TRAINER = README.split("<!-- standalone:")[1]


def _commands() -> list[str]:
    """Every command line of the pages' shell blocks; of ```console blocks the lines after a `$ `."""
    found: list[str] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in blocks(text, "bash"):
            found += re.sub(r"<<'END'\n.*?\nEND", "", block, flags=re.DOTALL).splitlines()
        for block in blocks(text, "console"):
            found += [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    return sorted({line for line in found if line.strip()})


def _of(program: tuple[str, ...]) -> list[str]:
    """The commands of which `program` is what runs, behind `kubectl exec ... --` as well."""
    return [line for line in _commands() if _arguments(line, program) is not None]


def _arguments(line: str, program: tuple[str, ...]) -> list[str] | None:
    words = shlex.split(line)
    if "--" in words and words[0] == "kubectl":
        words = words[words.index("--") + 1 :]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    words = [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []
    return words[len(program) :] if tuple(words[: len(program)]) == program else None


def _parse(command: click.Command, arguments: list[str], name: str) -> None:
    """Parses as click would, without running anything. Raises click.UsageError."""
    with command.make_context(name, list(arguments)) as context:
        if isinstance(command, click.Group):
            # Click 8 keeps a group's command apart from its arguments; Click 9 will not.
            rest = [*getattr(context, "_protected_args", ()), *context.args]
            found_name, found, left = command.resolve_command(context, rest)
            assert found is not None
            _parse(found, left, str(found_name))


def test_every_kubectl_command_says_which_namespace_it_is_about() -> None:
    """So that it works whatever the current one is, and so that who has others can exchange the names."""
    inline = {word for page in PAGES for word in re.findall(r"`(kubectl [^`]+)`", page.read_text(encoding="utf-8"))}
    # Of the cluster, or of a file that names the namespace; and words for the command as such.
    wide = r"apply|delete -k|kustomize|create -f|(?:get|delete|taint) nodes?|--all-namespaces|validatingadmission"
    wide += r"|kubectl [a-z-]+(?: job)?\Z"
    lines = [line for line in {*_commands(), *inline} if "kubectl " in line and not re.search(wide, line)]
    assert len(lines) > 30
    for line in lines:
        assert re.search(r"\s-n\s(?:training-system|training|\$namespace|kueue-system)\s", line), line


def test_the_function_that_runs_commands_in_the_pod_is_the_same_on_every_page() -> None:
    shown = {line for line in _commands() if line.startswith("dispatcher()")}
    assert {re.sub(r"-n training(?:-system)? ", "-n NAMESPACE ", line) for line in shown} == {
        'dispatcher() { kubectl -n NAMESPACE exec -i deploy/training-dispatcher -- dispatcher "$@"; }'
    }


DISPATCHER = ("dispatcher",)
TRAINER = ("python", "-m", "trainer_image")


def test_the_pages_show_the_commands_of_both_programs() -> None:
    shown = {_arguments(line, DISPATCHER)[0] for line in _of(DISPATCHER)}  # type: ignore[index]
    assert shown >= {"check", "submit", "status", "render", "poison"}
    shown = {_arguments(line, TRAINER)[0] for line in _of(TRAINER)}  # type: ignore[index]
    assert shown == set(trainer.commands)


@pytest.mark.parametrize("line", _of(DISPATCHER))
def test_a_command_of_the_dispatcher_parses(line: str) -> None:
    arguments = _arguments(line, DISPATCHER)
    assert arguments
    _parse(dispatcher, arguments, "dispatcher")


@pytest.mark.parametrize("line", _of(TRAINER))
def test_a_command_of_the_trainer_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = _arguments(line, TRAINER)
    assert arguments
    monkeypatch.chdir(tmp_path)
    for name in ("houses", "pebbles", "throws", "model", "model-1", ".local/try/data/test", ".local/try/model"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("new.csv", "config.yaml", "throws/data.csv", ".local/try/config.yaml"):
        (tmp_path / name).touch()
    _parse(trainer, arguments, "trainer_image")


def test_commands_named_within_a_sentence_exist() -> None:
    for page in PAGES:
        for words in re.findall(r"`dispatcher ([a-z]+)(?: ([a-z]+))?", page.read_text(encoding="utf-8")):
            command = dispatcher.commands[words[0]]
            if isinstance(command, click.Group) and words[1]:
                assert words[1] in command.commands
        for name in re.findall(r"`python -m trainer_image ([a-z]+)", page.read_text(encoding="utf-8")):
            assert name in trainer.commands


def test_the_render_command_of_the_docs_prints_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = [line for line in _of(DISPATCHER) if "dispatcher render" in line]
    variables = dict(word.split("=", 1) for word in shlex.split(line) if re.match(r"[A-Z_]+=", word))
    variables["JOB_TEMPLATE"] = str(ROOT / variables["JOB_TEMPLATE"])
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(dispatcher, _arguments(line, DISPATCHER), env=variables)
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.output)["metadata"]["name"] == "model-123"


def test_the_message_of_the_docs_is_taken_as_it_stands() -> None:
    from dispatcher.launch.request import Bounds, decode

    messages = [block for block in blocks(read("docs/configure.md"), "json") if "model_container_name" in block]
    assert messages
    for message in messages:
        decode(message, Bounds(max_gpus=8, max_time_limit=259200))


def test_the_termination_message_of_the_docs_is_understood() -> None:
    [word] = [block for block in blocks(read("docs/trainer-authors.md"), "json") if '"retryable"' in block]
    from dispatcher.decisions import pod_failure

    state = {"terminated": {"exitCode": json.loads(word)["exit"], "message": word}}
    pod = json_objects.pod({"status": {"containerStatuses": [{"name": "trainer", "state": state}]}})
    found = pod_failure.trainer_word(pod)
    assert found is not None
    assert found.code == "TrainingDiverged"


def test_every_configuration_in_the_docs_is_valid() -> None:
    from trainer_image.config.model_config import parse_config

    shown = [*blocks(read("docs/trainer-authors.md"), "yaml"), *re.findall(r"<<'END'\n(.*?)\nEND", README, re.DOTALL)]
    shown += [
        found.encode().decode("unicode_escape") for found in re.findall(r"printf '([^']+)'", read("docs/install.md"))
    ]
    assert len(shown) == 5
    for text in shown:
        parse_config(text.encode())


def test_the_standalone_training_of_the_readme_works(tmp_path: Path) -> None:
    """Its own commands, on its own data, a network for two epochs: the test is of the commands, not of the model."""
    script = blocks(README_TRAINER, "bash")[0].replace(".venv/bin/python", shlex.quote(sys.executable))
    short = "model: {preset: fast, candidates: [network]}\ntrain: {epochs: 2}"
    assert script.count("model: {preset: fast}") == 1
    script = script.replace("model: {preset: fast}", short)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "TERMINATION_MESSAGE_PATH": str(tmp_path / "last-words"),
    }
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Model training completed successfully" in done.stdout
    assert "baselines:" in done.stdout
    place = tmp_path / ".local" / "try"
    pointer = json.loads((place / "model" / "latest.json").read_text())
    assert (place / "model" / "runs" / pointer["run_id"] / "report.html").exists()
    assert (place / "predictions.csv").read_text().startswith("row,label,p(0)")
