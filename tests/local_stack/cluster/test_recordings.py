"""Each recorded situation, done again on the stand-in: Jobs, pods and Events go through the recorded states.

Intermediate states may be merged or split, as they are from run to run on a real cluster; order, conditions,
reasons, messages, exit codes and counters may not differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from local_stack.cluster.client import StandInCluster, start_cluster
from local_stack.processes import wait_until
from tests.local_stack.cluster.replay import (
    FINALIZER,
    Obj,
    by_object,
    difference,
    event_facts,
    job_facts,
    plain_spec,
    pod_facts,
    recorded,
)
from tests.world.kube import Kube, find, is_running, waiting_reason
from tests.world.repository import RECORDED

_QUICK = ("--job-backoff", "0.3", "--pull-backoff", "1.0", "--retry", "0.1")
_FACTS = {"jobs": job_facts, "pods": pod_facts, "events": event_facts}


@dataclass
class Replay:
    """One situation under way in a namespace of its own."""

    kube: Kube
    stand_in: StandInCluster
    seen: dict[str, list[Obj]]

    def start(self, situation: str, name: str = "model-1", **changes: Any) -> None:
        """Create a recorded Job as it was sent."""
        job = next(e["object"] for e in recorded(situation, "jobs") if e["object"]["metadata"]["name"] == name)
        spec = {**plain_spec(job), **changes}
        meta = {"name": name, "finalizers": job["metadata"].get("finalizers")}
        self.kube.create("jobs", {"metadata": meta, "spec": spec})

    def running(self, name: str = "model-1") -> str:
        """The running pod's name, once it runs and the Job has counted it."""
        pod = self.kube.wait_pod(name, is_running)
        wait_until(lambda: (self.kube.get("jobs", name) or {})["status"].get("ready") == 1)
        return str(pod["metadata"]["name"])


Act = Callable[[Replay], object]


def _until(condition: str) -> Callable[[str], Act]:
    def bound(situation: str) -> Act:
        def act(replay: Replay) -> None:
            replay.start(situation)
            replay.kube.wait_job("model-1", condition)

        return act

    return bound


def _waits(reason: str) -> Callable[[str], Act]:
    def bound(situation: str) -> Act:
        def act(replay: Replay) -> None:
            replay.start(situation)
            replay.kube.wait_pod("model-1", lambda pod: waiting_reason(pod) == reason)

        return act

    return bound


def _image_pull(replay: Replay) -> None:
    replay.start("image-pull")
    for reason in ("ErrImagePull", "ImagePullBackOff", "ErrImagePull"):

        def waits(pod: Obj, reason: str = reason) -> bool:
            return waiting_reason(pod) == reason

        replay.kube.wait_pod("model-1", waits)


def _init_image_pull(replay: Replay) -> None:
    replay.start("init-image-pull")
    for reason in ("ErrImagePull", "ImagePullBackOff"):

        def waits(pod: Obj, reason: str = reason) -> bool:
            ((word, state),) = pod["status"]["initContainerStatuses"][0]["state"].items()
            return word == "waiting" and state["reason"] == reason

        replay.kube.wait_pod("model-1", lambda pod: "initContainerStatuses" in pod["status"] and waits(pod))


def _sidecar_goes_on(replay: Replay) -> None:
    replay.start("sidecar-goes-on")
    replay.running()
    wait_until(lambda: (replay.kube.get("jobs", "model-1") or {})["status"].get("ready") == 0)


def _unschedulable(replay: Replay) -> None:
    replay.start("unschedulable")
    replay.kube.wait_pod("model-1", lambda pod: find(pod, "PodScheduled"))


def _deadline(replay: Replay) -> None:
    replay.start("deadline", activeDeadlineSeconds=2)
    replay.running()
    replay.kube.wait_job("model-1", "Failed")


def _api_evicted(replay: Replay) -> None:
    replay.start("api-evicted")
    pod = replay.running()
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    assert replay.kube.call("POST", replay.kube.path("pods", pod) + "/eviction", body).code == 201
    replay.kube.wait_gone("pods", pod)


def _preempted(replay: Replay) -> None:
    kube = replay.kube
    urgent = {"metadata": {"name": "urgent"}, "value": 1000}
    kube.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", urgent)
    replay.start("preempted")
    replay.running()
    job = next(e["object"] for e in recorded("preempted", "jobs") if e["object"]["metadata"]["name"] == "model-2")
    spec = plain_spec(job)
    spec["template"]["spec"]["containers"][0]["command"] = ["/bin/sh", "-c", "sleep 1"]
    kube.create("jobs", {"metadata": {"name": "model-2", "finalizers": [FINALIZER]}, "spec": spec})
    kube.wait_job("model-2", "Complete")
    replay.running()


def _node_lost(replay: Replay) -> None:
    replay.start("node-lost")
    pod = replay.running()
    replay.stand_in.lose_node(evict_after=0.3)
    wait_until(lambda: (replay.kube.get("pods", pod) or {})["metadata"].get("deletionTimestamp"))
    wait_until(lambda: (replay.kube.get("jobs", "model-1") or {})["status"].get("terminating") == 1)
    replay.stand_in.return_node()
    replay.kube.wait_gone("pods", pod)
    replay.running()


def _job_deleted(replay: Replay) -> None:
    kube = replay.kube
    replay.start("job-deleted")
    pod = kube.wait_pod("model-1", is_running)["metadata"]["name"]
    kube.delete("jobs", "model-1", propagationPolicy="Background")
    wait_until(lambda: not (kube.get("pods", pod) or {})["metadata"].get("finalizers"))
    kube.delete("pods", pod)
    kube.wait_gone("pods", pod)
    wait_until(lambda: (kube.get("jobs", "model-1") or {})["status"].get("terminating") == 0)
    kube.patch("jobs", "model-1", {"metadata": {"finalizers": None}})
    kube.wait_gone("jobs", "model-1")


def _pod_deleted(replay: Replay) -> None:
    replay.start("pod-deleted")
    pod = replay.kube.wait_pod("model-1", is_running)
    # The program needs a moment to install its trap; the recording's had one as well.
    time.sleep(0.3)
    replay.kube.delete("pods", pod["metadata"]["name"])
    replay.kube.wait_gone("pods", pod["metadata"]["name"])
    wait_until(lambda: (replay.kube.get("jobs", "model-1") or {})["status"].get("active") == 1)


def _quota(replay: Replay) -> None:
    replay.stand_in.set_quota(replay.kube.namespace, {"requests.nvidia.com/gpu": "0"})
    replay.start("quota")
    wait_until(lambda: len(replay.seen["events"]) >= 2)


def _suspended(replay: Replay) -> None:
    replay.start("suspended-then-resumed")
    replay.kube.wait_job("model-1", "Suspended")
    replay.kube.patch("jobs", "model-1", {"spec": {"suspend": False}})
    replay.kube.wait_job("model-1", "Complete")


def _ttl(replay: Replay) -> None:
    replay.start("ttl-after-report")
    replay.kube.wait_job("model-1", "Complete")
    patch = {"metadata": {"finalizers": None}, "spec": {"ttlSecondsAfterFinished": 3}}
    assert replay.kube.patch("jobs", "model-1", patch).code == 200
    replay.kube.wait_gone("jobs", "model-1")


def _indexed_completed(replay: Replay) -> None:
    replay.stand_in.set_gpus(1)
    replay.start("indexed-completed")
    replay.kube.wait_job("model-1", "Complete")
    replay.stand_in.set_gpus(2)


SITUATIONS: dict[str, Act] = {
    "completed": _until("Complete")("completed"),
    "permanent-exit": _until("Failed")("permanent-exit"),
    "retries-exhausted": _until("Failed")("retries-exhausted"),
    "log-tail-only": _until("Failed")("log-tail-only"),
    "out-of-memory": _until("Failed")("out-of-memory"),
    "killed-137": _until("Failed")("killed-137"),
    "image-pull": _image_pull,
    "init-image-pull": _init_image_pull,
    "missing-command": _until("Failed")("missing-command"),
    "native-sidecar": _until("Complete")("native-sidecar"),
    "sidecar-goes-on": _sidecar_goes_on,
    "image-never-pull": _waits("ErrImageNeverPull")("image-never-pull"),
    "invalid-image-name": _waits("InvalidImageName")("invalid-image-name"),
    "missing-secret": _waits("CreateContainerConfigError")("missing-secret"),
    "unschedulable": _unschedulable,
    "deadline": _deadline,
    "api-evicted": _api_evicted,
    "preempted": _preempted,
    "node-lost": _node_lost,
    "job-deleted": _job_deleted,
    "pod-deleted": _pod_deleted,
    "quota": _quota,
    "suspended-then-resumed": _suspended,
    "ttl-after-report": _ttl,
    "indexed-completed": _indexed_completed,
    "indexed-one-fails-for-good": _until("Failed")("indexed-one-fails-for-good"),
}
# These need the whole node: its two GPUs, or its absence.
_ALONE = ("preempted", "node-lost", "indexed-completed")


@pytest.fixture(scope="module")
def replays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[dict[str, list[Obj]]]]]:
    """All situations, replayed side by side on a node with many GPUs, and two one after the other on a small one."""
    images = {"localhost/bb:1": None}
    with ExitStack() as stack:
        large = stack.enter_context(
            start_cluster(tmp_path_factory.mktemp("large"), "--gpus", "40", *_QUICK, images=images)
        )
        patient = [*_QUICK[2:], "--job-backoff", "2"]  # the first pod is replaced after the second has ended
        small = stack.enter_context(start_cluster(tmp_path_factory.mktemp("small"), *patient, images=images))
        shared = stack.enter_context(ThreadPoolExecutor(6))
        alone = stack.enter_context(ThreadPoolExecutor(1))
        found = {}
        for situation in SITUATIONS:
            threads, stand_in = (alone, small) if situation in _ALONE else (shared, large)
            # Here, not in its thread: it looks through the environment, in which pytest has each test's name.
            kube = Kube(stand_in.kubeconfig, f"rec-{situation}", "localhost/bb:1")
            found[situation] = threads.submit(_replay, stand_in, situation, kube)
        yield found


def _replay(stand_in: StandInCluster, situation: str, kube: Kube) -> dict[str, list[Obj]]:
    namespace = f"rec-{situation}"
    created = kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    assert created.code == 201, created.body
    with ExitStack() as stack:
        seen = {kind: stack.enter_context(kube.watching(kind)) for kind in _FACTS}
        SITUATIONS[situation](Replay(kube, stand_in, seen))
        _settle(seen)
        found = {kind: list(events) for kind, events in seen.items()}
    for name in ("model-1", "model-2"):
        kube.clear(name)
    return found


def _settle(seen: dict[str, list[Obj]]) -> None:
    """Until nothing has happened for a moment: the last writes have reached the watches."""
    count = -1
    deadline = time.monotonic() + 3.0
    while count != (count := sum(len(events) for events in seen.values())) and time.monotonic() < deadline:
        time.sleep(0.3)


@pytest.mark.parametrize("kind", list(_FACTS))
@pytest.mark.parametrize("situation", list(SITUATIONS))
def test_the_stand_in_goes_through_the_recorded_states(
    replays: dict[str, Future[dict[str, list[Obj]]]], situation: str, kind: str
) -> None:
    seen = replays[situation].result(timeout=100)[kind]
    wanted = recorded(situation, kind)
    if kind == "events":
        mine_said, real_said = ({event_facts(event) for event in events} for events in (seen, wanted))
        assert mine_said - real_said == set()
        assert real_said - mine_said == set()
        return
    facts = job_facts if kind == "jobs" else pod_facts
    mine, real = by_object(seen, facts), by_object(wanted, facts)
    assert len(mine) >= len(real)
    for ours, theirs in zip(mine, real, strict=False):
        assert not (found := difference(ours, theirs)), found


def test_every_recording_is_replayed() -> None:
    folders = {path.name for path in RECORDED.iterdir() if path.is_dir()}
    assert folders == set(SITUATIONS)
