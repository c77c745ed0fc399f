"""Where the trainings are put: the stand-in, which keeps them as they are, or a real cluster, by its API."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Protocol
from urllib.parse import urlencode

from kubernetes import client
from kubernetes import config as _config

from benchmarks.scale.objects import RUN_LABEL, Obj, Trainings
from dispatcher.cluster import names
from local_stack.http_json import OPENER

# Bytes of one call to the stand-in, which reads no more than a MiB.
_BATCH = 500_000
_THREADS = 16
_PATHS = {"jobs": "/apis/batch/v1/namespaces/{}/jobs", "pods": "/api/v1/namespaces/{}/pods"}
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# The built-in Job controller leaves such Jobs alone, and no scheduler such pods: they stay as they are written.
_NOBODY = "training-dispatcher-benchmark/nobody"


class Cluster(Protocol):
    """What is measured on."""

    def fill(self, trainings: Trainings, numbers: range) -> None:
        """Put the trainings of these numbers there."""

    def clear(self) -> None:
        """Remove what was put there."""


class StandIn:
    """A stand-in cluster that was started with --idle. It is thrown away as a whole."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/_stub/objects"

    def fill(self, trainings: Trainings, numbers: range) -> None:
        pairs = (trainings.whole(number) for number in numbers)
        for batch in _batches(pairs):
            for resource, texts in zip(("jobs", "pods"), zip(*batch, strict=True), strict=True):
                body = f'{{"resource":"{resource}","objects":[{",".join(texts)}]}}'.encode()
                request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"}, method="POST")
                with OPENER.open(request, timeout=60) as reply:
                    reply.read()

    def clear(self) -> None:
        pass


def _batches(pairs: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Pairs of texts, as many at a time as fit into one call each."""
    for first in pairs:
        size = max(1, _BATCH // max(len(text) for text in first))
        yield [first, *islice(pairs, size - 1)]


class Real:
    """A namespace of the cluster that KUBECONFIG names, for objects with the label of this run.

    Jobs, pods and their status are written by us: no controller, scheduler or kubelet has to take part. Of ended pods a
    cluster may remove some (terminated-pod-gc-threshold of its controller manager, 12,500 by default).
    """

    def __init__(self, namespace: str, run: str) -> None:
        config: Any = _config
        settings = client.Configuration()
        settings.connection_pool_maxsize = _THREADS
        config.load_kube_config(client_configuration=settings)
        self._api = client.ApiClient(settings)
        self._paths = {resource: path.format(namespace) for resource, path in _PATHS.items()}
        self._run = run
        if self._names("jobs", names.SELECTOR):
            # Ours would report them to its own portal, and theirs would report these.
            raise SystemExit(f"namespace {namespace} has trainings of a dispatcher: measure in one without any")

    def fill(self, trainings: Trainings, numbers: range) -> None:
        job, pod = json.loads(json.dumps([trainings.job, trainings.pod]))
        job["spec"]["managedBy"] = pod["spec"]["schedulerName"] = _NOBODY
        # The Job controller would not remove it.
        pod["metadata"].pop("finalizers", None)
        texts = [json.dumps(each) for each in (job, trainings.job_status(), pod, trainings.pod_status())]

        def create(number: int) -> None:
            made = self._call("POST", "jobs", body=json.loads(trainings.filled_in(texts[0], number)))
            uid = made["metadata"]["uid"]
            for resource, text, status in (("jobs", "", texts[1]), ("pods", texts[2], texts[3])):
                if text:
                    made = self._call("POST", resource, body=json.loads(trainings.filled_in(text, number, uid)))
                patch = {"status": json.loads(trainings.filled_in(status, number, uid))}
                self._call("PATCH", resource, f"/{made['metadata']['name']}/status", patch)

        self._each(create, numbers)

    def clear(self) -> None:
        """Jobs lose their finalizers, then Jobs and pods are deleted, until none is left."""

        def remove(job: str) -> None:
            self._call("PATCH", "jobs", f"/{job}", {"metadata": {"finalizers": None}})
            self._call("DELETE", "jobs", f"/{job}", {"propagationPolicy": "Background"})

        ours = f"{RUN_LABEL}={self._run}"
        while jobs := self._names("jobs", ours):
            self._each(remove, jobs)
        while pods := self._names("pods", ours):
            self._each(lambda pod: self._call("DELETE", "pods", f"/{pod}", {"gracePeriodSeconds": 0}), pods)

    def _names(self, resource: str, selector: str) -> list[str]:
        query = {"labelSelector": selector, "limit": "500"}
        found: list[str] = []
        while True:
            page = self._call("GET", resource, f"?{urlencode(query)}", accept=_METADATA)
            # Null where there is none.
            found += [item["metadata"]["name"] for item in page["items"] or ()]
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return found

    def _each(self, act: Callable[[Any], object], items: Iterable[object]) -> None:
        """`act` on each, several at once, until one fails or the run is interrupted.

        One task a thread: an interrupt in the middle of `submit` may leave a lock of the pool taken for ever, and
        nothing would be cleared.
        """
        left, stop = iter(list(items)), threading.Event()

        def work() -> None:
            for item in left:
                if stop.is_set():
                    return
                act(item)

        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                tasks = [pool.submit(work) for _ in range(_THREADS)]
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
        for task in tasks:
            task.result()

    def _call(
        self, method: str, resource: str, path: str = "", body: object = None, accept: str = "application/json"
    ) -> Obj:
        """One call. What is gone already is no error of a change; all else ends the run with a sentence."""
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = f"application/{'merge-patch+json' if method == 'PATCH' else 'json'}"
        words = self._api.param_serialize(
            method=method,
            resource_path=self._paths[resource] + path,
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        response = self._api.call_api(*words, _request_timeout=(5, 30)).response
        data = response.read()
        if response.status == 404 and method in ("PATCH", "DELETE"):
            return {}
        if response.status >= 400:
            text = data[:500].decode(errors="replace")
            raise SystemExit(f"{method} {resource}{path}: the API server answers {response.status}: {text}")
        answer: Obj = json.loads(data)
        return answer
