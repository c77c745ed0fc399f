"""The weather: phases in which the portal or the API server fails in one way, and nodes that are lost."""

from __future__ import annotations

import random
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from local_stack.cluster.client import StandInCluster
from local_stack.portal.client import StandInPortal
from local_stack.storm.actors import LONGEST_HANG

NODES = ("node-1", "node-2", "node-3", "node-4")
# Seconds after which the end of a pod has been reported, even through an outage.
_REPORTED_AFTER = 20.0
_RETRY = {"Retry-After": "1"}


class Weather:
    """Three threads until `stop`; afterwards everything answers and every node is there.

    taken: names of the pods that were on a node when it was lost or removed, running or just ended.
    """

    def __init__(self, portal: StandInPortal, cluster: StandInCluster, seed: int) -> None:
        self.taken: set[str] = set()
        self.nodes: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.watches: Counter[str] = Counter()
        self._kinds: dict[int, str] = {}
        self._portal = portal
        self._cluster = cluster
        self._stop = threading.Event()
        loops = (self._portal_weather, self._cluster_weather, self._node_weather)
        self._threads = [
            threading.Thread(target=self._run, args=(loop, random.Random(seed + number)), daemon=True)
            for number, loop in enumerate(loops)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def portal_suffered(self) -> Counter[str]:
        """Number of calls that met each fault of the portal."""
        return Counter(self._kinds.get(call.fault, "?") for call in self._portal.calls() if call.fault is not None)

    def _run(self, loop: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._stop.wait(chance.uniform(0.5, 3.0)):
            try:
                loop(chance)
            except (OSError, urllib.error.HTTPError):
                continue  # the machine is slow: go on with the next phase

    def _portal_weather(self, chance: random.Random) -> None:
        """One way of failing, for some calls or for a while."""
        kind, status, headers, name = chance.choice(
            [
                ("status", 500, None, "500"),
                ("status", 500, None, "500"),
                ("status", 503, _RETRY, "503"),
                ("status", 429, _RETRY, "429"),
                ("status", 401, None, "401"),
                ("html", 200, None, "a login page"),
                ("empty", 200, None, "an empty answer"),
                ("empty", 404, None, "nobody's 404"),
                ("garbage", 200, None, "no JSON"),
                ("denied", None, None, "denied behind a 200"),
                ("login", None, None, "a redirect to a login page"),
                ("status", 423, None, "423"),
                ("drip", None, None, "a byte at a time"),
                ("stale", None, None, "old answers"),
                ("cut", None, None, "cut"),
                ("cut", None, None, "cut"),
                ("hang", None, None, "late"),
            ]
        )
        # A portal that answers 200 without a body has done what was asked; one that shows a login page has not.
        after = name in ("an empty answer", "no JSON") or (name in ("500", "cut") and chance.random() < 0.5)
        number = self._portal.add_fault(
            kind,
            # What stands behind a 200 to a GET is no status: a message that meets it twice is poison.
            method="PUT" if kind == "denied" else chance.choice(("GET", "PUT", None)),
            status=status,
            headers=headers,
            count=chance.choice((1, 3, 10, None)),
            after=after,
            seconds=chance.uniform(0.5, LONGEST_HANG) if kind in ("hang", "stale") else None,
        )
        self._kinds[number] = f"{name} (carried out)" if after and name in ("500", "cut") else name
        self.phases["portal"] += 1
        try:
            self._stop.wait(chance.uniform(0.5, 4.0))
        finally:
            if kind == "hang":
                self._stop.wait(LONGEST_HANG)  # ending a hang cuts it
            self._portal.clear_faults()

    def _cluster_weather(self, chance: random.Random) -> None:
        """As for the portal; and watches that end, fall silent, or are answered that their version has expired."""
        resource = chance.choice(("jobs", "pods", None))
        match chance.choice(("status", "status", "status", "cut", "late", "hang", "watch", "watch")):
            case "status":
                code = chance.choice((409, 410, 429, 500, 500, 503))
                verbs: dict[int, tuple[str | None, ...]] = {
                    409: ("create", "patch", "delete"),
                    410: ("watch", "list"),
                }
                self._cluster.fail(
                    chance.choice(verbs.get(code, ("create", "patch", "get", "delete", "list", "watch", None))),
                    resource if code != 409 else "jobs",
                    status=code,
                    count=chance.choice((1, 3, 8)),
                    after=code in (500, 503) and chance.random() < 0.5,
                )
            case "cut":
                verb = chance.choice(("create", "patch", "delete", None))
                self._cluster.cut(verb, "jobs", count=chance.choice((1, 3, 8)), after=chance.random() < 0.5)
            case "late":
                self._cluster.delay(chance.uniform(0.2, 3.0), None, "jobs", count=chance.choice((3, 8)))
            case "hang":
                self._cluster.hang(chance.choice(("create", "patch", "get")), "jobs", after=chance.random() < 0.5)
            case "watch":
                self._break_watches(chance, resource)
        self.phases["API server"] += 1
        try:
            self._stop.wait(chance.uniform(0.5, 3.0))
        finally:
            self._cluster.clear_faults()

    def _break_watches(self, chance: random.Random, resource: str | None) -> None:
        match chance.choice(("cut", "cut", "silence", "compact")):
            case "cut":
                self.watches["cut"] += self._cluster.cut_watches(resource)
            case "silence":
                self.watches["fell silent"] += self._cluster.silence_watches(resource)
            case "compact":
                # An old version is refused, with 410 inside of a 200.
                self._cluster.compact()
                self.watches["history forgotten (410)"] += self._cluster.cut_watches(resource)

    def _node_weather(self, chance: random.Random) -> None:
        """One node at a time is lost or taken away, and comes back; or a kubelet refuses pods."""
        if self._stop.wait(chance.uniform(0.0, 5.0)):
            return
        node = chance.choice(NODES)
        what = chance.choice(("lost", "lost", "removed", "refuses pods"))
        self.nodes[what] += 1
        if what == "refuses pods":
            self._cluster.reject_next_pods(chance.randint(1, 3), node=node)
            return
        try:
            if what == "lost":
                there = self._cluster.lose_node(node, kill=True, evict_after=chance.uniform(0.0, 1.0))
            else:
                there = self._cluster.remove_node(node, kill=True)
            self.taken.update(pod["metadata"]["name"] for pod in there if not _long_ended(pod))
            self._stop.wait(chance.uniform(1.0, 4.0))
        finally:
            self._cluster.return_node(node)


def _long_ended(pod: dict[str, Any]) -> bool:
    """Whether a container ended long enough ago for its Job to have been reported."""
    for container in pod["status"].get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if at := ended.get("finishedAt"):
            return time.time() - datetime.fromisoformat(at).timestamp() > _REPORTED_AFTER
    return False
