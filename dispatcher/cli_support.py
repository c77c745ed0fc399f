"""What every command needs: settings with clear refusals, a log without secrets, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click
from dotenv import dotenv_values

from dispatcher import logs
from dispatcher.azure_queue import QueueError
from dispatcher.kubernetes_jobs import ClusterError
from dispatcher.settings import Settings, SettingsError
from portal_client.errors import PortalError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69

Environment = Mapping[str, str]


def read_environment(config_file: Path | None) -> dict[str, str]:
    """The settings file's values under the environment's. Ends the process where the file cannot be read."""
    path = config_file or Path(os.environ.get("DISPATCHER_CONFIG", "config.env"))
    if config_file is not None and not config_file.is_file():
        fail(EXIT_USAGE, f"--config names a file that is not there: {config_file}")
    try:
        values = dotenv_values(path, interpolate=False) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        fail(EXIT_USAGE, f"{path} cannot be read as a settings file: {error}")
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        # The libraries that speak to Kubernetes and to Azure's identity service read the process's environment.
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


@contextmanager
def outside_calls(hint: str = "") -> Iterator[None]:
    """Turn what queue, portal and cluster refuse into a sentence and exit code 69. hint: what that means here."""
    try:
        yield
    except (QueueError, ClusterError, PortalError) as error:
        fail(EXIT_UNAVAILABLE, f"{str(error).rstrip('.')}. {hint}".strip().removesuffix("."))


def read_text(argument: str) -> str:
    """A message given as itself, as @FILE or as - for standard input."""
    try:
        if argument == "-":
            return sys.stdin.read()
        if argument.startswith("@"):
            return Path(argument[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(EXIT_USAGE, f"The message cannot be read: {error}")
    return argument


def fail(code: int, sentence: str) -> NoReturn:
    """One sentence on standard error, and out."""
    click.echo(f"dispatcher: {sentence}", err=True)
    sys.exit(code)
