"""`dispatcher list`: what runs, waits, has ended and was refused, as the status page has it.

Read-only. Jobs and pods are listed in pages, and only as many rows as asked for are explained by their Events.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import click

from dispatcher import factories
from dispatcher.cli.explain import span, summary_of, workloads_of
from dispatcher.cli.support import Environment, examples, outside_calls, settings_for_printing
from dispatcher.cluster import names
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterError
from dispatcher.cluster.objects import timestamp
from dispatcher.cluster.pods import Pod
from dispatcher.config.settings import Settings
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.node_sizes import NodeSizes
from dispatcher.controller.summaries import Seen, Summary
from dispatcher.queue.messages import QueueError
from dispatcher.web.request_rows import look_at, together
from dispatcher.web.status_rows import SECTIONS, Page, Rules, Sections, World
from training_common.text import one_line

_EVERY = 3.0
_WIDE = (("QUEUE", "queue"), ("DATASET", "dataset"), ("RUN", "run_id"), ("POD", "pod"), ("MESSAGE", "message_id"))
_SHOWN = 160  # characters of a sentence


def gather(settings: Settings, page: Page) -> dict[str, Any]:
    """The sections as the page's JSON has them. Raises QueueError and ClusterError."""
    cluster = KubernetesJobs(settings.namespace)
    limits, bounds = factories.limits_of(settings), factories.bounds_of(settings)
    pods: defaultdict[str | None, list[Pod]] = defaultdict(list)
    for pod in cluster.list_pods(names.SELECTOR, "status.phase!=Succeeded"):
        pods[pod.owner_uid].append(pod)
    jobs: list[Seen] = [(job, *pods[job.uid]) for job in cluster.list_jobs(names.UNREPORTED_JOBS)]
    ended = EndedJobs(math.inf)
    ended.fill(cluster.list_metadata("jobs", names.REPORTED_JOBS))
    now = time.time()
    facts = together([look_at(pair) for pair in factories.open_queues(settings)])
    summaries: dict[str, Summary] = {}

    def sections() -> dict[str, Any]:
        world = World(jobs, facts, (), {}, summaries, ended.latest(now))
        return Sections(world, Rules(limits, bounds), now).shown(page)[0]

    # Those on the page are looked at as the dispatcher does, which may take a call for each.
    shown, queued = {row["model"] for row in sections()["waiting"]["rows"]}, workloads_of(cluster, settings)
    nodes = NodeSizes(cluster.list_nodes)
    for job, *own in jobs:
        if job.name in shown and job.is_managed:
            summaries[job.name] = summary_of(cluster, job, own, settings, queued, nodes)
    return sections()


def as_text(found: Mapping[str, Any], chosen: Sequence[str], wide: bool, now: float) -> str:
    """A table of each section. now: epoch seconds."""
    lines: list[str] = []
    for name in chosen:
        section = found[name]
        rows = [_cells(row, wide, now) for row in section["rows"]]
        before, matching = section["offset"], section["matching"]
        where = f", from number {before + 1} on" if before else ""
        left = matching - before - len(rows)
        lines.append(f"{name}: {matching}{where}" + (f", {left} more: --limit, --offset" if left > 0 else ""))
        if rows:
            head = ["MODEL", "STATE", "FOR", "GPUS", "TRY", "NODE", *(title for title, _ in _WIDE if wide), "WHAT"]
            widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
            for cells in (head, *rows):
                padded = [cell.ljust(width) for cell, width in zip(cells, widths[:-1], strict=False)]
                lines.append("  " + "  ".join([*padded, cells[-1]]).rstrip())
    return "\n".join(lines)


def _cells(row: Mapping[str, Any], wide: bool, now: float) -> list[str]:
    since = timestamp(row["since"])
    known = [str(row.get(key) or "-") for key in ("gpus", "attempts", "node")]
    more = [one_line(str(row.get(key) or "-")) for _, key in _WIDE] if wide else []
    said = one_line(row["sentence"] or "")
    what = said if wide or len(said) <= _SHOWN else f"{said[: _SHOWN - 1]}…"
    state = row["code"] if row["phase"] in ("failed", "refused") and row["code"] else row["phase"]
    return [
        one_line(row["model"]) or "-",
        state,
        "-" if since is None else span(now - since),
        *map(one_line, known),
        *more,
        what,
    ]


@click.command(
    "list",
    epilog=examples(
        "dispatcher list", "dispatcher list waiting ended --query DatasetInvalid", "dispatcher list --watch"
    ),
)
@click.argument("sections", nargs=-1, type=click.Choice(SECTIONS))
@click.option("--query", default="", help="Only rows with every word of it: names, reasons, nodes, datasets.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Rows of each section.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Rows of each section to leave out before those.")
@click.option("-o", "output", type=click.Choice(["wide"]), help="wide: more columns, and whole sentences.")
@click.option("--watch", is_flag=True, help="Print it anew whenever it has changed, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(
    environ: Environment,
    sections: Sequence[str],
    query: str,
    limit: int,
    offset: int,
    output: str,
    watch: bool,
    as_json: bool,
) -> None:
    """List what is running, waiting, ended and refused: all SECTIONS, or those that are named."""
    settings = settings_for_printing(environ)
    chosen, before, lost = sections or SECTIONS, "", ""
    page = Page(query, limit, dict.fromkeys(chosen, offset))
    with outside_calls():
        while True:
            try:
                found, lost = gather(settings, page), ""
            except (QueueError, ClusterError) as error:
                if not before:
                    raise
                if not lost:  # whoever watches sees the end of an outage, too
                    click.echo(f"Not known for now, and tried again: {error}", err=True)
                found, lost = {}, str(error)
            kept = {name: found[name] for name in chosen if name in found}
            same = json.dumps(kept, indent=None if watch else 2)
            if kept and same != before:
                click.echo(same if as_json else as_text(found, chosen, output == "wide", time.time()))
                before = same
            if not watch:
                return
            time.sleep(_EVERY)
