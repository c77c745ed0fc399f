"""What a second dispatcher costs: the same requests in good weather, with operators' settings, counted call by call."""

from __future__ import annotations

import time
from collections import Counter

from local_stack.processes import wait_until
from local_stack.storm.fleet import World
from local_stack.storm.plan import COMPLETED, KINDS, make_plan

# What each request is to be charged with; the rest (lists, watches) goes by the clock.
_EACH = ("portal GET", "portal PUT", "create jobs", "get jobs", "patch jobs", "delete jobs", "delete pods")


def calls_in_calm(world: World, dispatchers: int, requests: int, seed: int) -> Counter[str]:
    """Calls of `dispatchers` side by side for `requests` that complete: "portal GET", "patch jobs", … → how many."""
    name = f"calm-{dispatchers}"
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

    wait_until(completed, 120, what=f"{requests} calm requests to complete")
    time.sleep(3.0)  # the last patches
    calls = Counter(world.cluster.calls()) + Counter(f"portal {call.method}" for call in world.portal.calls())
    for member in members:
        member.stop()
    return calls


def compare(one: Counter[str], two: Counter[str], requests: int) -> list[str]:
    """A table: calls for each request with one dispatcher and with two."""
    lines = [f"{'calls a request':16} {'one':>7} {'two':>7}   the second one's part"]
    for name in sorted({*one, *two}, key=lambda name: (name not in _EACH, name)):
        first, both = one[name] / requests, two[name] / requests
        lines.append(f"{name:16} {first:7.2f} {both:7.2f}   {both - first:+.2f}")
    return lines
