"""Who else acts on models that train: the trainer reports to the portal; people delete, evict and reconfigure.

Every call goes through APIs that are failing at that time, so each is repeated until it succeeds.
"""

from __future__ import annotations

import base64
import http.client
import random
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from local_stack.cluster.client import StandInCluster
from local_stack.http_json import call_json
from local_stack.portal.client import StandInPortal
from local_stack.storm.plan import REPORTING_SECONDS, Ending, Request
from local_stack.storm.record import Record, SeenPod
from portal_client.messages import STARTED

_THREADS = 32
# Seconds within which a hanging portal answers, so that no late write of a trainer comes after the end of its pod.
LONGEST_HANG = 2.5
_OUTAGE = (OSError, ValueError, http.client.HTTPException)


class Actors:
    """send: puts the request's next message on the queue. visibility: the dispatchers' VISIBILITY_TIMEOUT_SECONDS."""

    def __init__(
        self,
        requests: Mapping[str, Request],
        cluster: StandInCluster,
        portal: StandInPortal,
        namespace: str,
        send: Callable[[Request], None],
        *,
        visibility: float,
        seed: int,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.portal_calls: Counter[str] = Counter()
        self.relay_calls: Counter[str] = Counter()
        self.record: Record  # set by the storm before the first pod runs, and so are the dispatchers' relays
        self.relays: Sequence[str] = ()
        self._requests = requests
        self._cluster = cluster
        self._portal = portal
        self._namespace = namespace
        self._send = send
        self._visibility = visibility
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="actor")
        self._acts: list[Future[None]] = []
        self._touched: set[str] = set()

    def on_running(self, pod: SeenPod) -> None:
        """A pod runs, or has run in an instant: start what is to be done to it."""
        request = self._requests.get(pod.model_id)
        if request is None or not (action := request.kind.action) or self._stop.is_set():
            return
        if pod.over and action != "reconfigure ended":
            return
        if request.reports is not None:
            self._acts.append(self._pool.submit(self._report, pod.model_id, request.reports, time.monotonic()))
        elif pod.model_id not in self._touched:
            self._touched.add(pod.model_id)
            act = self._reconfigure if action.startswith("reconfigure") else self._interfere
            self._acts.append(self._pool.submit(act, request, pod))

    def pending(self) -> int:
        return sum(not act.done() for act in self._acts)

    def failures(self) -> list[BaseException]:
        """Defects of the storm itself."""
        return [error for act in self._acts if act.done() and (error := act.exception()) is not None]

    def stop(self) -> None:
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # The trainer

    def _report(self, model_id: str, ending: Ending, started: float) -> None:
        """As a launched trainer does: GET; PUT Processing if nobody has; then PUT how it ended.

        What cannot be delivered while the pod runs is dropped: the termination message has it.
        """
        self._stop.wait(self._chance.uniform(0.0, 1.0))
        deadline = started + REPORTING_SECONDS - 1.0
        while (left := deadline - time.monotonic()) > LONGEST_HANG and not self._stop.is_set():
            try:
                status = str((self._api(model_id, "GET", f"{model_id}/status", None, left) or {})["status"])
                if status in ("Completed", "Failed"):
                    return
                for word in ("Processing", ending.status) if status != "Processing" else (ending.status,):
                    if (left := deadline - time.monotonic()) < LONGEST_HANG:
                        return
                    text = ending.sentence if word == ending.status else STARTED
                    self._api(model_id, "PUT", "status", {"ModelId": model_id, "Status": word, "Message": text}, left)
            except (*_OUTAGE, KeyError):
                self._stop.wait(0.2)
            else:
                self.done["report"] += 1
                return

    def _api(self, model_id: str, method: str, path: str, body: dict[str, str] | None, timeout: float) -> Any:
        if self.relays:
            return self._by_a_relay(model_id, method, path, body, timeout)
        self.portal_calls[method] += 1
        return self._portal.call_api(method, path, body, timeout=timeout)

    def _by_a_relay(self, model_id: str, method: str, path: str, body: dict[str, str] | None, timeout: float) -> Any:
        """With the token of the Job's Secret, of any of the dispatchers, as a Service would have it."""
        secret = self._cluster.api("GET", f"/api/v1/namespaces/{self._namespace}/secrets/model-{model_id}")
        token = base64.b64decode(secret["data"]["API_KEY"]).decode()
        self.relay_calls[method] += 1
        url = f"{self._chance.choice(self.relays)}/api/external/models/{path}"
        return call_json(method, url, body, {"x-api-key": token}, timeout=timeout)

    # People

    def _interfere(self, request: Request, pod: SeenPod) -> None:
        action = request.kind.action
        self._stop.wait(self._chance.uniform(0.0, 1.5))
        pods = f"/api/v1/namespaces/{self._namespace}/pods/{pod.name}"
        jobs = f"/apis/batch/v1/namespaces/{self._namespace}/jobs/model-{pod.model_id}"
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name}}
        acts: dict[str, Callable[[], Any]] = {
            "delete job": lambda: self._cluster.api("DELETE", jobs, {"propagationPolicy": "Background"}),
            "delete pod": lambda: self._cluster.api("DELETE", pods, {}),
            "vanish pod": lambda: self._cluster.api("DELETE", pods, {"gracePeriodSeconds": 0}),
            "evict pod": lambda: self._cluster.evict_by_kubelet(self._namespace, pod.name),
            "drain pod": lambda: self._cluster.api("POST", f"{pods}/eviction", eviction),
        }
        self._retry(acts[action])
        self.done[action] += 1

    def _reconfigure(self, request: Request, pod: SeenPod) -> None:
        """Set the model to Reconfigure at the portal, and send a second request.

        Only when nobody is about to write a status of the first one: the portal has no compare-and-set, and a message
        of the first one may be hidden until its visibility timeout expires.
        """
        ended = request.kind.action == "reconfigure ended"
        job = None
        while not self._stop.is_set():
            job = self.record.job_of(pod)
            if job is not None and (job.reported if ended else job.acknowledged):
                break
            self._stop.wait(0.1)
        self._stop.wait(self._visibility + 2.0)
        if self._stop.is_set():
            return
        self._retry(lambda: self._portal.set_model(request.model_id, "Reconfigure"))
        self._send(request)
        self.done[request.kind.action] += 1

    def _retry(self, act: Callable[[], Any]) -> None:
        while not self._stop.is_set():
            try:
                act()
            except urllib.error.HTTPError as error:
                # Gone already, with a lost node for example: that is what was wanted. The control API answers 400.
                if error.code in (400, 404):
                    return
                self._stop.wait(0.2)
            except _OUTAGE:
                self._stop.wait(0.2)
            else:
                return
