"""The command line: train (what a pod runs), report, runs, rollback, validate, schema, predict."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn, cast

import click

from portal_client.model_ids import InvalidContainerName, extract_and_log_model_id, is_container_name
from trainer_image.config import model_config, settings
from trainer_image.errors import TrainerError, UsageError
from trainer_image.host import child_environment, confinement, exhaustion, hidden, memory
from trainer_image.limits import Limits
from trainer_image.run import attempt, late_report, lifecycle
from trainer_image.run.outcome import Outcome
from trainer_image.run.signals import stops_on_signals
from trainer_image.run.termination import termination_message, write_termination
from trainer_image.stop import Stop
from trainer_image.storage.container import Container
from trainer_image.transfer import fetch_model
from trainer_image.transfer import runs as stored_runs
from trainer_image.transfer.sources import open_models
from trainer_image.worker.child import Worker
from training_common import env_file
from training_common.settings import settings_of

log = logging.getLogger(__name__)

MOST_PROMPT_BYTES = 1024**2

_Option = Callable[[Callable[..., Any]], Callable[..., Any]]

EXIT_CODES = """\b
Exit codes (up to 127 no retry helps, from 128 one may):
    0  completed                       83  cancelled at the portal
   64  wrong flags or environment      84  the portal's status forbids a start
   65  dataset invalid                137  killed
   66  dataset missing or empty       143  SIGTERM, state saved
   70  internal error                 201  storage throttled or unreachable
   77  permission denied              202  portal not reachable: not begun, or published and not told (standalone)
   78  configuration invalid          203  GPU fault, no GPU, or a hang
   79  the user's code raised         204  fenced: another pod owns the run
   80  training diverged              206  the other nodes are out of reach
   81  out of GPU memory
   82  a limit exceeded                205  the user's program was killed
"""

EXAMPLES = """\b
Examples:
  python -m trainer_image train --data ./houses --config config.yaml --out ./model --device cpu
  python -m trainer_image train --model-container model-123 --dataset-container houses
  python -m trainer_image report --out ./model
  python -m trainer_image runs --out ./model
  python -m trainer_image rollback --out ./model --run 20261123t081500-1a2b3c4d
  python -m trainer_image validate --data ./houses --config config.yaml
  python -m trainer_image predict --model ./model --data new.csv --out predictions.csv
  python -m trainer_image predict --model model-123 --data new.csv --out predictions.jsonl
  python -m trainer_image predict --model ./model --prompt "Once upon a time" --length 500
"""


def _version() -> str:
    try:
        return version("training-dispatcher")
    except PackageNotFoundError:
        return "unknown"


def _overriding(setting: str) -> _Option:
    """The option that overrides a setting's variable, with the setting's own words as help."""
    said = settings_of(settings.Settings)[setting]
    return click.option(said.flag, help=f"{said.env}: {said.help}.")


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    options: list[_Option] = [
        click.option(
            "--data",
            type=click.Path(path_type=Path),
            help="Dataset folder instead of a container.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            help="config.yaml to use instead of the one in the model's container.",
        ),
        *map(_overriding, ("model_container", "dataset_container", "work_dir", "device", "processes")),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """A TrainerError, and a want of memory or disk, become their sentences on stderr and their exit code."""
        try:
            return super().invoke(ctx)
        except TrainerError as error:
            for sentence in error.problems or (error.sentence,):
                click.echo(f"error: {sentence}", err=True)
            ctx.exit(error.exit_code)
        except (OSError, MemoryError, RuntimeError) as error:
            if (lack := exhaustion.found(error, memory.kills())) is None:
                raise
            click.echo(f"error: {lack.sentence}", err=True)
            ctx.exit(lack.exit_code)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXAMPLES + "\n" + EXIT_CODES,
)
@click.version_option(_version(), prog_name="trainer_image")
@click.pass_context
def cli(context: click.Context) -> None:
    """Trains one model from a dataset and publishes it. Without a command: train, as the environment says.

    Standalone, settings that the environment lacks are taken from config.env in the working folder.
    """
    _take_config_env()
    hidden.guard_streams()
    if context.invoked_subcommand is None:
        context.exit(train_command({}, last=context.obj == "process"))


@cli.command(epilog=EXAMPLES + "\n" + EXIT_CODES)
@_common
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Model folder instead of a container.")
@_overriding("run_id")
@click.option(
    "--fresh", is_flag=True, flag_value="on", default=None, help="Go on from no checkpoint of an earlier run; they go."
)
@click.pass_context
def train(context: click.Context, /, **flags: Any) -> None:
    """Train a model, publish it, report its status to the portal."""
    context.exit(train_command(_flags(flags), last=context.obj == "process"))


@cli.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The training's model folder.")
@_overriding("model_container")
@_overriding("run_id")
def report(**flags: Any) -> None:
    """Tell the portal how a standalone training ended, where it could not be told then."""
    _log_to_stderr("INFO")
    chosen = settings.from_mapping(os.environ, _flags(flags), purpose="report")
    _log_to_stderr(chosen.log_level)
    stop = Stop()
    with stops_on_signals(stop):
        click.echo(late_report.report(chosen, stop))


def _of_a_model(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where a model's runs are."""
    out = click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The trainings' model folder.")
    return out(_overriding("model_container")(command))


@cli.command()
@_of_a_model
def runs(**flags: Any) -> None:
    """List the runs of a model, the one that ended last first."""
    models = _models(flags)
    found = stored_runs.lines(models)
    if not found:
        click.echo(f"There is no run in {models.name}.", err=True)
    for line in found:
        ended = "" if line["ended"] is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(line["ended"]))
        cells = f"{line['run_id']:<26}  {line['state']:<9}  {ended:<16}  {line['task']}  {line['figure']}"
        click.echo(cells.rstrip())


@cli.command()
@_of_a_model
@click.option("--run", "run_id", required=True, help="The run to publish, as `runs` lists it.")
def rollback(run_id: str, **flags: Any) -> None:
    """Publish an earlier run in place of the present one."""
    click.echo(stored_runs.roll_back(_models(flags), run_id))


def _models(flags: Mapping[str, Any]) -> Container:
    _log_to_stderr("WARNING")
    out = flags["out"]
    if out is not None and not out.is_dir():
        raise UsageError(f"--out {out}: there is no such folder")
    return open_models(settings.from_mapping(os.environ, _flags(flags), purpose="report"), Stop())


@cli.command()
@_common
def validate(**flags: Any) -> None:
    """Check configuration and dataset without training."""
    chosen = settings.from_mapping(os.environ, _flags(flags), purpose="read")
    _log_to_stderr(chosen.log_level)
    stop = Stop()
    with stops_on_signals(stop):
        lock, description = attempt.check(chosen, stop)
    count = len(lock.blobs)
    click.echo(f"Configuration and dataset are valid: {count} file{'' if count == 1 else 's'} in {lock.container}")
    click.echo(description)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of config.yaml."""
    click.echo(json.dumps(model_config.json_schema(), indent=2, ensure_ascii=False))


@cli.command()
@click.option(
    "--model",
    required=True,
    help="A training's --out folder, one run's folder, or the name of a model's container.",
)
@click.option("--run", "run_id", help="A run in it, as `runs` lists it, in place of the published one.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="What to predict for.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV or .jsonl, files in a folder beside it; without it, JSON to stdout.",
)
@click.option("--prompt", help="Instead of --data: a text that a language model goes on with; - reads it from stdin.")
@click.option("--length", type=click.IntRange(1, 1_000_000), help="Bytes to write at most (256).")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 100),
    help="0: always the likeliest byte; the higher, the more daring (0.7).",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The same seed writes the same text (0).")
def predict(
    model: str, run_id: str | None, data: Path | None, out: Path | None, prompt: str | None, **writing: Any
) -> None:
    """Apply a trained model to a file or folder, or let it continue a text."""
    _log_to_stderr("WARNING")
    if (data is None) == (prompt is None):
        raise UsageError("predict takes either --data or --prompt")
    for name, value in (writing if prompt is None else {"out": out}).items():
        if value is not None:
            raise UsageError(f"--{name} does not go with {'--data' if prompt is None else '--prompt'}")
    text = None if prompt is None else _prompt(prompt)
    with Worker("predict") as worker, fetch_model.model_folder(model, run_id) as folder:
        if text is None:
            worker.predict(folder, cast(Path, data), out)
        else:
            chosen = {name: value for name, value in writing.items() if value is not None}
            worker.write(folder, text, **{"length": 256, "temperature": 0.7, "seed": 0, **chosen})


def _prompt(given: str) -> str:
    if given != "-":
        try:
            given.encode()
        except UnicodeEncodeError:
            raise UsageError("The prompt is not UTF-8") from None
        return given
    content = sys.stdin.buffer.read(MOST_PROMPT_BYTES + 1)
    if len(content) > MOST_PROMPT_BYTES:
        raise UsageError(f"The prompt on stdin is longer than {MOST_PROMPT_BYTES} bytes")
    try:
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise UsageError("The prompt on stdin is not UTF-8") from None


def train_command(flags: Mapping[str, str | None], *, last: bool = False) -> int:
    """Exit code of one training, or of one further process of its team (RANK 1 and up).

    last: the process ends with it
    """
    if os.environ.get("RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" in os.environ:
        _become_a_member()
    stop = Stop()
    # A second signal is the deadline's, which reports before it ends the process.
    with stops_on_signals(stop, insisted=lambda: None, last=last):
        try:
            _log_to_stderr("INFO")
            chosen = settings.from_mapping(os.environ, flags)
            _log_to_stderr(chosen.log_level)
            log.info("Trainer %s: %s", _version(), chosen)
            outcome = lifecycle.run(chosen, stop)
        except TrainerError as error:
            _tell_the_name(flags)
            return _before_it_began(Outcome(error.exit_code, error.code, error.sentence))
        except Exception as error:
            log.exception("The trainer itself failed")
            return _before_it_began(Outcome(70, "InternalError", f"Internal error: {type(error).__name__}"))
        with contextlib.suppress(OSError):  # the terminal may be gone
            _summary(outcome, chosen)
        return outcome.exit_code


def _become_a_member() -> NoReturn:
    """A further process of a training by torchrun has no use for credentials: another program, without them in its
    environment, takes the place of this one."""
    program = [sys.executable, "-m", "trainer_image.engine.helper"]
    os.execve(program[0], program, child_environment.without_credentials())  # noqa: S606 (ourselves)


def _before_it_began(outcome: Outcome) -> int:
    """Settings that cannot be used: there is no run yet, but the termination message says why."""
    with contextlib.suppress(OSError):
        click.echo(f"error: {outcome.sentence}", err=True)
    path = os.environ.get("TERMINATION_MESSAGE_PATH") or settings.Settings.termination_path
    write_termination(Path(path), termination_message(os.environ.get("RUN_ID", ""), outcome, hidden.secrets()))
    return outcome.exit_code


def _tell_the_name(flags: Mapping[str, str | None]) -> None:
    """The documented line for a container's name that no model can have, where the settings themselves refuse it."""
    name = (flags.get("MODEL_CONTAINER") or os.environ.get("MODEL_CONTAINER", "")).strip()
    if name and not is_container_name(name):
        with contextlib.suppress(InvalidContainerName):
            extract_and_log_model_id(name, log)


def _take_config_env() -> None:
    """What the environment lacks of the trainer's settings and azure-identity's, from config.env in the working folder.

    Into the environment, where azure-identity looks and whence programs get theirs, without credentials. A pod's
    settings are its Job's alone.
    """
    if os.environ.get("LAUNCHED_BY"):
        return
    try:
        given = env_file.read(Path(env_file.NAME)) or {}
    except ValueError as error:
        raise UsageError(str(error)) from None
    known = {said.env for kind in (settings.Settings, Limits) for said in settings_of(kind).values()}
    for name, value in given.items():
        if (name in known or name.startswith("AZURE_")) and not os.environ.get(name, "").strip():
            os.environ[name] = value


def _summary(outcome: Outcome, chosen: settings.Settings) -> None:
    """Prints how it ended, on stdout."""
    click.echo(outcome.sentence)
    result = outcome.result
    if result is not None:
        for name, value in result.metrics.items():
            beside = [
                f"{baseline} {figures[name]:.4g}" for baseline, figures in result.baselines.items() if name in figures
            ]
            click.echo(f"  test {name}: {value:.4g}" + (f"  (baselines: {', '.join(beside)})" if beside else ""))
        if result.verdict:
            click.echo(f"  {result.verdict}")
        if result.champion is not None and result.champion.sentence not in outcome.sentence:
            click.echo(f"  {result.champion.sentence}")
        click.echo(f"  trained {result.steps} steps in {result.seconds:.1f} s")
    if outcome.location:
        click.echo(f"  model: {outcome.location}")
    if outcome.untold is not None and not chosen.dispatched:
        where = f"--out {chosen.out}" if chosen.out else f"--model-container {chosen.model_container}"
        click.echo(f"  The portal was not told: {outcome.untold}", err=True)
        click.echo(f"  To tell it later: python -m trainer_image report {where}", err=True)


def _flags(flags: Mapping[str, Any]) -> dict[str, str | None]:
    return {name.upper(): None if value is None else str(value) for name, value in flags.items()}


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def main() -> None:
    """Exits the process. Threads that still wait for a silent connection do not keep it."""
    # Before any of its credentials is read, and anything is started that could look for them.
    if (why := confinement.hide_this_process()) is not None:
        log.warning("What trains could read the credentials of this process: %s", why)
    try:
        code = cli.main(standalone_mode=False, obj="process")
    except click.ClickException as error:
        error.show()
        code = 64
    except click.Abort:
        code = 130
    except Exception as error:
        logging.getLogger(__name__).exception("The trainer itself failed")
        click.echo(f"error: Internal error: {type(error).__name__}", err=True)
        code = 70
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0)
