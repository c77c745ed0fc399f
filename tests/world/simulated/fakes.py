"""The three ports of one process into the world."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from dispatcher.cluster import names
from dispatcher.cluster.errors import (
    ClusterUnavailable,
    Item,
    Listing,
    ObjectConflict,
    ObjectNotFound,
    RequestDenied,
    WatchEvent,
)
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event, KubeObject
from dispatcher.cluster.pods import Pod
from dispatcher.queue.messages import QueueMessage, QueueUnavailable
from dispatcher.storage.errors import StorageError
from portal_client.errors import ModelUnknown, PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.world import json_objects as objects
from tests.world.json_objects import JsonObject
from tests.world.simulated.faults import Violation
from tests.world.simulated.records import JobNote, Message, copied
from tests.world.simulated.world import EPOCH, World
from training_common.times import rfc3339

T = TypeVar("T")


class FakeQueue:
    """Visibility time-outs, and a pop receipt that every receive and update changes."""

    def __init__(self, world: World, process: str, poison: bool = False) -> None:
        self._world = world
        self._process = process
        self._poison = poison

    def _call(self, name: str, action: Callable[[], T]) -> T:
        return self._world.call(self._process, f"queue.{name}", action, QueueUnavailable)

    def receive(self, limit: int, visibility_timeout: float) -> list[QueueMessage]:
        def action() -> list[QueueMessage]:
            visible = [m for m in self._world.messages.values() if m.visible_at <= self._world.now][:limit]
            for message in visible:
                message.visible_at = self._world.now + visibility_timeout
                message.receipt += 1
                message.deliveries += 1
                self._world.check_received(self._process, message)
            return [_Received(self._world, message) for message in visible]

        return self._call("receive", action)

    def delete(self, message: QueueMessage) -> bool:
        receipt = message.pop_receipt

        def action() -> bool:
            held = self._held(message.id, receipt)
            if held is None:
                return False
            self._world.check_deletion(self._process, held)
            del self._world.messages[held.id]
            return True

        return self._call("delete", action)

    def requeue(self, message: QueueMessage, after: float) -> bool:
        receipt = message.pop_receipt

        def action() -> bool:
            held = self._held(message.id, receipt)
            if held is None:
                return False
            held.visible_at = self._world.now + after
            held.receipt += 1
            message.pop_receipt = str(held.receipt)
            return True

        return self._call("requeue", action)

    def send(self, text: str) -> str:
        def action() -> str:
            self._world.poison.append(text)
            return "poison"

        return self._call("poison", action)

    def depth(self) -> int:
        return self._call("depth", lambda: len(self._world.messages))

    def try_rights(self) -> None:
        self._call("try", lambda: None)

    def _held(self, message_id: str, receipt: str) -> Message | None:
        held = self._world.messages.get(message_id)
        return held if held is not None and str(held.receipt) == receipt else None


class _Received(QueueMessage):
    def __init__(self, world: World, message: Message) -> None:
        queued_at = EPOCH + message.queued_at
        super().__init__(
            message.id, message.text, message.deliveries, queued_at, str(message.receipt), message.visible_at
        )
        self._world = world

    def remaining(self) -> float:
        return self.hidden_until - self._world.now


class FakeCluster:
    """409 for a taken name, a stale resource version and another uid; a merge patch."""

    def __init__(self, world: World, process: str) -> None:
        self._world = world
        self._process = process

    def _call(self, name: str, action: Callable[[], T]) -> T:
        return self._world.call(self._process, f"cluster.{name}", action, ClusterUnavailable)

    def create_job(self, job: Mapping[str, Any], *, dry_run: bool = False) -> Job:
        made = copied(dict(job))
        if dry_run:
            return self._call("dry-run", lambda: objects.job(made))

        def action() -> Job:
            world, name = self._world, objects.name_of(made)
            model_id = objects.model_id_of(made)
            if world.policy.get(model_id, 0):  # admission comes before the name is looked up
                world.policy[model_id] -= 1
                world.excuse(model_id)
                world.models[model_id].refused = True
                raise RequestDenied('admission webhook "policy" denied the request: not this one')
            if name in world.jobs:
                raise ObjectConflict(f"{name} already exists")
            uid = f"job-{next(world._numbers)}"
            made["metadata"] |= {"uid": uid, "creationTimestamp": rfc3339(world.epoch())}
            made["status"] = {}
            if nodes := world.nodes.get(model_id):
                made["spec"] |= {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
            world.notes[uid] = JobNote(model_id, len(world.calls), len(world.models[model_id].history))
            world.check_created(made)
            world.jobs[name] = made
            world.launched[objects.annotation(made, names.MESSAGE_ID) or ""] = uid
            world.touch("jobs", made, "ADDED")
            return objects.job(made)

        return self._call("create", action)

    def get_job(self, name: str) -> Job | None:
        def action() -> Job | None:
            job = self._world.jobs.get(name)
            return None if job is None else objects.job(job)

        return self._call("get", action)

    def get_environment(self, name: str) -> Mapping[str, str]:
        def action() -> Mapping[str, str]:
            containers = self._world.jobs[name]["spec"]["template"]["spec"]["containers"]
            return {entry["name"]: entry["value"] for entry in containers[0].get("env", ()) if "value" in entry}

        return self._call("get", action)

    def patch_job(self, name: str, patch: Mapping[str, Any]) -> Job:
        patch = copied(dict(patch))

        def action() -> Job:
            job = self._world.jobs.get(name)
            if job is None:
                raise ObjectNotFound(name)
            wanted = dict(patch.get("metadata") or {})
            for key in ("uid", "resourceVersion"):
                if wanted.pop(key, job["metadata"][key]) != job["metadata"][key]:
                    raise ObjectConflict(f"{name}: stale {key}")
            held = names.FINALIZER in (job["metadata"].get("finalizers") or ())
            kept = job["spec"].get("ttlSecondsAfterFinished") is None
            _merge(job, {**patch, "metadata": wanted})
            if held and names.FINALIZER not in (job["metadata"].get("finalizers") or ()):
                self._world.check_let_go(job, "the finalizer goes")
            if kept and job["spec"].get("ttlSecondsAfterFinished") is not None:
                self._world.check_let_go(job, "a TTL comes")
            self._world.touch("jobs", job)
            if objects.is_deleting(job) and not job["metadata"].get("finalizers"):
                self._world.remove_job(job)
            return objects.job(job)

        return self._call("patch", action)

    def delete_job(self, name: str, uid: str) -> None:
        def action() -> None:
            job = self._world.jobs.get(name)
            if job is None:
                raise ObjectNotFound(name)
            if objects.uid_of(job) != uid:
                raise ObjectConflict(name)
            self._world.check_stopped(job)
            self._world.delete_job(name, by_hand=False)

        self._call("delete", action)

    def apply_secret(self, secret: Mapping[str, Any]) -> None:
        made = copied(dict(secret))

        def action() -> None:
            self._world.keep_secret(made)

        self._call("secret", action)

    def create_network_policy(self, policy: Mapping[str, Any]) -> None:
        made = copied(dict(policy))

        def action() -> None:
            self._world.keep_network(made)

        self._call("network", action)

    def list_jobs(self, selector: str) -> Listing[Job]:
        return self._call("list", lambda: _listing(self._world.jobs, selector, Job))

    def list_pods(self, selector: str, fields: str = "") -> Listing[Pod]:
        key, _, uid = selector.partition("=")
        # A world of fifty thousand is not looked through for each Job.
        pods = self._world.pods if key != names.POD_OF else self._world.owned(uid)
        return self._call("list", lambda: _listing(pods, selector, Pod))

    def list_metadata(self, kind: str, selector: str, fields: str = "") -> Listing[KubeObject]:
        items = self._world.jobs if kind == "jobs" else self._world.pods
        return self._call("list", lambda: _listing(items, selector, KubeObject))

    def delete_pod(self, name: str, uid: str) -> None:
        def action() -> None:
            pod = self._world.pods.get(uid)
            if pod is None:
                raise ObjectNotFound(name)
            self._world.check_taken(pod)
            self._world.delete_pod(pod)

        self._call("delete-pod", action)

    def list_events(self, uid: str) -> list[Event]:
        return self._call("events", list)

    def create_event(self, event: Mapping[str, Any]) -> None:
        self._call("event", lambda: None)

    def watch(self, kind: str, selector: str, resource_version: str, seconds: float) -> Iterator[WatchEvent]:
        return iter(())  # the processes are fed from the world's log


class FakeStorage:
    """Signs as an identity does: each signature may need a call. A process knows the key of its start."""

    def __init__(self, world: World, process: str) -> None:
        self._world = world
        self._process = process
        self.signer = world.signing_key
        self.longest = world.signed_for

    def distrust(self) -> None:
        self.signer = self._world.signing_key

    def sas(self, container: str, *, write: bool, until: float) -> str:
        def fails(text: str) -> Exception:
            return StorageError(text or "no key", retryable=True)

        return self._world.call(
            self._process, "storage.sas", lambda: f"{container} {write} {until} {self.signer}", fails
        )


class FakePortal:
    """Two calls, and no compare-and-set."""

    def __init__(self, world: World, process: str, author: str = "") -> None:
        """author: for whom the process speaks, where that is not itself."""
        self._world = world
        self._process = process
        self._author = author or process
        # What was read for another is no knowledge of the process's own stages.
        self._reader = f"{process} for {author}" if author else process

    def _call(self, name: str, action: Callable[[], T], tried: Callable[[], None] = lambda: None) -> T:
        def fails(text: str) -> Exception:
            tried()
            return PortalUnavailable(text or "out of reach", ambiguous=True)

        return self._world.call(self._process, f"portal.{name}", action, fails)

    def get_model_status(self, model_id: str) -> ModelStatus:
        def action() -> ModelStatus:
            if model_id not in self._world.models:
                raise ModelUnknown(f"no model {model_id}", status_code=404)
            return ModelStatus(*self._world.look(self._reader, model_id))

        return self._call("get", action)

    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        world, seen = self._world, self._world.models[model_id].seen.get(self._reader)
        processing = status is ProcessingStatus.PROCESSING
        if not processing and not status.is_terminal:
            raise Violation(f"the dispatcher sends {status.title}")

        def tried() -> None:
            if processing:
                world.attempts_processing(model_id)

        def action() -> None:
            tried()
            if processing and world.denied:
                world.denied -= 1
                raise PortalUnavailable("not now")
            world.put(self._reader, seen, model_id, status, message, self._author)

        self._call("put", action, tried)


class VirtualEvent(threading.Event):
    """A stop event whose waits pass virtual time."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wait(self, timeout: float | None = None) -> bool:
        self._world.advance(timeout or 0.0)
        return self.is_set()


def _listing(items: Mapping[str, Any], selector: str, kind: type[Item]) -> Listing[Item]:
    found = [msgspec.convert(item, kind) for item in items.values() if selects(selector, item)]
    return Listing(iter([(found, "1")]))


def selects(selector: str, item: JsonObject) -> bool:
    """Terms: `key=value`, `key!=value`, `key`, `!key`."""

    def holds(term: str) -> bool:
        key, equals, value = term.partition("=")
        if equals:
            return (objects.label(item, key.rstrip("!")) == value) is not key.endswith("!")
        return (objects.label(item, key.lstrip("!")) is None) is key.startswith("!")

    return all(map(holds, selector.split(",")))


def _merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        elif value is None:
            target.pop(key, None)
        else:
            target[key] = value
