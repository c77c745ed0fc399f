"""Trainings as the API server shows them: Job and pod of each, with all that controllers, kubelet and server write.

The Job is the production template's, completed by the dispatcher's own `build_job`. What the server adds follows the
recordings in tests/recorded (Kubernetes 1.36); managedFields, which those leave out, follow the documentation of
server-side apply. All trainings of a kind are one text in which a few words are replaced.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

from dispatcher import factories
from dispatcher.cluster import names
from dispatcher.config.settings import Settings
from dispatcher.launch.job_spec import build_job, run_id
from dispatcher.launch.job_template import load_template
from dispatcher.launch.request import decode
from local_stack.cluster.registry.defaults import default_job, default_pod
from local_stack.cluster.registry.patches import MERGE_KEYS
from training_common.times import rfc3339

Obj = dict[str, Any]

# On everything that one run makes: the run's word.
RUN_LABEL = "training-dispatcher-benchmark/run"
_TEMPLATE = Path(__file__).parents[2] / "manifests" / "base" / "job-template.yaml"
# Any id that stands nowhere else: all of an id are replaced.
_ID = "1777777777771"
_UNSCHEDULABLE = (
    "0/100 nodes are available: 100 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/100 nodes "
    "are available: 100 Preemption is not helpful for scheduling."
)
_DONE = "Model training completed successfully"
_TRACKING = "batch.kubernetes.io/job-tracking"
# Parts of objects that are no maps to the server, and such as only one writer can own, whole.
_STRUCTS = ("", "metadata", "spec", "template", "status")
_ATOMIC = ("selector", "secretKeyRef", "fieldRef", "nodeSelector")


class Trainings:
    """All trainings of one state in one namespace: "running", "waiting" or "reported".

    run: digits with which their model ids begin. request_bytes: length of each request's JSON, at least. Times are
    spread over the last hour, those of reported ones over the time for which they are kept.
    """

    def __init__(self, settings: Settings, run: str, namespace: str, state: str, request_bytes: int = 0) -> None:
        self.state = state
        self._run = run
        self._kept = settings.ttl_after_report
        self._now = time.time()
        request: Obj = {
            "task": "train",
            "model_container_name": f"model-{_ID}",
            "dataset_container_name": f"dataset-{_ID}",
        }
        missing = request_bytes - len(json.dumps(request))
        if missing > 0:
            request["notes"] = ("0123456789abcdef" * (missing // 16 + 1))[: max(0, missing - len(', "notes": ""'))]
        text = json.dumps(request)
        template = load_template(_TEMPLATE.read_text(encoding="utf-8"), settings.trainer_image)
        decoded = decode(text, factories.bounds_of(settings))
        job = build_job(
            template, decoded, message_id="@MESSAGE@", queued_at=self._now, defaults=factories.defaults_of(settings)
        )
        words = (
            json.dumps(job).replace(run_id("@MESSAGE@", self._now), "@STAMP@").replace(rfc3339(self._now), "@QUEUED@")
        )
        self.job: Obj = json.loads(words.replace(_ID, "@ID@"))
        self._launch(settings, namespace)
        self.pod = self._new_pod(namespace)
        self._whole = json.dumps(self._whole_job()), json.dumps(self._whole_pod())

    def model_id(self, number: int) -> str:
        return f"{self._run}{number:06d}"

    def whole(self, number: int) -> tuple[str, str]:
        """Job and pod of this number as the API server shows them, as JSON."""
        job, pod = (self.filled_in(text, number) for text in self._whole)
        return job, pod

    def filled_in(self, text: str, number: int, job_uid: str = "") -> str:
        """A text with this training's own words. job_uid: that of an API server, "" for one of ours."""
        digest = hashlib.sha256(f"{self._run} {self.state} {number}".encode()).hexdigest()
        if self.state == "reported":
            ended = self._now - 300 - number * 7919 % max(1, self._kept - 600)
            begun = ended - 3600
        else:
            begun, ended = self._now - 60 - number * 7919 % 3600, 0.0
        for word, value in {
            "@ID@": self.model_id(number),
            "@JOB@": job_uid or str(uuid.UUID(digest[:32])),
            "@POD@": str(uuid.UUID(digest[32:])),
            "@MESSAGE@": str(uuid.UUID(digest[16:48])),
            "@CONTAINER@": digest,
            "@SUFFIX@": digest[:5],
            "@NODE@": str(number % 100),
            "@ADDRESS@": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            "@STAMP@": run_id(digest, begun - 5),
            "@QUEUED@": rfc3339(begun - 5),
            "@BEGUN@": rfc3339(begun),
            "@ENDED@": rfc3339(ended),
        }.items():
            text = text.replace(word, value)
        return text

    def _launch(self, settings: Settings, namespace: str) -> None:
        """What a launch notes on the Job, and a report."""
        meta, spec = self.job["metadata"], self.job["spec"]
        for labels in (meta["labels"], spec["template"]["metadata"]["labels"]):
            labels[RUN_LABEL] = self._run
        meta["namespace"] = namespace
        notes = meta["annotations"]
        notes |= {names.LAUNCHED_AT: "@BEGUN@", names.LAUNCHED_BY: "5ca1ab1e", names.ACKNOWLEDGED: "true"}
        spec["suspend"] = False
        if self.state == "reported":
            report = {"status": "Completed", "code": "Completed", "sentence": _DONE, "portal": "trainer"}
            notes |= {names.REPORTED: json.dumps(report), names.REPORTED_AT: "@ENDED@"}
            meta["labels"][names.REPORTED] = "true"
            meta["finalizers"].remove(names.FINALIZER)
            spec["ttlSecondsAfterFinished"] = settings.ttl_after_report

    def job_status(self) -> Obj:
        """As the Job controller writes it."""
        resumed = {"lastProbeTime": "@BEGUN@", "lastTransitionTime": "@BEGUN@", "reason": "JobResumed"}
        status: Obj = {
            "conditions": [{"type": "Suspended", "status": "False", **resumed, "message": "Job resumed"}],
            "startTime": "@BEGUN@",
            "terminating": 0,
            "uncountedTerminatedPods": {},
        }
        if self.state != "reported":
            return {**status, "active": 1, "ready": int(self.state == "running")}
        why = {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
        times = {"lastProbeTime": "@ENDED@", "lastTransitionTime": "@ENDED@"}
        status["conditions"] += [
            {"type": kind, "status": "True", **times, **why} for kind in ("SuccessCriteriaMet", "Complete")
        ]
        return {**status, "completionTime": "@ENDED@", "succeeded": 1, "ready": 0}

    def _new_pod(self, namespace: str) -> Obj:
        """As the Job controller creates it."""
        template = json.loads(json.dumps(self.job["spec"]["template"]))
        labels = {
            **template["metadata"]["labels"],
            "batch.kubernetes.io/controller-uid": "@JOB@",
            "batch.kubernetes.io/job-name": "model-@ID@",
            "controller-uid": "@JOB@",
            "job-name": "model-@ID@",
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "model-@ID@", "uid": "@JOB@"}
        meta = {
            "name": "model-@ID@-@SUFFIX@",
            "generateName": "model-@ID@-",
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        }
        if self.state != "reported":
            meta["finalizers"] = [_TRACKING]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}

    def pod_status(self) -> Obj:
        """As the scheduler writes it of a pod that waits, the kubelet of the others."""
        common = {"observedGeneration": 1, "lastProbeTime": None}
        if self.state == "waiting":
            why = {"lastTransitionTime": "@BEGUN@", "reason": "Unschedulable", "message": _UNSCHEDULABLE}
            return {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", **common, **why}]}
        over = self.state == "reported"
        conditions = []
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"):
            lost = over and kind in ("PodReadyToStartContainers", "Ready", "ContainersReady")
            condition = {"type": kind, **common, "status": "False" if lost else "True"}
            condition["lastTransitionTime"] = "@ENDED@" if lost else "@BEGUN@"
            if over and kind in ("Initialized", "Ready", "ContainersReady"):
                condition["reason"] = "PodCompleted"
            conditions.append(condition)
        return {
            "observedGeneration": 1,
            "phase": "Succeeded" if over else "Running",
            "conditions": conditions,
            "hostIP": "10.0.0.@NODE@",
            "hostIPs": [{"ip": "10.0.0.@NODE@"}],
            "podIP": "@ADDRESS@",
            "podIPs": [{"ip": "@ADDRESS@"}],
            "startTime": "@BEGUN@",
            "containerStatuses": [self._container_status(over)],
            "allocatedResources": self._resources().get("requests") or {},
            "resources": self._resources(),
        }

    def _resources(self) -> Obj:
        found: Obj = self.pod["spec"]["containers"][0]["resources"]
        return found

    def _container_status(self, over: bool) -> Obj:
        container = self.pod["spec"]["containers"][0]
        image = container["image"]
        state: Obj = {"running": {"startedAt": "@BEGUN@"}}
        if over:
            said = json.dumps({"message": _DONE, "code": "Completed", "exit": 0})
            times = {"startedAt": "@BEGUN@", "finishedAt": "@ENDED@", "containerID": "containerd://@CONTAINER@"}
            state = {"terminated": {"exitCode": 0, "reason": "Completed", "message": said, **times}}
        return {
            "name": container["name"],
            "state": state,
            "lastState": {},
            "ready": not over,
            "restartCount": 0,
            "image": image,
            "imageID": f"{image.rpartition(':')[0] or image}@sha256:{'5ca1' * 16}",
            "containerID": "containerd://@CONTAINER@",
            "started": not over,
            "allocatedResources": self._resources().get("requests") or {},
            "resources": self._resources(),
            "volumeMounts": [{**mount, "recursiveReadOnly": "Disabled"} for mount in container["volumeMounts"]],
            "user": {"linux": {"uid": 65532, "gid": 65532, "supplementalGroups": [65532]}},
        }

    def _whole_job(self) -> Obj:
        job: Obj = json.loads(json.dumps(self.job))
        job["metadata"] |= {"uid": "@JOB@", "generation": 2, "creationTimestamp": "@QUEUED@"}
        default_job(job)
        job["status"] = self.job_status()
        writers = ("training-dispatcher", "kube-controller-manager")
        return _with_managers(job, writers)

    def _whole_pod(self) -> Obj:
        pod: Obj = json.loads(json.dumps(self.pod))
        pod["metadata"] |= {"uid": "@POD@", "generation": 1, "creationTimestamp": "@BEGUN@"}
        default_pod(pod, 0)
        if self.state != "waiting":
            pod["spec"]["nodeName"] = "gpu-node-@NODE@"
        pod["status"] |= self.pod_status()
        writers = ("kube-controller-manager", "kube-scheduler" if self.state == "waiting" else "kubelet")
        return _with_managers(pod, writers)


def _with_managers(obj: Obj, writers: tuple[str, str]) -> Obj:
    """The object with its managedFields: who wrote spec and metadata, and who the status."""
    meta = obj["metadata"]
    written = {key: meta[key] for key in ("annotations", "finalizers", "generateName", "labels") if key in meta}
    if "ownerReferences" in meta:
        written["ownerReferences"] = meta["ownerReferences"]
    common = {"operation": "Update", "apiVersion": obj["apiVersion"], "fieldsType": "FieldsV1"}
    first = {"manager": writers[0], **common, "time": "@BEGUN@"}
    second = {"manager": writers[1], **common, "time": "@BEGUN@", "subresource": "status"}
    meta["managedFields"] = [
        {**first, "fieldsV1": _owned({"metadata": written, "spec": obj["spec"]})},
        {**second, "fieldsV1": _owned({"status": obj["status"]})},
    ]
    return obj


def _owned(value: Any, key: str = "") -> Obj:
    """The fields of a value as FieldsV1 names them. key: the field that holds it."""
    itself: Obj = {} if key in _STRUCTS else {".": {}}
    if isinstance(value, dict) and value and key not in _ATOMIC:
        return itself | {f"f:{name}": _owned(item, name) for name, item in value.items()}
    if isinstance(value, list) and key == "finalizers":
        return itself | {f"v:{json.dumps(item)}": {} for item in value}
    if isinstance(value, list) and key in MERGE_KEYS:
        merge = MERGE_KEYS[key]
        named = {json.dumps({merge: item[merge]}, separators=(",", ":")): item for item in value}
        return itself | {f"k:{word}": _owned(item, "an item") for word, item in named.items()}
    return {}
