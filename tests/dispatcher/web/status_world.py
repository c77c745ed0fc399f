"""A dispatcher's world for tests of the status page: Jobs in every phase, queues, refusals; and a server for it."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.summaries import Summaries, summarise
from dispatcher.decisions import outcome
from dispatcher.decisions.fairness import Lane
from dispatcher.decisions.views.without_job import PortalWord
from dispatcher.decisions.waiting import Limits
from dispatcher.intake.refusals import Refusals
from dispatcher.launch.request import Bounds
from dispatcher.queue.messages import PeekedMessage
from dispatcher.queue.poison import PoisonEntry
from dispatcher.web.request_rows import QueueFacts
from dispatcher.web.server import HttpServer
from dispatcher.web.status_page import Process, StatusPage
from dispatcher.web.status_rows import PortalProgress, Rules
from tests.world.builders import a_condition, a_pod, complete, failed, job_json, running, waiting
from training_common.times import rfc3339

Condition = dict[str, Any]
Pair = tuple[Job, list[Pod]]

RULES = Rules(Limits(600, 300, 86400, 300, 86400), Bounds(8, 259200.0))


def job(
    model_id: str,
    *conditions: Condition,
    at: float,
    gpus: int | None = 1,
    dataset: str | None = "dataset-houses",
    annotations: dict[str, str] | None = None,
    **more: Any,
) -> Job:
    """A Job with its trainer container; at: epoch seconds of its creation and launch."""
    made = job_json(*conditions, model_id=model_id, uid=f"uid-{model_id}", message_id=f"message-{model_id}", **more)
    made["metadata"]["creationTimestamp"] = rfc3339(at)
    made["metadata"]["annotations"] |= {
        names.QUEUED_AT: rfc3339(at - 4),
        names.RUN_ID: f"{zlib.crc32(model_id.encode()) & 0xFFFFFF:06x}",
    }
    if names.LAUNCHED_AT in made["metadata"]["annotations"]:
        made["metadata"]["annotations"][names.LAUNCHED_AT] = rfc3339(at + 1)
    made["metadata"]["annotations"] |= annotations or {}
    made["status"]["startTime"] = rfc3339(at + 1)
    env = [{"name": "DATASET_CONTAINER", "value": dataset}] if dataset else []
    env.append({"name": "AZURE_STORAGE_CONNECTION_STRING", "value": "AccountKey=verysecretindeed"})
    if gpus is not None:
        env.append({"name": "GPUS", "value": str(gpus)})
    made["spec"]["template"] = {"spec": {"containers": [{"name": names.TRAINER_CONTAINER, "env": env}]}}
    return msgspec.convert(made, Job)


def pod(of: Job, at: float, *conditions: Condition, **more: Any) -> Pod:
    suffix = f"{zlib.crc32(f'{of.model_id} {at}'.encode()) & 0xFFFFF:05x}"
    name = f"model-{of.model_id}-{suffix}"
    return a_pod(*conditions, name=name, model_id=of.model_id, job_uid=of.uid, created_at=at, **more)


def running_job(model_id: str, at: float, *, node: str = "gpu-a100-03", **more: Any) -> Pair:
    made = job(model_id, at=at, status=more.pop("status", {"active": 1}), **more)
    return made, [pod(made, at + 2, phase="Running", state=running(at + 20), node=node, scheduled_at=at + 3)]


def team_job(model_id: str, at: float, *nodes: str, of: int, **more: Any) -> Pair:
    """A Job for `of` nodes with 8 GPUs each. nodes: where its first pods run."""
    spec = {"completionMode": "Indexed", "completions": of}
    made = job(model_id, at=at, spec=spec, **{"gpus": 8, "status": {"active": len(nodes)}, **more})
    runs: dict[str, Any] = {"phase": "Running", "state": running(at + 20), "scheduled_at": at + 3}
    pods = [pod(made, at + 2 + index, node=node, index=index, **runs) for index, node in enumerate(nodes)]
    return made, pods


def reported_job(model_id: str, at: float, code: str, sentence: str, **more: Any) -> Pair:
    """at: when it was reported; Completed or Failed by its code."""
    done = code == "Completed"
    told = {"status": "Completed" if done else "Failed", "code": code, "sentence": sentence, "portal": "reported"}
    notes = {names.REPORTED: json.dumps(told), names.REPORTED_AT: rfc3339(at)}
    status = more.pop("status", {"succeeded": 1} if done else {"failed": 1})
    made = job(
        model_id,
        *(complete() if done else failed()),
        at=at - 1800,
        reported=True,
        status=status,
        annotations=notes,
        **more,
    )
    return made, [pod(made, at - 1790, phase="Succeeded" if done else "Failed", node="gpu-a100-01")]


class Feeds:
    """What StatusFeeds would have fetched."""

    def __init__(self) -> None:
        self.facts = QueueFacts(depth=0, poison_depth=0)
        self.progress: dict[str, PortalProgress] = {}
        self.words: dict[str, PortalWord] = {}  # by the Job's uid, or a model's container where it has none
        self.shown: list[tuple[str, str]] = []

    def look(self, patience: float = 0.0) -> tuple[QueueFacts, dict[str, PortalProgress]]:
        return self.facts, dict(self.progress)

    def show(self, jobs: Iterable[tuple[str, str]]) -> None:
        self.shown = list(jobs)

    def word(self, uid: str) -> tuple[PortalWord, float | None]:
        return self.words.get(uid, PortalWord("", "the portal has no such model")), 1795420800.0


class Shown:
    """The page over a world that the test changes. `url` while it is served."""

    def __init__(self, **more: Any) -> None:
        self.cache = ClusterCache(lambda name: None)
        self.summaries = Summaries()
        self.ended = EndedJobs(ttl=float("inf"))
        self.feeds = Feeds()
        self.refused_at = time.time()
        self.refusals = Refusals(lambda: self.refused_at)
        self.not_ready: list[str] = []
        self.url = ""
        self.page = StatusPage(
            self.cache,
            self.summaries,
            self.ended,
            self.feeds,  # type: ignore[arg-type]
            self.refusals,
            rules=RULES,
            process=Process(
                name="training-dispatcher-7d9f-x2x4q", identity="ab12cd34", version="0.1.0", namespace="training"
            ),
            lanes=(Lane("requests"),),
            active=self.cache.unfinished_by_queue,
            most=1000,
            not_ready=lambda: self.not_ready,
            **{"fresh": 0.0} | more,
        )
        self._server: HttpServer | None = None

    def put(self, pairs: Iterable[Pair]) -> None:
        """These are all the Jobs and pods that there are now. The reported ones have left the cache."""
        listed = list(pairs)
        unreported = [pair for pair in listed if not pair[0].is_reported]
        self.cache.replace("jobs", [each for each, _ in unreported])
        self.cache.replace("pods", [each for _, pods in unreported for each in pods])
        for ended in self.ended.latest(0.0):
            self.ended.drop(ended.job.name)
        for each, pods in listed:
            if each.is_reported:
                self.ended.add(each, pods)

    def start(self, port: int = 0) -> None:
        self._server = HttpServer("127.0.0.1", port, [self.page.route], name="test", paths="/ or /api/status")
        self.url = f"http://127.0.0.1:{self._server.port}/"
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._server = None


@contextmanager
def served() -> Iterator[Shown]:
    """An empty world, served."""
    shown = Shown()
    shown.put([])
    shown.start()
    yield shown
    shown.stop()


def a_message(model: object, at: float, *, id_: str = "m-1", deliveries: int = 0, **fields: Any) -> PeekedMessage:
    text = json.dumps({"task": "train", "model_container_name": model, **fields})
    return PeekedMessage(id_, text, deliveries, at)


def an_entry(model: object, code: str, sentence: str, at: float, id_: str = "p-1") -> PoisonEntry:
    text = json.dumps({"task": "train", "model_container_name": model})
    return PoisonEntry(code, sentence, id_, 1, rfc3339(at - 9), rfc3339(at), text)


def losses(epochs: int, start: float = 1.2, fall: float = 0.82) -> tuple[tuple[int, float], ...]:
    return tuple((n, round(start * fall**n + 0.08 + 0.02 * (n % 3), 4)) for n in range(1, epochs + 1))


def crowd(shown: Shown, now: float, number: int) -> None:
    """`number` Jobs, half of which run and half wait for a GPU, as the reconciler has them; put into `shown`."""
    text = "0/14 nodes are available: 3 node(s) had untolerated taint, 11 Insufficient nvidia.com/gpu"
    waits = job("w", at=now - 3600, status={"active": 1})
    no_node = pod(waits, now - 3600, a_condition("PodScheduled", "False", "Unschedulable", text), node=None)
    kinds = {"r": running_job("r", now - 3600), "w": (waits, [no_node])}
    pairs = [another(kinds[kind], f"{kind}-{n:04}") for kind in kinds for n in range(number // 2)]
    shown.put(pairs)
    for each, pods in pairs:
        decided = outcome.decide(each, pods, (), now, RULES.limits)
        shown.summaries.note(each.name, summarise(each, pods).after(decided))


def another(pair: Pair, model_id: str) -> Pair:
    """The same with another name, made in no time."""
    made, pods = pair
    changed = msgspec.structs.replace
    name, uid = f"model-{model_id}", f"uid-{model_id}"
    labels = changed(made.labels, model_id=model_id)
    notes = changed(made.annotations, message_id=f"message-{model_id}", run_id=f"run-{model_id}")
    owner = changed(pods[0].metadata.owner_references[0], uid=uid)
    whose = {"labels": labels, "owner_references": (owner,)}
    return changed(made, metadata=changed(made.metadata, name=name, uid=uid, labels=labels, annotations=notes)), [
        changed(each, metadata=changed(each.metadata, name=f"{name}-{n}", uid=f"{uid}-{n}", **whose))
        for n, each in enumerate(pods)
    ]


def busy(shown: Shown, now: float) -> Sequence[Pair]:
    """A working day's world, put into `shown`: every section has rows, every phase occurs."""
    minute, hour = 60.0, 3600.0
    tumours = running_job("tumours", now - 11 * minute, dataset="dataset-tumours")
    language = running_job(
        "70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8", now - 5 * hour, gpus=4, node="gpu-h100-01", dataset="dataset-crawl",
        status={"active": 1, "failed": 1},
        annotations={names.DISRUPTED: '["gone-1", "gone-2"]'},
    )  # fmt: skip
    custom = running_job("wind-turbines", now - 94 * minute, gpus=2, node="gpu-a100-07", dataset=None)
    fresh = running_job("houses-eu", now - 30, dataset="dataset-houses-eu")
    leaving = job("stopped-by-hand", at=now - 3 * hour, deleted_at=now - 20, status={"active": 1})
    no_gpu = job("galaxies", at=now - 41 * minute, gpus=8, dataset="dataset-galaxies", status={"active": 1})
    text = "0/14 nodes are available: 3 node(s) had untolerated taint, 11 Insufficient nvidia.com/gpu"
    unschedulable = a_condition("PodScheduled", "False", "Unschedulable", text)
    pulling = job("birdsong", at=now - 70, dataset="dataset-birdsong", status={"active": 1})
    pull = 'Back-off pulling image "registry.example.com/team/trainer:2.1"'
    queued = job("parcels", at=now - 3 * hour, suspended=True, labels={names.KUEUE_QUEUE_LABEL: "research"})
    half = job("leaflets", at=now - 2, launched=False)
    done = a_condition("Complete", reason="CompletionsReached", at=now - 25)
    reporting = job("invoices", a_condition("SuccessCriteriaMet"), done, at=now - 2 * hour, status={"succeeded": 1})
    pairs: list[Pair] = [
        tumours,
        language,
        custom,
        fresh,
        (leaving, [pod(leaving, now - 3 * hour, phase="Running", state=running(now - 2 * hour), deleted_at=now - 20)]),
        (no_gpu, [pod(no_gpu, now - 40 * minute, unschedulable, node=None)]),
        (pulling, [pod(pulling, now - 68, state=waiting("ImagePullBackOff", pull), scheduled_at=now - 66)]),
        (queued, []),
        (half, []),
        (reporting, [pod(reporting, now - 2 * hour, phase="Succeeded")]),
        reported_job("digits", now - 4 * minute, "Completed", "Model training completed successfully"),
        reported_job(
            "heart-rate", now - 18 * minute, "OutOfMemory",
            "The trainer used more than its memory limit of 32Gi. Ask the operator for more memory, or make batch_size "
            "smaller", status={"failed": 3},
        ),
        reported_job(
            "faces", now - 55 * minute, "DatasetMissing", "Failed to download dataset from container: dataset-faces"
        ),
        reported_job("wine", now - 3 * hour, "Completed", "Model training completed successfully"),
        reported_job(
            "mails", now - 7 * hour, "UserCodeFailed",
            "The training's own code failed: Traceback (most recent call last): File \"train.py\", line 41, in <mo"
            "dule> batch = collate(rows) ValueError: expected sequence of length 128 at dim 1 (got 131). Look at the "
            "log of the Job, mend the code and put the request on the queue again",
        ),
    ]  # fmt: skip
    shown.put(pairs)
    shown.feeds.progress = {
        "uid-tumours": PortalProgress("Epoch 14 of 20, loss 0.135, validation accuracy 0.965", now - 3, losses(14)),
        "uid-70fb5fb0-9b8a-4b9f-9f6f-2cc4e7b11de8": PortalProgress(
            "Epoch 3 of 40, step 8120 of 21400", now - 9, ((1, 4.31), (2, 3.72))
        ),
        "uid-wind-turbines": PortalProgress("Fold 2/5: tuning <b>learning rate</b>", now - 12),
        "uid-houses-eu": PortalProgress("Model training started", now - 2),
    }
    shown.feeds.facts = QueueFacts(
        depth=4,
        poison_depth=2,
        waiting=(
            a_message("model-cats", now - 31, id_="m-1", dataset_container_name="dataset-cats", resources={"gpus": 1}),
            a_message("model-dogs", now - 12, id_="m-2", deliveries=1, dataset_container_name="dataset-dogs"),
            a_message("Model_Ants", now - 5, id_="m-3"),
        ),
        poison=(
            an_entry("training-1", "InvalidContainerName", "Model container name 'training-1' does not start with "
                     "'model-': expected model-{id}, for example model-123", now - 2 * hour, "p-1"),
            an_entry("model-lost", "ModelUnknown", "The portal does not know model lost (after 5 deliveries)",
                     now - 26 * hour, "p-2"),
        ),
    )  # fmt: skip
    shown.refused_at = now - 9 * minute
    shown.refusals.note("model-wine", "refuse", "status Completed; only Created and Reconfigure may start", "r-1")
    return pairs
