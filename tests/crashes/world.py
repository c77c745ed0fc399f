"""A world with real semantics and a virtual clock, in which the dispatcher's real stages run.

Queue: visibility time-outs and pop receipts that change. Cluster: 409 on a taken name or a stale resource version,
finalizers, a Job controller and trainers. Portal: no compare-and-set. Every call of a dispatcher passes through
`World.call`, where a director may crash it, fail it before or after it took effect, or let another one go first.
"""

from __future__ import annotations

import copy
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dispatcher import names, objects
from dispatcher.azure_queue import QueueMessage, QueueUnavailable
from dispatcher.kubernetes_jobs import ClusterUnavailable, Listing, ObjectConflict, ObjectNotFound
from dispatcher.objects import KubeObject
from portal_client.errors import PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus

T = TypeVar("T")
EPOCH = 1_795_000_000.0


class Crash(BaseException):
    """The process is gone: nothing of it runs any more, not even an `except Exception`."""


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Message:
    id: str
    text: str
    visible_at: float
    receipt: int = 0
    deliveries: int = 0


@dataclass
class Model:
    status: ProcessingStatus
    history: list[tuple[str, ProcessingStatus, str]] = field(default_factory=list)


Director = Callable[[str, str, str], None]
"""(process, call, "before" or "after"): may raise Crash, or Fail to make the call fail."""


class Fail(Exception):
    """The call fails as an outage does; raised "after", it has taken effect all the same."""


class World:
    """All that survives a process. `trainers`: model id → what its pods do, attempt by attempt."""

    def __init__(self, trainers: Mapping[str, list[str]] | None = None) -> None:
        self.now = 1000.0
        self.director: Director = lambda process, call, side: None
        self.trainers = {model: list(script) for model, script in (trainers or {}).items()}
        self.messages: dict[str, Message] = {}
        self.poison: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.models: dict[str, Model] = {}
        self.launched: dict[str, str] = {}  # message id → uid of the Job made for it
        self.put_attempted: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self._numbers = itertools.count(1)

    # Set-up and the portal's users

    def enqueue(self, model_id: str, **fields: Any) -> str:
        message_id = f"message-{next(self._numbers)}"
        body = {"task": "train", "model_container_name": f"model-{model_id}", **fields}
        self.messages[message_id] = Message(message_id, json.dumps(body), self.now)
        return message_id

    def set_status(self, model_id: str, status: ProcessingStatus) -> None:
        """What a user does at the portal."""
        model = self.models.setdefault(model_id, Model(status))
        model.status = status
        model.history.append(("user", status, ""))

    # The dispatcher's calls

    def call(self, process: str, name: str, action: Callable[[], T], fails: Callable[[str], Exception]) -> T:
        if name != "cluster.list":  # to die there is to die between two ticks
            self.calls.append((process, name))
        try:
            self.director(process, name, "before")
            result = action()
            self.director(process, name, "after")
        except Fail as failure:
            raise fails(str(failure)) from None
        return result

    # Time: the Job controller, the kubelet and the trainers

    def advance(self, seconds: float) -> None:
        """Let time pass in steps that none of the short reactions of a cluster is lost in."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 15.0)
            self.settle()

    def settle(self) -> None:
        for job in list(self.jobs.values()):
            self._control(job)
        for pod in list(self.pods.values()):
            self._train(pod)
        for job in list(self.jobs.values()):
            self._control(job)

    def _control(self, job: dict[str, Any]) -> None:  # noqa: PLR0912 - a controller is a row of cases
        name = objects.name_of(job)
        pods = [p for p in self.pods.values() if objects.owner_uid(p) == objects.uid_of(job)]
        alive = [p for p in pods if not objects.pod_is_over(p)]
        if objects.is_deleting(job):
            if not job["metadata"].get("finalizers"):
                self._remove(job)
            return
        if objects.is_finished(job):
            ttl = job["spec"].get("ttlSecondsAfterFinished")
            if ttl is not None and self.now >= job["_finished_at"] + ttl:
                self.delete_job(name)
            return
        if objects.is_suspended(job):
            for pod in alive:
                self.pods.pop(objects.uid_of(pod))
            return
        job["_started_at"] = job.get("_started_at", self.now)
        if self.now > job["_started_at"] + job["spec"]["activeDeadlineSeconds"]:
            for pod in alive:
                self._end_pod(pod, 143, None)
            self._finish(job, "Failed", "DeadlineExceeded")
        elif any(objects.pod_phase(p) == "Succeeded" for p in pods):
            self._finish(job, "Complete", "CompletionsReached")
        else:
            failed = [p for p in pods if objects.pod_phase(p) == "Failed"]
            if any(_exit_code(p) < 128 for p in failed):
                self._finish(job, "Failed", "PodFailurePolicy")
            elif len(failed) > job["spec"].get("backoffLimit", 1):
                self._finish(job, "Failed", "BackoffLimitExceeded")
            elif not alive:
                self._create_pod(job)

    def _create_pod(self, job: dict[str, Any]) -> None:
        model_id = objects.model_id_of(job)
        if model_id not in self.put_attempted:
            raise Violation(f"a pod of model {model_id} exists before Processing was attempted")
        others = [p for p in self.pods.values() if objects.model_id_of(p) == model_id and not objects.pod_is_over(p)]
        if others:
            raise Violation(f"two pods of model {model_id} at once")
        uid = f"pod-{next(self._numbers)}"
        self.pods[uid] = {
            "metadata": {
                "name": uid,
                "uid": uid,
                "resourceVersion": str(next(self._numbers)),
                "creationTimestamp": objects.rfc3339(self.epoch()),
                "labels": {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: model_id},
                "ownerReferences": [{"kind": "Job", "controller": True, "uid": objects.uid_of(job)}],
            },
            "spec": {"containers": [{"name": "trainer"}]},
            "status": {"phase": "Pending"},
        }

    def _train(self, pod: dict[str, Any]) -> None:
        if objects.pod_is_over(pod):
            return
        if objects.is_deleting(pod):
            self._end_pod(pod, 143, None)
            return
        if "running" not in objects.trainer_state(pod):
            pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": {"running": {}}}]}
            self._touch(pod)
            return
        model_id = objects.model_id_of(pod)
        status = self.models[model_id].status
        if status is ProcessingStatus.COMPLETED:
            self._end_pod(pod, 0, {"message": "Model training completed successfully", "code": "Completed"})
            return
        if status is ProcessingStatus.FAILED:
            self._end_pod(pod, 83, {"message": "The portal moved the model on", "code": "Cancelled"})
            return
        script = self.trainers.get(model_id) or ["complete"]
        act = script.pop(0) if len(script) > 1 else script[0]
        if act == "complete":
            self._trainer_says(model_id, ProcessingStatus.COMPLETED, "Model training completed successfully")
            self._end_pod(pod, 0, {"message": "Model training completed successfully", "code": "Completed"})
        elif act == "complete-unheard":  # the portal was out of reach for the trainer
            self._end_pod(pod, 0, {"message": "Model training completed successfully", "code": "Completed"})
        elif act == "invalid":
            self._trainer_says(model_id, ProcessingStatus.FAILED, "Invalid dataset: train.csv: empty")
            self._end_pod(pod, 65, {"message": "Invalid dataset: train.csv: empty", "code": "DatasetInvalid"})
        elif act == "retry":
            self._end_pod(pod, 201, {"message": "Storage is out of reach", "code": "StorageUnavailable"})
        elif act == "killed":
            self._end_pod(pod, 137, None)
        elif act != "hang":
            raise ValueError(act)

    def _trainer_says(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        model = self.models[model_id]
        model.status = status
        model.history.append(("trainer", status, message))

    def _end_pod(self, pod: dict[str, Any], code: int, word: Mapping[str, str] | None) -> None:
        ended: dict[str, Any] = {"exitCode": code, "finishedAt": objects.rfc3339(self.epoch())}
        if word is not None:
            ended["message"] = json.dumps(word)
        pod["status"] = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
        }
        self._touch(pod)

    def _finish(self, job: dict[str, Any], kind: str, reason: str) -> None:
        job["_finished_at"] = self.now
        job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason}]}
        self._touch(job)

    def _remove(self, job: dict[str, Any]) -> None:
        self.jobs.pop(objects.name_of(job), None)
        for uid in [u for u, p in self.pods.items() if objects.owner_uid(p) == objects.uid_of(job)]:
            del self.pods[uid]

    def _touch(self, item: dict[str, Any]) -> None:
        item["metadata"]["resourceVersion"] = str(next(self._numbers))

    def delete_job(self, name: str) -> None:
        """kubectl delete job, or a dispatcher's call."""
        job = self.jobs[name]
        if not objects.is_deleting(job):
            job["metadata"]["deletionTimestamp"] = objects.rfc3339(self.epoch())
            self._touch(job)
        if not job["metadata"].get("finalizers"):
            self._remove(job)

    def epoch(self) -> float:
        return EPOCH + self.now


class FakeQueue:
    def __init__(self, world: World, process: str) -> None:
        self._world = world
        self._process = process

    def _call(self, name: str, action: Callable[[], T]) -> T:
        return self._world.call(self._process, f"queue.{name}", action, QueueUnavailable)

    def receive(self, limit: int, visibility_timeout: float) -> list[QueueMessage]:
        def action() -> list[QueueMessage]:
            found = []
            for message in list(self._world.messages.values())[:limit]:
                if message.visible_at <= self._world.now:
                    message.visible_at = self._world.now + visibility_timeout
                    message.receipt += 1
                    message.deliveries += 1
                    found.append(_Received(self._world, message))
            return list(found)

        return self._call("receive", action)

    def delete(self, message: QueueMessage) -> bool:
        def action() -> bool:
            held = self._held(message)
            if held is None:
                return False
            self._check_deletion(held)
            del self._world.messages[held.id]
            return True

        return self._call("delete", action)

    def _check_deletion(self, message: Message) -> None:
        world = self._world
        model_id = json.loads(message.text).get("model_container_name", "model-").removeprefix("model-")
        poisoned = any(json.loads(entry)["message_id"] == message.id for entry in world.poison)
        refused = model_id in world.models and not world.models[model_id].status.may_start
        other = f"model-{model_id}" in world.jobs
        if not (poisoned or message.id in world.launched or refused or other):
            raise Violation(f"{message.id} was deleted without a Job, a refusal or a poison entry")

    def release(self, message: QueueMessage, after: float) -> bool:
        def action() -> bool:
            held = self._held(message)
            if held is None:
                return False
            held.visible_at = self._world.now + after
            held.receipt += 1
            message.pop_receipt = str(held.receipt)
            return True

        return self._call("release", action)

    def send(self, text: str) -> str:
        def action() -> str:
            self._world.poison.append(text)
            return "poison"

        return self._call("poison", action)

    def depth(self) -> int:
        return self._call("depth", lambda: len(self._world.messages))

    def _held(self, message: QueueMessage) -> Message | None:
        held = self._world.messages.get(message.id)
        return held if held is not None and str(held.receipt) == message.pop_receipt else None


class _Received(QueueMessage):
    def __init__(self, world: World, message: Message) -> None:
        super().__init__(message.id, message.text, message.deliveries, EPOCH, str(message.receipt), message.visible_at)
        self._world = world

    def remaining(self) -> float:
        return self.hidden_until - self._world.now


class FakeCluster:
    def __init__(self, world: World, process: str) -> None:
        self._world = world
        self._process = process

    def _call(self, name: str, action: Callable[[], T]) -> T:
        return self._world.call(self._process, f"cluster.{name}", action, ClusterUnavailable)

    def create_job(self, job: Mapping[str, Any], *, dry_run: bool = False) -> KubeObject:
        def action() -> KubeObject:
            name = objects.name_of(job)
            if name in self._world.jobs:
                raise ObjectConflict(f"{name} already exists")
            made = copy.deepcopy(dict(job))
            number = next(self._world._numbers)
            made["metadata"] |= {"uid": f"job-{number}", "resourceVersion": str(number)}
            made["metadata"]["creationTimestamp"] = objects.rfc3339(self._world.epoch())
            made["status"] = {}
            self._world.jobs[name] = made
            self._world.launched[made["metadata"]["annotations"][names.MESSAGE_ID]] = f"job-{number}"
            return copy.deepcopy(made)

        return self._call("create", action)

    def get_job(self, name: str) -> KubeObject | None:
        return self._call("get", lambda: copy.deepcopy(self._world.jobs.get(name)))

    def patch_job(self, name: str, patch: Mapping[str, Any]) -> KubeObject:
        def action() -> KubeObject:
            job = self._world.jobs.get(name)
            if job is None:
                raise ObjectNotFound(name)
            wanted = dict(patch.get("metadata") or {})
            for key in ("uid", "resourceVersion"):
                if wanted.pop(key, job["metadata"][key]) != job["metadata"][key]:
                    raise ObjectConflict(f"{name}: stale {key}")
            _merge(job, {**patch, "metadata": wanted})
            self._world._touch(job)
            if objects.is_deleting(job) and not job["metadata"].get("finalizers"):
                self._world._remove(job)
            return copy.deepcopy(job)

        return self._call("patch", action)

    def delete_job(self, name: str, uid: str) -> None:
        def action() -> None:
            job = self._world.jobs.get(name)
            if job is None:
                raise ObjectNotFound(name)
            if objects.uid_of(job) != uid:
                raise ObjectConflict(name)
            self._world.delete_job(name)

        self._call("delete", action)

    def list_jobs(self, selector: str) -> Listing:
        return self._call("list", lambda: Listing(copy.deepcopy(list(self._world.jobs.values())), "1"))

    def list_pods(self, selector: str) -> Listing:
        return self._call("list", lambda: Listing(copy.deepcopy(list(self._world.pods.values())), "1"))

    def delete_pod(self, name: str, uid: str) -> None:
        def action() -> None:
            pod = self._world.pods.get(uid)
            if pod is None:
                raise ObjectNotFound(name)
            pod["metadata"]["deletionTimestamp"] = objects.rfc3339(self._world.epoch() + 30)
            self._world._touch(pod)

        self._call("delete-pod", action)

    def list_events(self, uid: str) -> list[KubeObject]:
        return self._call("events", list)

    def create_event(self, event: Mapping[str, Any]) -> None:
        self._call("event", lambda: None)

    def watch(self, kind: str, selector: str, resource_version: str, seconds: float) -> Iterator[KubeObject]:
        return iter(())


class FakePortal:
    def __init__(self, world: World, process: str) -> None:
        self._world = world
        self._process = process

    def _call(self, name: str, action: Callable[[], T]) -> T:
        def fails(text: str) -> Exception:
            return PortalUnavailable(text or "out of reach", ambiguous=True)

        return self._world.call(self._process, f"portal.{name}", action, fails)

    def get_model_status(self, model_id: str) -> ModelStatus:
        return self._call("get", lambda: ModelStatus(self._world.models[model_id].status, ""))

    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        self._world.put_attempted.add(model_id)

        def action() -> None:
            model = self._world.models[model_id]
            if model.status.is_terminal and model.status is not status:
                raise Violation(f"model {model_id}: the dispatcher covers {model.status.title} with {status.title}")
            model.status = status
            model.history.append((self._process, status, message))

        self._call("put", action)


class VirtualEvent(threading.Event):
    """A stop event whose waits pass virtual time."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wait(self, timeout: float | None = None) -> bool:
        self._world.advance(timeout or 0.0)
        return self.is_set()


def _merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        elif value is None:
            target.pop(key, None)
        else:
            target[key] = value


def _exit_code(pod: KubeObject) -> int:
    return int((objects.trainer_state(pod).get("terminated") or {}).get("exitCode", 255))
