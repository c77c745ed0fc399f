"""The scheduler: binds pods to nodes by capacity, node selector and taints, and preempts by priority.

Its message when nothing fits is the real scheduler's text, as recorded in tests/recorded/unschedulable.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from local_stack.cluster.controllers.placement import fixed_obstacle, short_of
from local_stack.cluster.registry.events import Recorder
from local_stack.cluster.registry.objects import Key, Obj, has_ended, key_of, new_condition, with_condition
from local_stack.cluster.registry.quantities import pod_requests
from local_stack.cluster.registry.resources import PODS
from local_stack.cluster.registry.rules import DeleteOptions
from local_stack.cluster.registry.store import Change
from local_stack.cluster.registry.writes import Registry

_NO_CLAIMS = "no new claims to deallocate, preemption: "
_VICTIM_MESSAGE = "default-scheduler: preempting to accommodate a higher priority pod"


@dataclass
class _Waiting:
    """A pod without a node."""

    uid: str
    key: Key
    priority: int
    order: int
    requests: dict[str, float]


@dataclass
class _Group:
    """Waiting pods that fit exactly where any of them fits, oldest first, and the reason that was last recorded."""

    pods: dict[str, _Waiting] = field(default_factory=dict)
    fresh: list[_Waiting] = field(default_factory=list)
    recorded: str = ""

    def urgency(self) -> tuple[int, int]:
        """Sorts the groups by their first pod."""
        first = next(iter(self.pods.values()))
        return -first.priority, first.order


@dataclass
class _Node:
    """What the pods bound to a node ask for, by uid."""

    pods: dict[str, tuple[dict[str, float], Key, int]] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)


class Scheduler:
    """Binds every pod of the registry that names the default scheduler."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store
        self._recorder = Recorder(self._store, "default-scheduler")
        self._waiting: dict[str, str] = {}  # uid -> group
        self._groups: dict[str, _Group] = {}
        self._nodes: dict[str, _Node] = {}
        self._order = 0
        self._handle: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin to listen. Needs a running event loop."""
        self._store.listen("pods", self._pod_changed)
        self._store.listen("nodes", lambda _: self._soon())

    def stop(self) -> None:
        """Schedule nothing more."""
        if self._handle:
            self._handle.cancel()

    def _soon(self) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._pass)

    def _pod_changed(self, change: Change) -> None:
        pod = change.stored.obj
        meta, spec = pod["metadata"], pod["spec"]
        uid: str = meta["uid"]
        over = change.kind == "DELETED" or has_ended(pod)
        node = spec.get("nodeName")
        if node:
            self._forget(uid)
            known = self._nodes.setdefault(node, _Node())
            if over:
                taken = known.pods.pop(uid, None)
                if taken:
                    known.used.subtract(taken[0])
                    self._soon()
            elif uid not in known.pods:
                requests = pod_requests(spec)
                known.pods[uid] = (requests, key_of(pod), spec.get("priority", 0))
                known.used.update(requests)
        elif over or meta.get("deletionTimestamp"):
            self._forget(uid)
        elif uid not in self._waiting and spec.get("schedulerName") == "default-scheduler":
            self._order += 1
            requests = pod_requests(spec)
            priority = spec.get("priority", 0)
            name = f"{sorted(requests.items())}{spec.get('nodeSelector')}{spec.get('tolerations')}{priority}"
            waiting = _Waiting(uid, key_of(pod), priority, self._order, requests)
            group = self._groups.setdefault(name, _Group())
            group.pods[uid] = waiting
            group.fresh.append(waiting)
            self._waiting[uid] = name
            self._soon()

    def _forget(self, uid: str) -> None:
        name = self._waiting.pop(uid, None)
        if name is not None:
            self._groups[name].pods.pop(uid, None)
            if not self._groups[name].pods:
                del self._groups[name]

    def _pass(self) -> None:
        """Bind what fits, most urgent first; a group whose first pod does not fit is passed over whole."""
        self._handle = None
        nodes = [stored.obj for stored in self._store.all("nodes")]
        stuck: set[str] = set()
        while open_groups := [name for name in self._groups if name not in stuck]:
            name = min(open_groups, key=lambda name: self._groups[name].urgency())
            group = self._groups[name]
            waiting = next(iter(group.pods.values()))
            pod = self._store.get("pods", *waiting.key)
            if pod is None or pod["metadata"]["uid"] != waiting.uid:
                self._forget(waiting.uid)
                continue
            chosen, why = self._choose(pod, waiting, nodes)
            if chosen:
                self._bind(pod, chosen)
                continue
            stuck.add(name)
            if self._preempt(pod, waiting, nodes, why, group):
                continue
            self._record_all(group, f"{why} {_NO_CLAIMS}{self._no_preemption(waiting, nodes)}")

    def _record_all(self, group: _Group, why: str) -> None:
        """Record the reason for those of which it is not recorded yet."""
        unaware = group.fresh if group.recorded == why else list(group.pods.values())
        group.recorded, group.fresh = why, []
        for waiting in unaware:
            pod = self._store.get("pods", *waiting.key)
            if waiting.uid in group.pods and pod is not None and pod["metadata"]["uid"] == waiting.uid:
                self._record(pod, why)

    def _choose(self, pod: Obj, waiting: _Waiting, nodes: list[Obj]) -> tuple[str, str]:
        reasons: Counter[str] = Counter()
        for node in nodes:
            found = self._obstacles(pod["spec"], waiting.requests, node)
            if not found:
                return node["metadata"]["name"], ""
            reasons.update(found)
        total = len(nodes)
        if not total:
            return "", "no nodes available to schedule pods."
        parts = ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items()))
        return "", f"0/{total} nodes are available: {parts}."

    def _obstacles(self, spec: Obj, requests: Mapping[str, float], node: Obj) -> list[str]:
        fixed = fixed_obstacle(spec, node)
        if fixed:
            return [fixed]
        used = self._nodes.get(node["metadata"]["name"], _Node()).used
        return [f"Insufficient {name}" for name in short_of(requests, used, node)]

    def _bind(self, pod: Obj, node: str) -> None:
        meta = pod["metadata"]
        status = with_condition(pod["status"], new_condition("PodScheduled", "True"))
        status.pop("nominatedNodeName", None)
        bound = self._registry.set_status(PODS, pod, status, spec={**pod["spec"], "nodeName": node})
        where = f"{meta['namespace']}/{meta['name']}"
        self._recorder.scheduling(bound, "Normal", "Scheduled", f"Successfully assigned {where} to {node}", "Binding")

    def _record(self, pod: Obj, why: str, nominated: str = "") -> None:
        condition = new_condition("PodScheduled", "False", "Unschedulable", why)
        condition["observedGeneration"] = pod["metadata"].get("generation", 1)
        status = {**pod["status"], "conditions": [condition]}
        if nominated:
            status["nominatedNodeName"] = nominated
        self._recorder.scheduling(pod, "Warning", "FailedScheduling", why, "Scheduling")
        self._registry.set_status(PODS, pod, status)

    def _no_preemption(self, waiting: _Waiting, nodes: list[Obj]) -> str:
        useless = 0
        for node in nodes:
            pod = self._store.get("pods", *waiting.key)
            if short_of(waiting.requests, {}, node) or (pod is not None and fixed_obstacle(pod["spec"], node)):
                useless += 1
        parts = []
        if len(nodes) - useless:
            parts.append(f"{len(nodes) - useless} No preemption victims found for incoming pod")
        if useless:
            parts.append(f"{useless} Preemption is not helpful for scheduling")
        return f"0/{len(nodes)} nodes are available: {', '.join(parts)}."

    def _preempt(self, pod: Obj, waiting: _Waiting, nodes: list[Obj], why: str, group: _Group) -> bool:
        """Make room on the first node where pods of lower priority suffice; True when that is under way."""
        for node in nodes:
            name = node["metadata"]["name"]
            known = self._nodes.get(name)
            if known is None or fixed_obstacle(pod["spec"], node):
                continue
            lower = sorted((p[2], uid) for uid, p in known.pods.items() if p[2] < waiting.priority)
            used = Counter(known.used)
            victims: list[str] = []
            for _, uid in lower:
                victims.append(uid)
                used.subtract(known.pods[uid][0])
                if not short_of(waiting.requests, used, node):
                    if group.recorded != why:
                        group.recorded = why
                        self._record(pod, why, nominated=name)
                    for victim in victims:
                        self._evict(known.pods[victim][1], pod, name)
                    return True
        return False

    def _evict(self, key: Key, preemptor: Obj, node: str) -> None:
        victim = self._store.get("pods", *key)
        if victim is None or victim["metadata"].get("deletionTimestamp"):
            return
        self._registry.add_disruption(victim, "PreemptionByScheduler", _VICTIM_MESSAGE)
        uid = preemptor["metadata"]["uid"]
        text = f"Preempted by pod {uid} on node {node}"
        self._recorder.scheduling(victim, "Normal", "Preempted", text, "Preempting")
        self._registry.delete(PODS, *key, DeleteOptions())
