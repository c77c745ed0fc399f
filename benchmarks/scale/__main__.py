"""Fill a cluster with trainings and measure one dispatcher beside them: memory, CPU, time to ready, calls.

The cluster is the stand-in, unless KUBECONFIG and NAMESPACE are both set: then it is that namespace of that cluster.
What was put there is removed at the end, also after Ctrl-C. Storage and portal are local. Each size is measured with a
process of its own; the trainings of a smaller size stay for the next.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.scale.clusters import Cluster, Real, StandIn
from benchmarks.scale.docs import write_docs
from benchmarks.scale.measure import Figures, command, measure
from benchmarks.scale.objects import Trainings
from dispatcher.config.settings import Settings
from local_stack.processes import bare_environment, free_port, interrupted_once
from local_stack.stack import JOB_TEMPLATE, TRAINER_IMAGE
from local_stack.surroundings import Surroundings

_QUEUE = "scale"
_PAGES = ("/api/status", "/metrics")


def main() -> None:
    options = _options()
    with interrupted_once():
        try:
            measured = _run(options)
        except KeyboardInterrupt:
            raise SystemExit("interrupted") from None
    usual = not (options.real or options.waiting or options.reported or options.request_bytes)
    if usual and len(measured) > 1 and not options.no_docs:
        for path in write_docs(measured):
            print(f"wrote {path}")


def _run(options: argparse.Namespace) -> dict[int, Figures]:
    """Number of trainings → the median of its rounds."""
    run = f"{secrets.randbelow(9000) + 1000}"
    measured: dict[int, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, Surroundings(Path(folder)) as parts:
        cluster, settings = _start(parts, options, run)
        read = Settings.read(settings)
        state = "waiting" if options.waiting else "running"
        trainings = Trainings(read, run, read.namespace or "", state, options.request_bytes)
        with _cleared(cluster):
            if options.reported:
                kept = Trainings(read, f"{run}9", read.namespace or "", "reported", options.request_bytes)
                _fill(parts, cluster, kept, range(options.reported), "Completed")
            there = 0
            print(_HEAD, flush=True)
            for size in sorted(options.sizes):
                _fill(parts, cluster, trainings, range(there, size), "Processing")
                there = size
                for arguments in _commands(f"model-{trainings.model_id(size // 2)}") if options.commands else ():
                    print(command(arguments, {**bare_environment(), **settings}, parts.folder), flush=True)
                rounds = [_measure(parts, settings, options, f"{size}-{number}") for number in range(options.rounds)]
                for each in rounds if options.rounds > 1 else ():
                    print(_row(str(size), each), flush=True)
                measured[size] = _median(rounds)
                print(_row(f"**{size}**" if options.rounds > 1 else str(size), measured[size]), flush=True)
    return measured


def _start(parts: Surroundings, options: argparse.Namespace, run: str) -> tuple[Cluster, dict[str, str]]:
    """The parts; the cluster to fill, and the dispatcher's environment."""
    cluster: Cluster
    if options.real:
        namespace = os.environ["NAMESPACE"]
        parts.start_without_cluster()
        parts.kubeconfig = os.environ["KUBECONFIG"]
        parts.create_queue(_QUEUE)
        cluster = Real(namespace, run)
    else:
        namespace = "training"
        parts.start_parts("--idle")
        parts.create(_QUEUE, namespace)
        cluster = StandIn(parts.cluster.url)
    parts.job_template.write_bytes(JOB_TEMPLATE.read_bytes())
    settings = {
        **parts.settings_for(_QUEUE, namespace),
        "TRAINER_IMAGE": TRAINER_IMAGE,
        "HEALTH_HOST": "127.0.0.1",
        "MAX_ACTIVE_JOBS": "100000",
    }
    return cluster, settings


@contextlib.contextmanager
def _cleared(cluster: Cluster) -> Iterator[None]:
    try:
        yield
    finally:
        if isinstance(cluster, Real):
            print("removing what was put into the cluster", file=sys.stderr, flush=True)
        cluster.clear()


def _fill(parts: Surroundings, cluster: Cluster, trainings: Trainings, numbers: range, status: str) -> None:
    began = time.monotonic()
    parts.portal.set_models([trainings.model_id(number) for number in numbers], status)
    cluster.fill(trainings, numbers)
    what = f"{len(numbers)} {trainings.state} trainings"
    print(f"{what} put there in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


def _measure(parts: Surroundings, settings: dict[str, str], options: argparse.Namespace, name: str) -> Figures:
    port = str(free_port())
    return measure(
        lambda: parts.run_dispatcher(f"dispatcher-{name}", {**settings, "HEALTH_PORT": port}),
        f"http://127.0.0.1:{port}",
        seconds=options.seconds,
        patience=options.patience,
        paths=_PAGES if options.page else (),
    )


def _commands(model: str) -> tuple[tuple[str, ...], ...]:
    return (("explain", model), ("list",), ("list", "--limit", "500"), ("list", "--query", model, "--json"))


def _median(rounds: list[Figures]) -> Figures:
    names = [name for name in vars(rounds[0]) if name not in ("page", "settled")]
    numbers = {name: statistics.median(getattr(each, name) for each in rounds) for name in names}
    settled = [each.settled for each in rounds if each.settled is not None]
    return replace(rounds[0], **numbers, settled=statistics.median(settled) if len(settled) == len(rounds) else None)


_HEAD = """\
| trainings | memory, peak | memory, at rest | CPU at rest | ready after | at rest after | API calls/min | portal's |
|---|---|---|---|---|---|---|---|"""


def _row(name: str, found: Figures) -> str:
    settled = "not yet" if found.settled is None else f"{found.settled:.0f} s"
    row = (
        f"| {name} | {found.peak:.0f} MiB | {found.memory:.0f} MiB | {found.cpu:.1f} % | {found.ready:.1f} s"
        f" | {settled} | {found.cluster_calls:.0f} | {found.portal_calls:.0f} |"
    )
    until = (
        f"until then: {found.first_cluster:.0f} calls to the API server, {found.first_portal:.0f} to the portal, "
        f"of which at most {found.first_pace:.0f} a second changed something"
    )
    asked = [f"{path}: {seconds:.2f} s, {size:,} bytes" for path, (seconds, size) in found.page.items()]
    if asked:
        asked.append(f"after them peak {found.page_peak:.0f} MiB")
    return "\n".join([row, "; ".join([until, *asked])])


def _numbers(text: str) -> list[int]:
    """One number, or several with commas between them."""
    return [int(number) for number in text.split(",")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    sizes = "numbers of trainings (100 1000 10000)"
    parser.add_argument("--sizes", type=_numbers, nargs="+", default=[[100, 1000, 10_000]], metavar="N", help=sizes)
    parser.add_argument("--waiting", action="store_true", help="their pods wait for a GPU; otherwise they run")
    parser.add_argument("--reported", type=int, default=0, metavar="N", help="reported Jobs kept beside them (0)")
    text = "length of each request, on the Job and in its environment, up to 65536 (about 100)"
    parser.add_argument("--request-bytes", type=int, default=0, metavar="N", help=text)
    parser.add_argument("--page", action="store_true", help=f"ask for {' and '.join(_PAGES)} once at each size")
    parser.add_argument("--commands", action="store_true", help="run explain and list once beside each size")
    parser.add_argument("--seconds", type=float, default=50, metavar="SECONDS", help="at rest that are measured (50)")
    text = "in which it is to come to rest; measured after them all the same (300)"
    parser.add_argument("--patience", type=float, default=300, metavar="SECONDS", help=text)
    parser.add_argument("--rounds", type=int, default=1, help="of each size, of which the median is taken (1)")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/scale.svg and docs/launching.md alone")
    options = parser.parse_args()
    options.sizes = [size for sizes in options.sizes for size in sizes]
    options.real = bool(os.environ.get("KUBECONFIG") and os.environ.get("NAMESPACE"))
    if os.environ.get("KUBECONFIG") and not options.real:
        print("KUBECONFIG is set, NAMESPACE is not: the stand-in cluster is filled", file=sys.stderr)
    return options


if __name__ == "__main__":
    main()
