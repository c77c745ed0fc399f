"""What happened in the cluster according to the API server: every Job and pod there ever was, from two watches.

An independent observer: it reads the Jobs' annotations by name and shares no code with the dispatcher.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from local_stack.cluster.client import StandInCluster
from local_stack.http_json import OPENER

FINALIZER = "training-dispatcher/report"
_MESSAGE_ID = "training-dispatcher/message-id"
_LAUNCHED = "training-dispatcher/launched-at"
_ACKNOWLEDGED = "training-dispatcher/processing-acknowledged"
_REPORTED = "training-dispatcher/reported"
_MODEL_ID = "training-dispatcher/model-id"
_SELECTOR = "app.kubernetes.io/managed-by=training-dispatcher"
_PATHS = {"jobs": "/apis/batch/v1/namespaces/{}/jobs", "pods": "/api/v1/namespaces/{}/pods"}
# Bookmarks come every 5 seconds (fleet.py): a stream that is silent for longer is broken.
_SILENCE = 8.0


@dataclass
class SeenJob:
    """The last that was seen of a Job. reported: its annotation, None without."""

    uid: str
    name: str
    message_id: str
    launched: bool = False
    acknowledged: bool = False
    finished: bool = False
    deleting: bool = False
    gone: bool = False
    finalizer: bool = True
    reported: dict[str, Any] | None = None


@dataclass
class SeenPod:
    """over: it has ended. announced: on_running was called for it."""

    uid: str
    name: str
    model_id: str
    job_uid: str
    over: bool = False
    announced: bool = False


class Record:
    """Two threads that watch one namespace. on_running: called once for each pod that runs or ran."""

    def __init__(self, cluster: StandInCluster, namespace: str, on_running: Callable[[SeenPod], None]) -> None:
        self.jobs: dict[str, SeenJob] = {}
        self.pods: dict[str, SeenPod] = {}
        self.started: dict[str, str] = {}  # uids of Jobs that had a pod → model id
        self.disrupted: set[str] = set()  # ids of models that lost a pod to the cluster, as far as was seen
        self._versions: dict[str, str] = {}
        self._cluster = cluster
        self._namespace = namespace
        self._on_running = on_running
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(kind,), daemon=True, name=f"record-{kind}") for kind in _PATHS
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()

    def job_of(self, pod: SeenPod) -> SeenJob | None:
        return self.jobs.get(pod.job_uid)

    def unsettled(self) -> int:
        """Number of Jobs that are not settled: the dispatcher has not let go of them."""
        return sum(job.finalizer and not job.gone for job in list(self.jobs.values()))

    def refresh(self) -> None:
        """Bring everything up to date by a list: for the end, when nothing changes any more."""
        for kind in _PATHS:
            self._list(kind)

    def _watch(self, kind: str) -> None:
        """From the last version that was seen on, so that a cut misses nothing; a list only where history is gone."""
        while not self._stop.is_set():
            try:
                if not self._versions.get(kind):
                    self._versions[kind] = self._list(kind)
                self._follow(kind)
            except (OSError, ValueError, urllib.error.HTTPError):
                self._stop.wait(0.1)

    def _open(self, kind: str, query: dict[str, str]) -> Any:
        url = f"{self._cluster.url}{_PATHS[kind].format(self._namespace)}?{urlencode(query)}"
        return OPENER.open(urllib.request.Request(url), timeout=_SILENCE)

    def _list(self, kind: str) -> str:
        with self._open(kind, {"labelSelector": _SELECTOR}) as reply:
            listing = json.loads(reply.read())
        for item in listing["items"]:
            self._take(kind, item)
        there = {item["metadata"]["uid"] for item in listing["items"]}
        if kind == "jobs":
            for job in list(self.jobs.values()):
                job.gone = job.gone or job.uid not in there
        return str(listing["metadata"]["resourceVersion"])

    def _follow(self, kind: str) -> None:
        query = {"watch": "true", "labelSelector": _SELECTOR, "allowWatchBookmarks": "true"}
        with self._open(kind, {**query, "resourceVersion": self._versions[kind]}) as stream:
            for line in stream:
                if self._stop.is_set():
                    return
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self._versions.pop(kind)
                    return
                if event["type"] != "BOOKMARK":
                    self._take(kind, event["object"])
                if event["type"] == "DELETED" and kind == "jobs":
                    self.jobs[event["object"]["metadata"]["uid"]].gone = True
                self._versions[kind] = event["object"]["metadata"]["resourceVersion"]

    def _take(self, kind: str, item: dict[str, Any]) -> None:
        (self._take_job if kind == "jobs" else self._take_pod)(item)

    def _take_job(self, item: dict[str, Any]) -> None:
        meta = item["metadata"]
        notes = meta.get("annotations") or {}
        job = self.jobs.setdefault(meta["uid"], SeenJob(meta["uid"], meta["name"], notes.get(_MESSAGE_ID, "")))
        job.launched = job.launched or _LAUNCHED in notes
        job.acknowledged = notes.get(_ACKNOWLEDGED) == "true"
        job.finished = any(
            c["type"] in ("Complete", "Failed") and c["status"] == "True"
            for c in (item.get("status") or {}).get("conditions") or ()
        )
        job.deleting = bool(meta.get("deletionTimestamp"))
        job.finalizer = FINALIZER in (meta.get("finalizers") or ())
        if _REPORTED in notes:
            job.reported = json.loads(notes[_REPORTED])

    def _take_pod(self, item: dict[str, Any]) -> None:
        meta, status = item["metadata"], item.get("status") or {}
        owner = next((o["uid"] for o in meta.get("ownerReferences") or () if o.get("controller")), "")
        model_id = (meta.get("labels") or {}).get(_MODEL_ID, "")
        pod = self.pods.setdefault(meta["uid"], SeenPod(meta["uid"], meta["name"], model_id, owner))
        phase = status.get("phase")
        pod.over = phase in ("Succeeded", "Failed")
        disrupted = any(
            c["type"] == "DisruptionTarget" and c["status"] == "True" for c in status.get("conditions") or ()
        )
        job = self.jobs.get(owner)
        # A node that is removed takes along, without a condition, a pod that has just ended.
        if disrupted or (meta.get("deletionTimestamp") and (job is None or not job.finished)):
            self.disrupted.add(model_id)
        self.started[owner] = model_id
        if phase != "Pending" and not pod.announced:
            pod.announced = True
            self._on_running(pod)
