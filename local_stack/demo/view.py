"""What the demo shows: a live table in a terminal, plain lines when piped, and the table at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from local_stack.demo.requests import Outcome, Request, mismatch
from local_stack.demo.watch import Seen, Snapshot
from local_stack.processes import Stoppable

STATUS_STYLE = {"Completed": "green", "Failed": "red", "Processing": "yellow", "Reconfigure": "cyan"}
# Wide enough for the columns of the last table, where there is no terminal to ask.
PIPED_WIDTH = 160


def make_console() -> Console:
    """Standard output; of a fixed width when piped."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


class Progress(Stoppable):
    """Shows snapshots as they come."""

    def __init__(self, console: Console, requests: Iterable[Request], gpus: int) -> None:
        self._console = console
        self._requests = tuple(requests)
        self._gpus = gpus
        self._last: dict[str, Seen] = {}
        self._poisoned: set[str] = set()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, seconds: float, text: str) -> None:
        """One line that stays, e.g. that a message was sent."""
        self._console.print(f"{seconds:6.1f} s  {text}", markup=False, soft_wrap=True)

    def show(self, seconds: float, snapshot: Snapshot) -> None:
        """seconds: since the first message was sent."""
        if self._live is not None:
            self._live.update(self._table(seconds, snapshot), refresh=True)
            return
        for request in self._requests:
            seen = snapshot.requests[request.name]
            before = self._last.get(request.name)
            own = request.after is None and request.expected.kind != "poisoned"
            if own and (before is None or (before.portal, before.job) != (seen.portal, seen.job)):
                status, words = seen.portal or ("unknown", "")
                job = f"[Job {seen.job}]" if seen.job else "[no Job]"
                self.say(seconds, f"{request.name:<12} {status:<11} {job:<16} {words}")
            self._last[request.name] = seen
        for name, code in snapshot.poison.items():
            if name not in self._poisoned:
                self._poisoned.add(name)
                self.say(seconds, f"{name:<12} in the poison queue: {code}")

    def _table(self, seconds: float, snapshot: Snapshot) -> Table:
        caption = (
            f"{seconds:.0f} s   queue: {snapshot.queued}   poison: {len(snapshot.poison)}   "
            f"GPUs busy: {snapshot.gpus_busy} of {self._gpus}"
        )
        table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left", expand=True)
        for name in ("request", "portal", "Job"):
            table.add_column(name, no_wrap=True)
        for name in ("waited", "trained"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("the portal's message", ratio=1, no_wrap=True, overflow="ellipsis")
        for request in self._requests:
            seen = snapshot.requests[request.name]
            status, words = seen.portal or ("", "")
            if code := snapshot.poison.get(request.name):
                words = f"in the poison queue: {code}"
            table.add_row(request.name, _status(status), seen.job, _seconds(seen.waited), _seconds(seen.trained), words)
        return table


def print_outcomes(
    console: Console, requests: Iterable[Request], outcomes: Mapping[str, Outcome], more: Iterable[str] = ()
) -> int:
    """The table at the end, the poison queue, a sentence for each mismatch. Returns their number."""
    requests = tuple(requests)
    console.print(_outcome_table(requests, outcomes))
    poisoned = [(request, poison) for request in requests if (poison := outcomes[request.name].poison)]
    table = Table(title="The poison queue", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in ("request", "code", "reason", "message"):
        table.add_column(name, overflow="fold")
    for request, (code, sentence) in poisoned:
        table.add_row(request.name, code, Text(sentence), Text(request.message))
    console.print(table)
    problems = [f"{request.name}: {why}" for request in requests if (why := mismatch(request, outcomes[request.name]))]
    problems += more
    for problem in problems:
        console.print(Text(f"not as expected: {problem}", style="red"), soft_wrap=True)
    return len(problems)


def _outcome_table(requests: Iterable[Request], outcomes: Mapping[str, Outcome]) -> Table:
    table = Table(title="The outcome of each request", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("request", overflow="fold")
    table.add_column("the portal says", overflow="fold", ratio=1)
    table.add_column("waited", justify="right", no_wrap=True)
    table.add_column("trained", justify="right", no_wrap=True)
    table.add_column("on the test split", no_wrap=True)
    table.add_column("the model is in", overflow="fold")
    for request in requests:
        outcome = outcomes[request.name]
        good = mismatch(request, outcome) is None
        figure = outcome.metrics.get(request.expected.metric)
        table.add_row(
            Text("✓", style="green") if good else Text("✗", style="red"),
            Text.assemble((request.name, "bold"), "\n", request.what),
            _portal_words(request, outcome),
            _seconds(outcome.waited),
            _seconds(outcome.trained),
            "" if figure is None else f"{request.expected.metric} {figure:.3f}",
            outcome.place.replace("/", "\n", 1) if request.expected.kind == "trained" else "",
        )
    return table


def _portal_words(request: Request, outcome: Outcome) -> Text:
    if request.expected.kind == "poisoned":
        return Text("nothing: the message names no model", style="dim")
    status, words = outcome.portal or ("nothing", "")
    return Text.assemble(_status(status), f"\n{words}" if words else "")


def _status(status: str) -> Text:
    return Text(status, style=STATUS_STYLE.get(status, ""))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s"
