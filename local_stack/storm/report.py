"""The storm's figures, and each deviation as a sentence with the history and log lines that belong to it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from local_stack.storm.actors import Actors
from local_stack.storm.fleet import Fleet
from local_stack.storm.judge import DOUBLED, LOST, WRONG, Evidence, Finding, Verdicts
from local_stack.storm.plan import Request
from local_stack.storm.weather import Weather

_MOST_FINDINGS = 40
_LOG_LINES = 12


@dataclass(frozen=True)
class Figures:
    """What a storm was made of. seconds: of the storm, until rest where rested; comparison: the baseline's lines."""

    seed: int
    seconds: float
    rested: bool
    requests: list[Request]
    fleet: Fleet
    weather: Weather
    actors: Actors
    evidence: Evidence
    verdicts: Verdicts
    comparison: list[str]


def report(figures: Figures, calls: Mapping[str, int], suffered: Mapping[str, int], say: Callable[[str], None]) -> None:
    """Report everything, line by line. calls: the dispatchers', by kind; suffered: the API server's faults."""
    fleet, weather, verdicts = figures.fleet, figures.weather, figures.verdicts
    sent = sum(len(request.ids) for request in figures.requests)
    deliveries = sum(1 for _ in fleet.log_lines(_DELIVERED)) + sum(1 for _ in fleet.log_lines(_POISONED_AT_ONCE))
    portal = weather.portal_suffered()
    rest = "at rest" if figures.rested else "NOT at rest"
    say(f"requests    {len(figures.requests)} in {sent} messages; {rest} after {figures.seconds:.0f} s")
    say(f"dispatchers {len(fleet.members)}: {_listed(fleet.ended)}")
    say(f"portal      {sum(portal.values())} calls met faults, in {weather.phases['portal']} phases: {_listed(portal)}")
    say(
        f"API server  {sum(suffered.values())} calls met faults, in {weather.phases['API server']} phases: "
        f"{_listed(Counter(suffered))}; watches: {_listed(weather.watches)}"
    )
    say(f"nodes       {_listed(weather.nodes)}; models that lost a pod: {len(figures.evidence.disrupted)}")
    say(f"actors      {_listed(figures.actors.done)}")
    if figures.actors.relay_calls:
        say(f"relays      {_listed(figures.actors.relay_calls)} by trainings with credentials of their own")
    say(f"deliveries  {deliveries} ({deliveries / max(1, sent):.2f} per message)")
    opened, closed = (sum(1 for _ in fleet.log_lines(words)) for words in ("Intake pauses: ", "Intake continues; "))
    say(f"breakers    opened {opened} times, closed {closed} times")
    histories = [model.history for model in figures.evidence.models.values()]
    told = sum(any(entry.message.startswith("Attempt ") for entry in history) for history in histories)
    say(f"progress    {told} models were told of an attempt that failed before the next one started")
    say(f"outcomes    {_listed(verdicts.outcomes)}")
    say(f"poison      {len(figures.evidence.poison)} entries, {verdicts.repeated} of them written twice")
    say(f"final statuses overwritten by a late Processing and reported again: {verdicts.repaired}")
    each = ", ".join(f"{name} {calls[name] / len(figures.requests):.2f}" for name in sorted(calls))
    say(f"calls per request in the storm: {each}")
    for line in figures.comparison:
        say(f"  {line}")
    say(f"lost {verdicts.count(LOST)}, doubled {verdicts.count(DOUBLED)}, wrong {verdicts.count(WRONG)}")
    for finding in verdicts.findings[:_MOST_FINDINGS]:
        for line in _described(finding, figures):
            say(line)
    if len(verdicts.findings) > _MOST_FINDINGS:
        say(f"… and {len(verdicts.findings) - _MOST_FINDINGS} more")
    if verdicts.findings:
        say(f"to repeat: make storm ARGS='--seed {figures.seed} --requests {len(figures.requests)}'")


_DELIVERED = "Extracted model ID"
_POISONED_AT_ONCE = "to the poison queue"


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.most_common()) or "none"


def _described(finding: Finding, figures: Figures) -> Iterator[str]:
    request = finding.request
    if request is None:
        yield f"{finding.kind.upper()}: {finding.sentence}"
        return
    yield f"{finding.kind.upper()}: model {request.model_id or '(none)'}, which {request.kind.name}: {finding.sentence}"
    yield f"    messages {', '.join(request.ids)}; initial status {request.initial}"
    if not request.model_id:
        return
    if model := figures.evidence.models.get(request.model_id):
        for entry in model.history:
            yield f"    portal       {_clock(entry.wall)} {entry.status} by {entry.by}: {entry.message[:160]}"
    # "1-23" is not "1-2".
    whole = re.compile(re.escape(request.model_id) + r"(?![0-9])")
    lines = sorted((line, name) for name, line in figures.fleet.log_lines(request.model_id) if whole.search(line))
    for line, name in lines[-_LOG_LINES:]:
        yield f"    dispatcher {name} {line.partition(' ')[2][:300]}"


def _clock(wall: float) -> str:
    """As the dispatchers' logs have it."""
    return datetime.fromtimestamp(wall).astimezone().strftime("%H:%M:%S,%f")[:-3]
