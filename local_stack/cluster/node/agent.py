"""The node agent: what a kubelet is to a node. One worker for each pod bound to it, one watch over their memory.

A lost node stops writing statuses and reading deletions; its processes go on or die as the test asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from pathlib import Path

from local_stack.cluster.node.images import Images
from local_stack.cluster.node.kubelet import Waits
from local_stack.cluster.node.objects import (
    UNREACHABLE,
    new_node,
    ready_condition,
    toleration_seconds,
)
from local_stack.cluster.node.pod_status import PodState
from local_stack.cluster.node.pod_worker import PodWorker
from local_stack.cluster.node.processes import Undertaker, group_memory, proportional_memory
from local_stack.cluster.registry.errors import ApiError
from local_stack.cluster.registry.events import Recorder
from local_stack.cluster.registry.objects import Key, Obj, find_condition, has_ended, key_of, now_stamp, with_condition
from local_stack.cluster.registry.resources import NODES, PODS
from local_stack.cluster.registry.rules import DeleteOptions
from local_stack.cluster.registry.store import Change
from local_stack.cluster.registry.writes import Registry

_MEMORY_PERIOD = 0.1  # seconds between looks at the containers' memory


class NodeAgent:
    """One node named `name` with `gpus` GPUs; pods' folders lie under `folder`. Times are in seconds."""

    def __init__(
        self,
        registry: Registry,
        images: Images,
        undertaker: Undertaker,
        waits: Waits,
        *,
        name: str,
        gpus: int,
        folder: Path,
    ) -> None:
        self.registry = registry
        self.store = registry.store
        self.images = images
        self.undertaker = undertaker
        self.name = name
        self._gpus = gpus
        self.waits = waits
        self.claims = folder / "claims"
        self.answering = asyncio.Event()
        self.answering.set()
        self._folder = folder / "pods"
        self._recorder = Recorder(self.store, "kubelet", name)
        self._workers: dict[str, PodWorker] = {}
        self._late: dict[str, tuple[Key, PodState]] = {}
        self._rejections: deque[tuple[str, str]] = deque()
        self._addresses = 1
        self._tasks: list[asyncio.Task[None]] = []
        self._evictions: list[asyncio.TimerHandle] = []
        registry.create(NODES, "", new_node(name, gpus))

    def start(self) -> None:
        """Begin to listen. Needs a running event loop."""
        self.store.listen("pods", self._pod_changed)
        for plural in ("secrets", "configmaps"):
            self.store.listen(plural, functools.partial(self._source_changed, plural))
        self._tasks.append(asyncio.get_running_loop().create_task(self._watch_memory()))

    async def stop(self) -> None:
        """Kill every container and forget every pod."""
        for task in self._tasks:
            task.cancel()
        for timer in self._evictions:
            timer.cancel()
        for worker in self._workers.values():
            worker.vanish(keep_folder=True)

    # What the pods' workers use

    def event(self, pod: Obj, kind: str, reason: str, message: str, *, part: str = "") -> None:
        """An Event of this kubelet; none while the node is lost."""
        if self.answering.is_set():
            self._recorder.record(pod, kind, reason, message, part=part)

    def write_status(self, key: Key, uid: str, state: PodState) -> None:
        """Write a pod's state on its newest version; when the node answers again, if it is lost."""
        if not self.answering.is_set():
            self._late[uid] = (key, state)
            return
        pod = self._pod(key, uid)
        if pod is not None:
            with contextlib.suppress(ApiError):
                self.registry.set_status(PODS, pod, state.render(pod))

    def _pod(self, key: Key, uid: str) -> Obj | None:
        """The pod as it is now; None when it is gone, or another of its name is there."""
        pod = self.store.get("pods", *key)
        return pod if pod is not None and pod["metadata"]["uid"] == uid else None

    def pods(self) -> list[Obj]:
        """Those on this node, ended or not, as they are now."""
        there = (self._pod(worker.key, worker.uid) for worker in self._workers.values())
        return [pod for pod in there if pod is not None]

    def remove_object(self, key: Key, uid: str) -> None:
        """Remove a deleted pod's object for good."""
        with contextlib.suppress(ApiError):
            self.registry.delete(PODS, *key, DeleteOptions(grace=0, uid=uid))

    def take_rejection(self) -> tuple[str, str] | None:
        """(reason, message) when the next pod is to be refused on this node."""
        return self._rejections.popleft() if self._rejections else None

    def next_address(self) -> str:
        """An address for a pod."""
        self._addresses += 1
        return f"10.88.{self._addresses >> 8 & 255}.{self._addresses & 255}"

    # What happens to pods

    def _pod_changed(self, change: Change) -> None:
        pod = change.stored.obj
        meta = pod["metadata"]
        if pod["spec"].get("nodeName") != self.name:
            return
        worker = self._workers.get(meta["uid"])
        if change.kind == "DELETED":
            if worker is not None and self.answering.is_set():
                self._forget(worker)
            return
        if not self.answering.is_set():
            return
        if worker is None:
            self._adopt(pod)
        else:
            worker.stop_if_deleted(pod)

    def _source_changed(self, plural: str, change: Change) -> None:
        if change.kind != "DELETED":
            meta = change.stored.obj["metadata"]
            for worker in self._workers.values():
                worker.source_changed(plural, meta["namespace"], meta["name"])

    def _adopt(self, pod: Obj) -> None:
        meta = pod["metadata"]
        if has_ended(pod):
            return
        home = self._folder / f"{meta['namespace']}_{meta['name']}_{meta['uid'][:8]}"
        worker = self._workers[meta["uid"]] = PodWorker(self, pod, home)
        worker.stop_if_deleted(pod)

    def _forget(self, worker: PodWorker) -> None:
        self._workers.pop(worker.uid, None)
        self._late.pop(worker.uid, None)
        worker.vanish()

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(_MEMORY_PERIOD)
            limits = {
                container.process.pid: (container, container.memory_limit)
                for worker in self._workers.values()
                for container in worker.containers
                if container.process is not None and container.memory_limit
            }
            if not limits:
                continue
            for group, used in group_memory(set(limits)).items():
                container, limit = limits[group]
                if used > limit and proportional_memory(group) > limit:
                    container.kill(out_of_memory=True)

    # Faults on demand

    def log_path(self, uid: str, container: str) -> Path | None:
        """Where a pod's log lies, if the pod is known here and its node answers."""
        worker = self._workers.get(uid)
        return worker.home / "logs" / f"{container}.log" if worker else None

    def reject_next(self, reason: str, message: str, count: int) -> None:
        """Refuse the next pods bound to this node (reason such as UnexpectedAdmissionError)."""
        self._rejections.extend([(reason, message)] * count)

    def evict(self, pod: Obj, reason: str, message: str) -> None:
        """The kubelet ends a pod: phase Failed with this reason (Evicted, Terminated)."""
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is None:
            return
        self._recorder.record(pod, "Warning", reason, message)
        self.registry.add_disruption(pod, "TerminationByKubelet", message)
        worker.fail(reason, message)

    def lose(self, *, kill: bool, evict_after: float | None) -> None:
        """The node stops answering. Its pods are evicted after their toleration, or `evict_after` seconds."""
        if not self.answering.is_set():
            return
        self.answering.clear()
        self._set_ready("Unknown")
        controller = Recorder(self.store, "node-controller")
        loop = asyncio.get_running_loop()
        for worker in list(self._workers.values()):
            if kill:
                worker.kill_all()
            pod = self._pod(worker.key, worker.uid)
            if pod is None or has_ended(pod):
                continue
            controller.record(pod, "Warning", "NodeNotReady", "Node is not ready")
            if ready := find_condition(pod["status"], "Ready"):
                self.registry.set_status(PODS, pod, with_condition(pod["status"], {**ready, "status": "False"}))
            wait = toleration_seconds(pod) if evict_after is None else evict_after
            if wait is not None:
                self._evictions.append(loop.call_later(wait, self._taint_evict, worker))

    def _taint_evict(self, worker: PodWorker) -> None:
        pod = self._pod(worker.key, worker.uid)
        if pod is None or self.answering.is_set():
            return
        self._record_taint(pod, "Marking for deletion Pod")
        self.registry.add_disruption(pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
        with contextlib.suppress(ApiError):
            self.registry.delete(PODS, *worker.key, DeleteOptions(uid=worker.uid))

    def come_back(self) -> None:
        """The node answers again: statuses are written, deletions carried out."""
        if self.answering.is_set():
            return
        for timer in self._evictions:
            timer.cancel()
        self._evictions.clear()
        self.answering.set()
        if self.store.find("nodes", "", self.name) is None:
            self.registry.create(NODES, "", new_node(self.name, self._gpus))
        self._set_ready("True")
        for uid, worker in list(self._workers.items()):
            self._catch_up(worker, self._pod(worker.key, uid))
        late, self._late = self._late, {}
        for uid, (key, state) in late.items():
            self.write_status(key, uid, state)
        for stored in self.store.all("pods"):
            bound = stored.obj["spec"].get("nodeName") == self.name
            if bound and stored.obj["metadata"]["uid"] not in self._workers:
                self._adopt(stored.obj)

    def _catch_up(self, worker: PodWorker, pod: Obj | None) -> None:
        """What its node did not see: the pod is gone, or is to go."""
        if pod is None:
            self._forget(worker)
            return
        disruption = find_condition(pod["status"], "DisruptionTarget")
        by_taint = disruption is not None and disruption["reason"] == "DeletionByTaintManager"
        if by_taint and pod["metadata"].get("deletionTimestamp"):
            self._record_taint(pod, "Cancelling deletion of Pod")
        worker.stop_if_deleted(pod)

    def _record_taint(self, pod: Obj, what: str) -> None:
        taints = Recorder(self.store, "taint-eviction-controller")
        taints.record(pod, "Normal", "TaintManagerEviction", f"{what} {'/'.join(key_of(pod))}")

    def remove_node(self, *, kill: bool) -> None:
        """The node object is deleted; the pod garbage collector fails and removes its pods.

        The node does not notice: unless `kill`, its processes go on until it returns.
        """
        self.answering.clear()
        with contextlib.suppress(ApiError):
            self.registry.delete(NODES, "", self.name, DeleteOptions())
        for worker in list(self._workers.values()):
            pod = self._pod(worker.key, worker.uid)
            if pod is not None:
                # One that had ended is not disrupted any more (gc_controller.go, markFailedAndDeletePodWithCondition).
                if not has_ended(pod):
                    self.registry.add_disruption(pod, "DeletionByPodGC", "PodGC: node no longer exists")
                    pod = self.registry.get(PODS, *worker.key)
                    self.registry.set_status(PODS, pod, {**pod["status"], "phase": "Failed"})
                self.remove_object(worker.key, worker.uid)
            if kill:
                self._forget(worker)

    def set_gpus(self, gpus: int) -> None:
        """Change the node's capacity."""
        node = self.registry.get(NODES, "", self.name)
        self._gpus = gpus
        status = node["status"]
        capacity = {**status["capacity"], "nvidia.com/gpu": str(gpus)}
        self.registry.set_status(NODES, node, {**status, "capacity": capacity, "allocatable": capacity})

    def _set_ready(self, value: str) -> None:
        node = self.registry.get(NODES, "", self.name)
        spec = {key: item for key, item in node["spec"].items() if key != "taints"}
        if value != "True":
            spec["taints"] = [
                {"key": UNREACHABLE, "effect": effect, "timeAdded": now_stamp()}
                for effect in ("NoSchedule", "NoExecute")
            ]
        self.registry.set_status(NODES, node, with_condition(node["status"], ready_condition(value)), spec=spec)
