"""`dispatcher check`, as it is typed and printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import click

from dispatcher import factories
from dispatcher.cli.checks import check as checks
from dispatcher.cli.checks import pod_check, portal_walk
from dispatcher.cli.checks.results import CheckResult, Otherwise, Result
from dispatcher.cli.submit import compose
from dispatcher.cli.support import (
    EXIT_FAILED,
    EXIT_USAGE,
    Environment,
    container_of,
    examples,
    fail,
    outside_calls,
    settings_for_printing,
)
from dispatcher.config.settings import Settings
from dispatcher.launch.request import MalformedRequest, decode
from portal_client.model_ids import InvalidContainerName

_MARKS: Mapping[Result, tuple[str, str | None]] = {
    "ok": ("ok  ", "green"),
    "warning": ("WARN", "yellow"),
    "failed": ("FAIL", "red"),
    "skipped": ("--  ", None),
}


@click.command(
    epilog=examples(
        "dispatcher check",
        "dispatcher check --json",
        "dispatcher check --in-pod model-1 --dataset dataset-houses",
        "dispatcher check --portal model-0",
    )
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--in-pod",
    "model",
    metavar="MODEL",
    help="Also run a pod as a training of the container MODEL would have it, which reads storage, configuration and "
    "dataset, and a second one, which tries what it reaches in the network; with MAX_NODES two more, which look for "
    "each other. They train nothing.",
)
@click.option("--dataset", help="Container of the dataset for --in-pod; else the model's configuration names it.")
@click.option(
    "--wait", type=click.IntRange(10, 86400), default=900, show_default=True, help="Seconds that --in-pod may take."
)
@click.option(
    "--portal",
    "walked",
    metavar="MODEL",
    help="Instead walk MODEL, made for this in status Created or Reconfigure, through the statuses of a training, and "
    "say what the portal does otherwise than docs/portal.md expects. It changes the model's status.",
)
@click.pass_obj
def check(
    environ: Environment, as_json: bool, model: str | None, dataset: str | None, wait: int, walked: str | None
) -> None:
    """Check settings, template, queues, portal, cluster, permissions and clocks, one by one.

    WARN is worth fixing; only FAIL keeps the dispatcher from working, and makes the exit code 1.
    """
    settings = settings_for_printing(environ)
    if walked is not None and model is not None:
        fail(EXIT_USAGE, "--portal and --in-pod are two checks: give one of them")
    nothing = dict.fromkeys(("gpus", "nodes", "priority", "time_limit"))
    wishes: dict[str, Any] = {"extra": (), "dataset": dataset, **nothing}
    try:
        request = None if model is None else decode(compose(model, wishes), factories.bounds_of(settings))
    except MalformedRequest as error:
        fail(EXIT_USAGE, f"{error.sentence} ({error.code})")
    results: list[CheckResult] = []

    def note(result: CheckResult) -> None:
        results.append(result)
        mark, colour = _MARKS[result.result]
        if not as_json:
            click.echo(f"{click.style(mark, fg=colour)} {result.name}: {result.sentence}")

    if walked is not None:
        _walk(settings, walked, note)
    else:
        for result in checks.run_checks(settings):
            if request is None or result.name != checks.BLOBS:
                note(result)
    if request is not None:
        if any(result.result == "failed" for result in results):
            note(CheckResult(pod_check.NAME, "skipped", "not begun: fix what failed first"))
        else:
            several = (pod_check.check_team,) if settings.max_nodes > 1 else ()
            for look in (pod_check.check_in_pod, pod_check.check_network, *several):
                with outside_calls():
                    note(look(settings, request, wait, lambda text: click.echo(f"     {text}", err=True)))
                if results[-1].result != "ok":
                    break
    passed = all(result.result != "failed" for result in results)
    if as_json:
        click.echo(json.dumps({"passed": passed, "checks": [asdict(result) for result in results]}, indent=2))
    sys.exit(0 if passed else EXIT_FAILED)


def _walk(settings: Settings, model: str, note: Callable[[CheckResult], None]) -> None:
    try:
        walk = portal_walk.open_walk(settings, container_of(model))
    except InvalidContainerName as error:
        fail(EXIT_USAGE, str(error))
    except Otherwise as error:
        note(CheckResult("portal", error.result, str(error)))
        return
    try:
        for result in walk.results():
            note(result)
    finally:
        if (left := walk.leave()) is not None:
            note(left)
