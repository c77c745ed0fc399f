"""The simulated world at the size of a large installation: every promise is held as in the small one.

Only what was touched, or is due, is looked at, so that a training costs the same however many there are. Trainings take
their hours and need a GPU each, of which there are so many; every call of the dispatcher takes its time on its
threads.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.config.settings import Settings
from portal_client import messages
from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.simulated.dispatcher import Process
from tests.world.simulated.faults import Crash, Fail
from tests.world.simulated.world import World

T = TypeVar("T")
STEP = 1.0
# Seconds that a call takes of the thread that makes it.
LATENCY = {"portal": 0.05, "cluster": 0.01, "queue": 0.01}
NO_GPU = "0/1250 nodes are available: 1250 Insufficient nvidia.com/gpu."
_UNTOLD = {"complete": "complete-unreported", "invalid": "invalid-unreported"}


class Calls:
    """Takes the place of the list of all calls: their number, and how many of each kind."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self._number = 0

    def append(self, call: tuple[str, str]) -> None:
        self._number += 1
        self.kinds[call[1]] += 1

    def __len__(self) -> int:
        return self._number


class Stopwatch:
    """Who takes this process's CPU: shares of the time that passes, which costs less to look at than its CPU."""

    def __init__(self) -> None:
        self.took: defaultdict[str, float] = defaultdict(float)  # real seconds
        self._now = "other"
        self._since = time.perf_counter()
        self._began = self._since, time.process_time()

    def turn(self, name: str) -> str:
        """From here on it is `name`; returns whose turn it was."""
        now = time.perf_counter()
        self.took[self._now] += now - self._since
        self._since, before, self._now = now, self._now, name
        return before

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU, by name."""
        self.turn(self._now)
        began, spent = self._began
        share = (time.process_time() - spent) / (self._since - began)
        return {name: seconds * share for name, seconds in self.took.items()}


class ManyWorld(World):
    """gpus: pods that run at the same time; lasts(act): seconds for which a pod that does this runs."""

    def __init__(self, gpus: int, lasts: Callable[[str], float]) -> None:
        super().__init__()
        self.step = STEP
        self.calls = Calls()  # type: ignore[assignment]
        self.arrivals: list[tuple[float, Callable[[], object]]] = []  # the next one last
        self.spent = 0.0  # seconds of its threads that the dispatcher's calls took
        self.stopwatch = Stopwatch()
        self.portal_away = self.crash_next = False
        self.unfinished = self.most_unfinished = self.most_waiting = 0
        self.launch_waits: list[tuple[float, float]] = []  # (when its message came, seconds until its Job was resumed)
        self.report_waits: list[tuple[float, float]] = []  # (when its last pod ended, seconds until it was reported)
        self.launches: Counter[int] = Counter()  # by the second
        self.reports: Counter[int] = Counter()
        self.puts: Counter[str] = Counter()
        self.progress: Counter[int] = Counter()
        self.portal_calls: Counter[int] = Counter()
        self._lasts = lasts
        self._free = gpus
        self._running: dict[str, float] = {}  # pod uid → when it acts
        self._waiting: dict[str, None] = {}  # pods without a GPU, the oldest first
        self._asked: dict[str, float] = {}  # message id → when it was sent
        self._ended: dict[str, float] = {}  # a Job's uid → when its last pod ended; until its TTL runs
        self._touched: dict[str, None] = {}  # uids of Jobs
        self._timers: list[tuple[float, str]] = []
        self.watch()

    def enqueue(self, model_id: str, **fields: Any) -> str:
        message_id = super().enqueue(model_id, **fields)
        self._asked[message_id] = self.now
        return message_id

    # What is measured

    def call(self, process: str, name: str, action: Callable[[], T], fails: Callable[[str], Exception]) -> T:
        """What happens meanwhile is the world's, and costs the dispatcher nothing."""
        before = self.stopwatch.turn("world")
        try:
            kind = name.partition(".")[0]
            self.spent += LATENCY[kind]
            if kind == "portal":
                self.portal_calls[int(self.now)] += 1
            return super().call(process, name, action, fails)
        finally:
            self.stopwatch.turn(before)

    def advance(self, seconds: float) -> None:
        before = self.stopwatch.turn("world")
        try:
            super().advance(seconds)
        finally:
            self.stopwatch.turn(before)

    def trouble(self, process: str, call: str, side: str) -> None:
        """The director."""
        if side == "before" and self.crash_next and call == "cluster.patch":
            self.crash_next = False
            raise Crash(call)
        if side == "before" and self.portal_away and call.startswith("portal."):
            raise Fail("connection refused")

    def put(
        self, process: str, seen: Any, model_id: str, status: ProcessingStatus, text: str, author: str = ""
    ) -> None:
        kind = "outcome"
        if status is ProcessingStatus.PROCESSING:
            told = text == messages.STARTED and self.models[model_id].status.may_start
            kind = "Processing" if told else "progress"
        self.puts[kind] += 1
        if kind == "progress":
            self.progress[int(self.now)] += 1
        super().put(process, seen, model_id, status, text, author)

    def touch(self, kind: str, item: dict[str, Any], change: str = "MODIFIED") -> None:
        uid = objects.uid_of(item) if kind == "jobs" else objects.owner_uid(item) or ""
        if kind == "jobs":
            before = self._watched.get(uid)
            if change == "ADDED":
                self.unfinished += 1
                del item["spec"]["podFailurePolicy"]  # a hundred numbers that no controller here reads
            elif before is not None and before.is_suspended and not objects.is_suspended(item):
                self.launches[int(self.now)] += 1
                asked = self._asked[objects.annotation(item, names.MESSAGE_ID) or ""]
                self.launch_waits.append((asked, self.now - asked))
            reported = before is not None and objects.label(item, names.REPORTED) is not None
            ended = reported or objects.is_finished(item) or change == "DELETED"
            if before is not None and not before.is_finished and ended:
                self.unfinished -= 1
            if reported:
                self.reports[int(self.now)] += 1
                when = self._ended.get(uid, self.now)
                self.report_waits.append((when, self.now - when))
            self.most_unfinished = max(self.most_unfinished, self.unfinished)
        super().touch(kind, item, change)
        self._touched[uid] = None

    def _seen(self, kind: str, item: dict[str, Any]) -> Job | Pod:
        return objects.job(item) if kind == "jobs" else objects.pod(item)

    def owned(self, uid: str) -> Mapping[str, dict[str, Any]]:
        return self._owned.get(uid, {})

    def watched(self, kind: type[T]) -> list[T]:
        """What a list shows: shared with what the watch told of it, as no two processes would."""
        return [item for item in self._watched.values() if isinstance(item, kind)]

    # Controllers and kubelets

    def _at(self, when: float, uid: str) -> None:
        heapq.heappush(self._timers, (when, uid))

    def settle(self) -> None:
        while self.arrivals and self.arrivals[-1][0] <= self.now:
            self.arrivals.pop()[1]()
        while self._timers and self._timers[0][0] <= self.now:
            self._touched[heapq.heappop(self._timers)[1]] = None
        touched, self._touched = self._touched, {}
        for uid in touched:
            self._settle(uid)
        self.most_waiting = max(self.most_waiting, len(self._waiting))

    def _settle(self, uid: str) -> None:
        """As `Kubernetes.settle` does it, of one Job."""
        self._control_by(uid)
        for pod in list(self._owned.get(uid, {}).values()):
            self._live(pod)
        self._control_by(uid)

    def _control_by(self, uid: str) -> None:
        note = self.notes[uid]
        job = self.jobs.get(f"model-{note.model_id}")
        if job is None or objects.uid_of(job) != uid:
            return
        began = note.started_at
        self._control(job)
        if began is None and note.started_at is not None:
            self._at(self.now + job["spec"]["activeDeadlineSeconds"] + 1, uid)
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is not None and objects.is_finished(job) and uid in self._ended:
            del self._ended[uid]
            self._at(note.finished_at + ttl, uid)

    def _live(self, pod: dict[str, Any]) -> None:
        uid = objects.uid_of(pod)
        if objects.pod_is_over(pod) or objects.is_deleting(pod):
            super()._live(pod)
        elif uid in self._running:
            if self.now >= self._running[uid]:
                if self.portal_away:
                    self.acts[uid] = _UNTOLD.get(self.acts[uid], self.acts[uid])
                super()._live(pod)
        elif self._free:
            self._start(pod)
        elif uid not in self._waiting:
            self._waiting[uid] = None
            scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_GPU}
            pod["status"]["conditions"] = [{**scheduled, "lastTransitionTime": self._time()}]
            self.touch("pods", pod)

    def _start(self, pod: dict[str, Any]) -> None:
        uid = objects.uid_of(pod)
        self._free -= 1
        self._running[uid] = self.now + self._lasts(self.acts[uid])
        self._at(self._running[uid], objects.owner_uid(pod) or "")
        super()._live(pod)

    def _end_pod(self, pod: dict[str, Any], *arguments: Any, **options: Any) -> None:
        uid = objects.uid_of(pod)
        super()._end_pod(pod, *arguments, **options)
        self._ended[objects.owner_uid(pod) or ""] = self.now
        self._waiting.pop(uid, None)
        if self._running.pop(uid, None) is None:
            return
        self._free += 1
        while self._free and self._waiting:
            following = self.pods[next(iter(self._waiting))]
            del self._waiting[objects.uid_of(following)]
            if not objects.is_deleting(following):
                self._start(following)


class ManyProcess(Process):
    """One dispatcher, second by second: watches, intake, workers, Events.

    What its threads have in a second is all that is done in it. Seconds of CPU are real ones.
    """

    def __init__(self, world: ManyWorld, settings: Settings) -> None:
        super().__init__(world, settings=settings, with_events=True)
        self._settings = settings
        self._many = world
        self._owed = {"launch": 0.0, "report": 0.0}
        self.most_ready = 0
        self.cpu_of_gauges: list[float] = []
        self.missed = 0  # what a comparison found that no watch had told
        self.cpu_of_start = self._alone(self._list)

    def tick(self) -> None:
        """What one second has room for. May raise Crash and Violation."""
        for what, do in (("launch", self._launch), ("report", self._report), ("events", self.write_events)):
            before = self._many.stopwatch.turn(what)
            try:
                do()
            finally:
                self._many.stopwatch.turn(before)

    def compare(self) -> None:
        """What each RESYNC_SECONDS brings: names and versions of all that is there, beside the cache."""
        pods = (pod for pod in self._many.watched(Pod) if pod.phase != "Succeeded")
        self.missed += len(self.cache.differing("jobs", self._many.watched(Job)))
        self.missed += len(self.cache.differing("pods", pods))

    def _alone(self, do: Callable[[], object]) -> float:
        """Seconds of CPU that this took of the dispatcher."""
        watch = self._many.stopwatch
        before, began = watch.turn("start"), (watch.took["world"], time.perf_counter(), time.process_time())
        do()
        watch.turn(before)
        theirs, passed, spent = (
            watch.took["world"] - began[0],
            time.perf_counter() - began[1],
            time.process_time() - began[2],
        )
        return spent * (1 - theirs / passed)

    def measure_gauges(self) -> None:
        self.cpu_of_gauges.append(self._alone(self.gauges.set_job_gauges))

    def _list(self) -> None:
        self.cache.replace("jobs", self.cluster.list_jobs(names.UNREPORTED_JOBS))
        self.cache.replace("pods", self.cluster.list_pods(names.SELECTOR))
        self.repair.fill_ended()
        self._many.log.clear()

    def refresh(self) -> None:
        log, self._many.log = self._many.log, []
        for kind, change, item in log:
            del kind
            self.cache.apply(change, item)

    def _launch(self) -> None:
        room = self._room("launch", self._settings.launch_concurrency)
        self.refresh()
        while not room():
            messages = self.intake._receive(0)
            if not messages:
                return
            for message in messages:
                self.intake.handle(message)
            self.refresh()

    def _report(self) -> None:
        self.refresh()
        self.work.busy = self._room("report", self._settings.report_concurrency)
        with self.work._condition:
            self.work._promote()
        self.most_ready = max(self.most_ready, len(self.work))
        self.reconcile()

    def _room(self, what: str, threads: int) -> Callable[[], bool]:
        """Whether the threads' second is over; what a call took beyond it is taken from the next."""
        began, left = self._many.spent, threads * STEP - self._owed[what]

        def over() -> bool:
            self._owed[what] = max(0.0, self._many.spent - began - left)
            return self._many.spent - began >= left

        return over


def percentile(values: Iterable[float], share: float) -> float:
    """The least value that this share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
