"""What a second dispatcher costs: the same requests without faults, with an operator's settings, calls counted."""

from __future__ import annotations

import time
from collections import Counter

from local_stack.processes import wait_until
from local_stack.storm.fleet import World
from local_stack.storm.plan import COMPLETED, KINDS, make_plan

# Calls that each request causes; the rest (lists, watches) depends on the time.
_EACH = ("portal GET", "portal PUT", "create jobs", "get jobs", "patch jobs", "delete jobs", "delete pods")


def baseline_calls(world: World, dispatchers: int, requests: int, seed: int) -> Counter[str]:
    """Calls of `dispatchers` side by side for `requests` that complete: "portal GET", "patch jobs", … → number."""
    name = f"baseline-{dispatchers}"
    world.create(name, name)
    queue = world.queue(name)
    sure = 2 * len(KINDS) + 8 * requests
    plan = [r for r in make_plan(seed + dispatchers, sure) if r.kind is KINDS[0]][:requests]
    members = [world.run_dispatcher(f"{name}-dispatcher-{n}", world.settings(name)) for n in range(1, dispatchers + 1)]
    for member in members:
        member.wait_ready(lambda log=member.log: log.exists() and "Settings:" in log.read_text())  # type: ignore[misc]
    wait_until(lambda: len(world.cluster.open_watches()) == 2 * dispatchers, 30)
    world.portal.clear_calls()
    world.cluster.clear_calls()
    for request in plan:
        world.portal.set_model(request.model_id, request.initial or "Created")
        queue.send_message(request.text)

    def completed() -> bool:
        known = world.portal.models()
        return all(known[request.model_id].status == COMPLETED for request in plan)

    wait_until(completed, 120, what=f"{requests} baseline requests to complete")
    time.sleep(3.0)  # the last patches
    calls = Counter(world.cluster.calls()) + Counter(f"portal {call.method}" for call in world.portal.calls())
    for member in members:
        member.stop()
    return calls


def compare(one: Counter[str], two: Counter[str], requests: int) -> list[str]:
    """A table: calls per request with one dispatcher and with two."""
    lines = [f"{'calls per request':17} {'one':>7} {'two':>7}   difference"]
    for name in sorted({*one, *two}, key=lambda name: (name not in _EACH, name)):
        first, both = one[name] / requests, two[name] / requests
        lines.append(f"{name:17} {first:7.2f} {both:7.2f}   {both - first:+.2f}")
    return lines
