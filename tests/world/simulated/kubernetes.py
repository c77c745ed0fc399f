"""The cluster's side of the world: the API server's store, the Job controller, the kubelet, the trainers.

As Kubernetes 1.36 does it where the dispatcher can tell: conditions FailureTarget before Failed, counters, a deleted
Job's pods run on, its finalizer holds it, a deleted pod ends in its grace period. Every change is logged for watches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterForbidden, ObjectConflict
from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.json_objects import JsonObject
from tests.world.simulated.faults import Violation
from tests.world.simulated.records import JobNote, copied
from tests.world.simulated.teams import index_of
from tests.world.simulated.trainers import Trainers
from training_common.times import rfc3339

S = ProcessingStatus
# Seconds between a failed pod and the next (job_controller.go, DefaultJobPodFailureBackOff; it grows there).
_BACK_OFF = 10.0
Change = tuple[str, str, Any]
"""(jobs or pods, ADDED, MODIFIED or DELETED, what the watch tells of the object)"""


class Kubernetes(Trainers):
    """Mixed into the World, which has the clock, the portal and the checks."""

    now: float
    trainers: dict[str, list[str]]
    models: dict[str, Any]
    _numbers: Iterator[int]

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, JobNote] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.networks: dict[str, dict[str, Any]] = {}
        self.networks_from = 0.0  # until then the Role does not allow to make one
        self.log: list[Change] = []  # kept while somebody watches
        self.watching = False
        self.acts: dict[str, str] = {}  # pod uid → what it does
        self.begun: dict[str, int] = {}  # pod uid → the portal's history when it was made
        self.nodes: dict[str, int] = {}  # model → how many nodes its trainings have, where it is more than one
        self.published_by: set[str] = set()
        self.no_gpu: dict[str, float] = {}  # model → for how long its second pod finds no GPU
        self.waited: set[str] = set()  # models whose second pod has waited for one to the end
        self.sidecars: dict[str, str] = {}  # model → "ordinary" or "native": what runs beside its trainers
        self._watched: dict[str, Any] = {}  # by uid, in the state that watches know
        self._owned: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)  # a Job's uid → its pods by uid
        self._shown: dict[str, tuple[float, S | None]] = {}
        self._telling: dict[str, float] = {}
        self._began: set[str] = set()  # pods that have seen Processing

    def epoch(self) -> float:
        raise NotImplementedError

    def check_pod(self, job: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def excuse(self, model_id: str) -> None:
        raise NotImplementedError

    def blur(self, model_id: str) -> None:
        raise NotImplementedError

    # The store

    def touch(self, kind: str, item: dict[str, Any], change: str = "MODIFIED") -> None:
        if change != "DELETED":
            item["metadata"]["resourceVersion"] = str(next(self._numbers))
        if not self.watching:
            return
        seen, before = self._seen(kind, item), self._watched.pop(objects.uid_of(item), None)
        if kind == "jobs" and objects.label(item, names.REPORTED) is not None:
            # It leaves the selection: the API server tells of its state before that.
            if before is not None:
                self.log.append((kind, "DELETED", before))
            return
        if change != "DELETED":
            self._watched[objects.uid_of(item)] = seen
        self.log.append((kind, change, seen))

    def _seen(self, kind: str, item: dict[str, Any]) -> Any:
        """What a watch tells of its present state."""
        return copied(item)

    def watch(self) -> None:
        """Somebody lives by the log from now on: before there is anything that it would have to tell of."""
        assert self.watching or not (self.jobs or self.pods)
        self.watching = True

    def delete_job(self, name: str, by_hand: bool = True) -> None:
        """kubectl delete job (in the background); or the TTL controller, or a dispatcher's call."""
        job = self.jobs.get(name)
        if job is None:
            return
        if by_hand:
            self.excuse(objects.model_id_of(job))
        if not job["metadata"].get("finalizers"):
            self.remove_job(job)
        elif not objects.is_deleting(job):
            job["metadata"]["deletionTimestamp"] = self._time()
            self.touch("jobs", job)

    def remove_job(self, job: dict[str, Any]) -> None:
        """It is gone; its pods are garbage: what still runs is stopped first."""
        if self.jobs.pop(objects.name_of(job), None) is None:
            return
        self.touch("jobs", job, "DELETED")
        for pod in self._pods_of(job):
            self.delete_pod(pod)

    def delete_pod(self, pod: dict[str, Any], by_hand: bool = False) -> None:
        if by_hand:
            self.excuse(objects.model_id_of(pod))
        if objects.pod_is_over(pod):
            self._remove_pod(pod)
        elif not objects.is_deleting(pod):
            pod["metadata"]["deletionTimestamp"] = rfc3339(self.epoch() + 30)
            pod["metadata"]["deletionGracePeriodSeconds"] = 30
            self.touch("pods", pod)

    def _remove_pod(self, pod: dict[str, Any]) -> None:
        if self.pods.pop(objects.uid_of(pod), None) is None:
            return
        owned = self._owned[objects.owner_uid(pod) or ""]
        del owned[objects.uid_of(pod)]
        if not owned:
            del self._owned[objects.owner_uid(pod) or ""]
        self.touch("pods", pod, "DELETED")
        owner = self._owner(pod)
        if owner is not None and not objects.is_finished(owner) and _exit_code(pod) == 0:
            self.blur(objects.model_id_of(pod))  # a deleted Job has no other witness

    def owned(self, uid: str) -> Mapping[str, dict[str, Any]]:
        """By their uids the pods among which those of this Job are."""
        del uid
        return self.pods

    def _pods_of(self, job: JsonObject) -> list[dict[str, Any]]:
        return list(self._owned.get(objects.uid_of(job), {}).values())

    def _owner(self, pod: JsonObject) -> dict[str, Any] | None:
        """The Job that controls it, if that is still there."""
        uid = objects.owner_uid(pod) or ""
        job = self.jobs.get(f"model-{self.notes[uid].model_id}")
        return job if job is not None and objects.uid_of(job) == uid else None

    def _time(self) -> str:
        return rfc3339(self.epoch())

    def keep_secret(self, secret: dict[str, Any]) -> None:
        """Made, or given other data where the same Job has it; 409 where another has."""
        name = objects.name_of(secret)
        if name in self.secrets and owner_of(self.secrets[name]) != owner_of(secret):
            raise ObjectConflict(f"the Secret {name} is another Job's")
        self.secrets[name] = secret

    def keep_network(self, policy: dict[str, Any]) -> None:
        """Made; 409 where there is one of its name, whoever's it is."""
        name = objects.name_of(policy)
        if self.now < self.networks_from:
            raise ClusterForbidden("Cannot create networkpolicies: the Role must allow the verb create")
        if name in self.networks:
            raise ObjectConflict(f"the NetworkPolicy {name} is there")
        self.networks[name] = policy

    def _collect_belongings(self) -> None:
        """What a Job leaves behind, also one that was gone before its Secret came."""
        if not (self.secrets or self.networks):
            return
        uids = {objects.uid_of(job) for job in self.jobs.values()}
        self.secrets = {name: secret for name, secret in self.secrets.items() if owner_of(secret) in uids}
        self.networks = {name: policy for name, policy in self.networks.items() if owner_of(policy) in uids}

    def settle(self) -> None:
        """One round of the controllers."""
        self._collect_belongings()
        for job in list(self.jobs.values()):
            self._control(job)
        for pod in list(self.pods.values()):
            self._live(pod)
        for job in list(self.jobs.values()):
            self._control(job)

    # The Job controller

    def _control(self, job: dict[str, Any]) -> None:
        note = self.notes[objects.uid_of(job)]
        pods = self._pods_of(job)
        self._count(job, note, pods)
        alive = [pod for pod in pods if not objects.pod_is_over(pod)]
        if objects.is_deleting(job):
            if not job["metadata"].get("finalizers"):
                self.remove_job(job)
        elif objects.is_finished(job):
            ttl = job["spec"].get("ttlSecondsAfterFinished")
            if ttl is not None and self.now >= note.finished_at + ttl:
                self.delete_job(objects.name_of(job), by_hand=False)
        elif objects.is_suspended(job):
            for pod in alive:
                self.delete_pod(pod)
        elif note.started_at is None:
            note.started_at = self.now
            job["status"]["startTime"] = self._time()
            self._condition(job, "Suspended", "JobResumed", status="False")
        else:
            self._run(job, note, pods, alive)

    def _run(self, job: dict[str, Any], note: JobNote, pods: list[dict[str, Any]], alive: list[dict[str, Any]]) -> None:
        target = objects.condition(job, "FailureTarget")
        reason = target["reason"] if target else self._why_failed(job, note, pods)
        if note.succeeded == self.nodes.get(note.model_id, 1) and target is None:
            note.finished_at = self.now
            self._condition(job, "SuccessCriteriaMet", "CompletionsReached")
            self._condition(job, "Complete", "CompletionsReached")
        elif reason is not None:
            self.excuse(note.model_id)
            if target is None:
                self._condition(job, "FailureTarget", reason, self._blame(pods) if reason == "PodFailurePolicy" else "")
            for pod in alive:
                self.delete_pod(pod)
            if not alive:
                note.finished_at = self.now
                self._condition(job, "Failed", reason, target["message"] if target else "")
        elif self.now >= note.failed_at + _BACK_OFF:
            there = {index_of(pod) for pod in alive} | note.done
            for index in range(self.nodes.get(note.model_id, 1)):
                if index not in there:
                    self._create_pod(job, index)

    def _blame(self, pods: list[dict[str, Any]]) -> str:
        """In the Job controller's words: of those that fail the Job the first of its list."""
        pod = next(pod for pod in pods if objects.pod_phase(pod) == "Failed" and 0 < _exit_code(pod) < 128)
        where = f"Container trainer for pod training/{objects.name_of(pod)}"
        return f"{where} failed with exit code {_exit_code(pod)} matching FailJob rule at index 1"

    def _why_failed(self, job: dict[str, Any], note: JobNote, pods: list[dict[str, Any]]) -> str | None:
        if note.started_at is not None and self.now > note.started_at + job["spec"]["activeDeadlineSeconds"]:
            return "DeadlineExceeded"
        if any(objects.pod_phase(pod) == "Failed" and 0 < _exit_code(pod) < 128 for pod in pods):
            return "PodFailurePolicy"
        return "BackoffLimitExceeded" if note.failed > job["spec"].get("backoffLimit", 6) else None

    def _count(self, job: dict[str, Any], note: JobNote, pods: list[dict[str, Any]]) -> None:
        for pod in pods:
            uid = objects.uid_of(pod)
            if not objects.pod_is_over(pod) or uid in note.counted:
                continue
            note.counted.add(uid)
            if objects.pod_phase(pod) == "Succeeded":
                note.done.add(index_of(pod))
                note.succeeded = len(note.done)
            elif objects.condition(pod, "DisruptionTarget") is None:
                note.failed += 1
                note.failed_at = self.now
            job["status"] |= {"failed": note.failed, "succeeded": note.succeeded}
            self.touch("jobs", job)

    def _condition(self, job: dict[str, Any], kind: str, reason: str, message: str = "", status: str = "True") -> None:
        entry = {"type": kind, "status": status, "reason": reason, "message": message}
        entry["lastTransitionTime"] = self._time()
        others = [c for c in job["status"].get("conditions", ()) if c["type"] != kind]
        job["status"]["conditions"] = [*others, entry]
        self.touch("jobs", job)

    def _create_pod(self, job: dict[str, Any], index: int) -> None:
        model_id = objects.model_id_of(job)
        self.check_pod(job)
        # A model's Jobs have one name: only one of them exists. What a Job deleted by force leaves behind ends in its
        # grace period; the lease keeps it from publishing.
        if not all(objects.pod_is_over(pod) for pod in self._pods_of(job) if index_of(pod) == index):
            raise Violation(f"two pods of model {model_id} at once")
        uid = f"pod-{next(self._numbers)}"
        pod = self.pods[uid] = self._owned[objects.uid_of(job)][uid] = {
            "metadata": {
                "name": uid,
                "uid": uid,
                "creationTimestamp": self._time(),
                "labels": {
                    names.MANAGED_BY: names.MANAGER,
                    names.MODEL_ID: model_id,
                    names.POD_OF: objects.uid_of(job),
                },
                "ownerReferences": [{"kind": "Job", "controller": True, "uid": objects.uid_of(job)}],
            },
            "spec": self.pod_spec(model_id),
            "status": {"phase": "Pending"},
        }
        script = self.trainers.get(model_id) or ["complete"]
        self.acts[uid] = script.pop(0) if len(script) > 1 else script[0]
        if model_id in self.nodes:
            self.join(pod, job, index)
        self.begun[uid] = len(self.models[model_id].history)
        self.touch("pods", pod, "ADDED")


def owner_of(secret: JsonObject) -> str:
    """The uid of the one Job that owns it."""
    (owner,) = secret["metadata"]["ownerReferences"]
    return str(owner["uid"])


def _exit_code(pod: JsonObject) -> int:
    return int((objects.trainer_state(pod).get("terminated") or {}).get("exitCode", 255))
