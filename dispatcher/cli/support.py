"""What commands share: settings with clear errors, a log without secrets, names of models, exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from dispatcher.cluster.errors import ClusterError
from dispatcher.config.settings import Settings, SettingsError
from dispatcher.queue.messages import ConnectionStringInvalid, QueueError
from dispatcher.telemetry import logs
from portal_client.errors import PortalError
from portal_client.model_ids import MODEL_PREFIX, extract_model_id
from training_common import env_file

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69

Environment = Mapping[str, str]


def examples(*lines: str) -> str:
    """A command's examples as the end of its help."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def read_environment(config_file: Path | None) -> dict[str, str]:
    """The settings file's values under the environment's. Ends the process where the file cannot be read."""
    named = os.environ.get("DISPATCHER_CONFIG")
    path = config_file or Path(named or env_file.NAME)
    try:
        given = env_file.read(path)
    except ValueError as error:
        fail(EXIT_USAGE, str(error))
    if given is None and (config_file or named):
        # Ignoring a misspelt name would start the dispatcher with other settings, or with none.
        fail(EXIT_USAGE, f"{'--config' if config_file else 'DISPATCHER_CONFIG'} names a file that is not there: {path}")
    given = given or {}
    for name, value in given.items():
        # The client libraries of Kubernetes and of Azure's identity service read the process's environment.
        if name == "KUBECONFIG" or name.startswith("AZURE_"):
            os.environ.setdefault(name, value)
    return {**given, **os.environ}


def read_settings(environ: Environment) -> Settings:
    """The settings, or one message with every problem and exit code 2."""
    try:
        return Settings.read(environ)
    except SettingsError as error:
        fail(EXIT_USAGE, str(error))


def log_to_stderr(settings: Settings, level: int | None = None) -> None:
    """Log as LOG_LEVEL and LOG_FORMAT say. level: of the logging module, for commands that only print."""
    secrets = [settings.api_key, settings.storage_connection_string]
    logs.log_to_stderr(level or settings.log_level.upper(), settings.log_format == "json", secrets)


def settings_for_printing(environ: Environment) -> Settings:
    """As `read_settings`, for a command that prints its result: only errors are logged."""
    settings = read_settings(environ)
    log_to_stderr(settings, logging.ERROR)
    return settings


def settings_for_cluster(environ: Environment) -> Settings:
    """As `settings_for_printing`, for a command that asks the API server alone: a kubeconfig is enough for it."""
    return settings_for_printing(without_services(environ) | {"JOB_TEMPLATE": __file__})


def without_services(environ: Environment) -> dict[str, str]:
    """The environment with something for the queue, its storage and the portal, where they are not set."""
    anything = {
        "QUEUE_NAME": "" if environ.get("QUEUE_NAMES") else "unused",
        "AZURE_STORAGE_CONNECTION_STRING": "" if environ.get("AZURE_STORAGE_QUEUE_URL") else "unused",
        "API_BASE_URL": "http://localhost",
    }
    return {**anything, **{name: value for name, value in environ.items() if value or name not in anything}}


def container_of(model: str) -> str:
    """`model-123` for `model-123` or `123`. Raises InvalidContainerName for a name that no model can have."""
    name = model if model.startswith(MODEL_PREFIX) else f"{MODEL_PREFIX}{model}"
    extract_model_id(name)
    return name


@contextmanager
def outside_calls(hint: str = "") -> Iterator[None]:
    """Turn an error of queue, portal or cluster into a sentence and exit code 69. hint: what it means here."""
    try:
        yield
    except ConnectionStringInvalid as error:
        fail(EXIT_USAGE, str(error))
    except (QueueError, ClusterError, PortalError) as error:
        fail(EXIT_UNAVAILABLE, f"{str(error).rstrip('.')}. {hint}".strip().removesuffix("."))


def read_text(argument: str) -> str:
    """A message given as text, as @FILE or as - for standard input."""
    try:
        if argument == "-":
            argument = sys.stdin.read()
        elif argument.startswith("@"):
            argument = Path(argument[1:]).read_text(encoding="utf-8")
        argument.encode()  # an argument that is not UTF-8 cannot be sent
    except (OSError, UnicodeError) as error:
        fail(EXIT_USAGE, f"The message cannot be read: {error}")
    return argument


def fail(code: int, sentence: str) -> NoReturn:
    """Print one sentence to standard error and exit."""
    click.echo(f"dispatcher: {sentence}", err=True)
    sys.exit(code)
