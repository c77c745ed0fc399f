"""Failure modes of a pod's containers: sidecars, init containers, and what the runtime says of an end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dispatcher.cluster import names
from dispatcher.cluster.objects import Event as JobEvent
from dispatcher.decisions import outcome
from dispatcher.decisions.verdicts import Ended, Going, Outcome, Stop
from tests.failure_modes.bench import Bench, decided
from tests.world import json_objects as objects
from tests.world.builders import (
    LIMITS,
    T0,
    a_condition,
    event_json,
    failed,
    job_json,
    pod_json,
    running,
    terminated,
    waiting,
)

SIDECAR = {"name": "logs", "image": "fluent:1"}
WORD = '{"code": "DatasetInvalid", "message": "Invalid dataset: a.csv: row 3", "exit": 65}'


def with_a_sidecar(state: dict[str, Any], beside: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A pod with an ordinary second container, in the state `beside`."""
    pod = pod_json(phase="Running", state=state, scheduled_at=T0, **more)
    pod["spec"]["containers"].append(SIDECAR)
    pod["status"]["containerStatuses"].append({"name": "logs", "state": beside or running()})
    return pod


@pytest.mark.parametrize("word", [None, '{"code": "Completed", "message": "Model training completed successfully"}'])
@pytest.mark.parametrize("exit_code", [0, 202])
def test_f45_a_sidecar_that_fails_the_pod_does_not_have_it_trained_again(word: str | None, exit_code: int) -> None:
    """It was killed for memory, or deleted with its pod: Kubernetes would begin the next attempt in ten seconds."""
    pod = with_a_sidecar(terminated(exit_code, word), terminated(137))
    pod["status"]["phase"] = "Failed"
    published = exit_code == 0 or word is not None
    bench = Bench()
    bench.put(job_json(), pod)
    bench.look()
    assert bool(objects.annotation(bench.job(), names.STOPPED)) is published
    if published:
        bench.put(job_json(*failed("DeadlineExceeded"), stopped=objects.annotation(bench.job(), names.STOPPED)), pod)
    else:
        bench.put(job_json(*failed()), pod)
    bench.look()
    assert bench.portal()[0] == ("Completed" if published else "Failed")


@pytest.mark.parametrize(
    ("exit_code", "failed_before", "again"),
    [(127, 0, False), (128, 0, True), (201, 1, True), (201, 2, False)],
    ids=["permanent", "the first that is not", "one attempt is left", "none is left"],
)
def test_f45_only_where_kubernetes_would_try_again_the_pod_alone_is_removed(
    exit_code: int, failed_before: int, again: bool
) -> None:
    pod = with_a_sidecar(terminated(exit_code, None))
    found = decided(pod, job=job_json(status={"failed": failed_before}), now=T0 + 200)
    assert found == Going(remove_pods=True) if again else isinstance(found, Stop)


@pytest.mark.parametrize(("finished_at", "code"), [(T0 + 60, "UserCodeFailed"), (T0 + 200, "Timeout")])
def test_f45_a_trainer_without_a_word_counts_where_it_ended_before_the_deadline(finished_at: float, code: str) -> None:
    pod = with_a_sidecar(terminated(79, "boom", finished_at=finished_at))
    over = [a_condition(kind, reason="DeadlineExceeded", at=T0 + 150) for kind in ("FailureTarget", "Failed")]
    ended = decided(pod, job=job_json(*over), now=T0 + 300)
    assert isinstance(ended, Ended)
    assert ended.verdict.code == code


def test_f45_a_nodes_clock_that_is_behind_takes_nothing_of_a_sidecars_grace() -> None:
    pod = objects.pod(with_a_sidecar(terminated(0, None, finished_at=T0 - 3600)))

    def after(seconds: float) -> Outcome:
        return outcome.decide(objects.job(job_json()), [pod], (), T0 + seconds, LIMITS, failing_since=T0)

    assert isinstance(after(59), Going)
    assert isinstance(after(60), Stop)


def test_f45_a_program_that_ends_with_0_as_it_is_told_to_has_not_succeeded_beside_a_sidecar_either() -> None:
    pod = with_a_sidecar(terminated(0, None), terminated(137), deleted_at=T0)
    pod["status"]["phase"] = "Failed"
    assert isinstance(decided(pod, now=T0 + 61), Going), "its next attempt goes on from the checkpoint"


@pytest.mark.parametrize(
    ("state", "status", "message"),
    [
        (terminated(0, '{"code": "Completed", "message": "Model training completed successfully"}'), "Completed", ""),
        (terminated(202, '{"code": "Completed", "message": "Published, and the portal untold"}'), "Completed", ""),
        (terminated(0, None, "Completed"), "Completed", "Model training completed successfully"),
        (terminated(65, WORD), "Failed", "Invalid dataset: a.csv: row 3"),
        (terminated(79, "boom"), "Failed", "exit code 79: boom"),
    ],
)
def test_f45_a_sidecar_that_goes_on_does_not_hold_the_gpu_or_change_the_trainers_word(
    state: dict[str, Any], status: str, message: str
) -> None:
    bench = Bench()
    bench.put(job_json(), with_a_sidecar(state))
    bench.pass_time(90)
    bench.look()
    assert not objects.annotation(bench.job(), names.STOPPED), "it has a grace to send its last logs"
    bench.pass_time(60)
    assert "cluster.patch" in bench.look()
    assert bench.job()["spec"]["activeDeadlineSeconds"] == 1
    ended = job_json(*failed("DeadlineExceeded"), stopped=objects.annotation(bench.job(), names.STOPPED))
    bench.put(ended)
    bench.look()
    assert bench.portal()[0] == status
    assert message in bench.portal()[1]


def test_f45_another_attempt_begins_where_one_is_left() -> None:
    bench = Bench()
    bench.put(job_json(status={"failed": 1}), with_a_sidecar(terminated(201, None)))
    bench.look()
    bench.pass_time(60 + 61)
    looked = bench.look()
    assert "cluster.delete-pod" in looked, looked
    assert not objects.annotation(bench.job(), names.STOPPED)


@pytest.mark.parametrize("deleted", [False, True])
def test_f45_the_trainers_word_wins_when_the_deadline_or_a_deletion_comes_first(deleted: bool) -> None:
    pod = with_a_sidecar(terminated(65, WORD), terminated(143)["terminated"], deleted_at=T0 + 90)
    pod["status"]["phase"] = "Failed"
    job = job_json(deleted_at=T0 + 90) if deleted else job_json(*failed("DeadlineExceeded"))
    told = decided(pod, job=job, now=T0 + 1000)
    assert isinstance(told, Ended)
    assert told.verdict.code == "DatasetInvalid"


def test_f45_a_trainer_that_the_deadline_ended_is_told_the_deadline() -> None:
    stopped = terminated(143, '{"code": "Terminated", "message": "Stopped by SIGTERM"}', finished_at=T0 + 92)
    pod = with_a_sidecar(stopped, terminated(143), deleted_at=T0 + 90)
    pod["status"]["phase"] = "Failed"
    conditions = [a_condition(kind, "True", "DeadlineExceeded", at=T0 + 90) for kind in ("FailureTarget", "Failed")]
    told = decided(pod, job=job_json(*conditions), now=T0 + 1000)
    assert isinstance(told, Ended)
    assert told.verdict.code == "Timeout"


@pytest.mark.parametrize(
    "trainer",
    [
        {"restartPolicy": "Always"},
        {"restartPolicy": "OnFailure"},
        {"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [65]}}]},
    ],
)
def test_f45_a_container_that_the_kubelet_restarts_in_place_has_not_ended(trainer: dict[str, Any]) -> None:
    pod = with_a_sidecar(terminated(65, WORD))
    pod["spec"]["containers"][0].update(trainer)
    assert isinstance(decided(pod, now=T0 + 1000), Going)


def test_f45_what_the_kubelet_ends_itself_is_left_to_it() -> None:
    pod = pod_json(phase="Running", state=terminated(0), scheduled_at=T0)
    pod["spec"]["initContainers"] = [{**SIDECAR, "restartPolicy": "Always"}]
    pod["status"]["initContainerStatuses"] = [{"name": "logs", "started": True, "state": running()}]
    assert decided(pod, now=T0 + 1000) == Going()


def with_init(*inits: tuple[str, dict[str, Any], str | None], **more: Any) -> dict[str, Any]:
    """A pod whose trainer waits for these init containers: (name, state, restartPolicy)."""
    more = {"state": waiting("PodInitializing"), "scheduled_at": T0} | more
    pod = pod_json(**more)
    pod["spec"]["initContainers"] = [
        {"name": name, "image": f"{name}:1"} | ({"restartPolicy": policy} if policy else {})
        for name, _, policy in inits
    ]
    pod["status"]["initContainerStatuses"] = [
        {"name": name, "started": "running" in state, "state": state} for name, state, _ in inits
    ]
    return pod


DONE = terminated(0, None, "Completed")


@pytest.mark.parametrize(
    ("reason", "code", "limit"),
    [
        ("InvalidImageName", "ImagePull", 0.0),
        ("ImagePullBackOff", "ImagePull", 600.0),
        ("CreateContainerConfigError", "ContainerConfig", 300.0),
        ("CrashLoopBackOff", "ContainerConfig", 300.0),
    ],
)
@pytest.mark.parametrize("policy", [None, "Always"])
def test_f46_an_init_container_has_the_trainers_limits_and_is_named(
    reason: str, code: str, limit: float, policy: str | None
) -> None:
    pod = with_init(("first", DONE, None), ("setup", waiting(reason, "no such thing"), policy))
    if limit:
        going = decided(pod, now=T0 + limit - 1)
        assert isinstance(going, Going)
        assert "setup" in (going.progress or "")
        assert "no such thing" in (going.progress or "")
    stop = decided(pod, now=T0 + limit)
    assert isinstance(stop, Stop)
    assert stop.verdict.code == code
    assert "setup" in stop.verdict.sentence
    assert "trainer" not in stop.verdict.sentence


def test_f46_what_is_waited_for_is_told_by_its_name() -> None:
    pull = with_init(("first", waiting("PodInitializing"), None))
    works = with_init(("mesh", waiting("CrashLoopBackOff"), "Always"), ("data", running(), None))
    starts = with_init(("mesh", {"running": {}}, "Always"))
    starts["status"]["initContainerStatuses"][0]["started"] = False
    told = [decided(pod, now=T0 + 20) for pod in (pull, works, starts)]
    assert [going.progress for going in told if isinstance(going, Going)] == [
        "Pulling the image of the init container first",
        "Waiting for the init container data to end",
        "Waiting for the sidecar mesh to start",
    ]
    assert isinstance(decided(works, now=T0 + 9999), Going), "it works, however long it takes"


def mesh(state: dict[str, Any]) -> dict[str, Any]:
    """A pod whose native sidecar has not started: its startup probe does not succeed."""
    pod = with_init(("mesh", state, "Always"))
    pod["status"]["initContainerStatuses"][0]["started"] = False
    return pod


def test_f46_a_sidecar_that_does_not_start_holds_no_gpu_for_ever() -> None:
    going = decided(mesh(running(T0 + 20)), now=T0 + 319)
    assert going == Going("Waiting for the sidecar mesh to start", T0 + 320)
    stop = decided(mesh(running(T0 + 20)), now=T0 + 320)
    assert isinstance(stop, Stop)
    assert stop.verdict.code == "ContainerConfig"
    assert "The sidecar mesh has not started within 300 seconds" in stop.verdict.sentence


def test_f46_a_sidecar_that_is_started_again_and_again_has_its_grace_once() -> None:
    """Its startup probe kills it before its grace is over, each time."""
    bench, seconds = Bench(), 0
    bench.put(job_json(), mesh(running()))
    bench.look()
    while not objects.annotation(bench.job(), names.STOPPED):
        bench.pass_time(50)
        seconds += 50
        running_again = running(T0 + seconds)
        state = [running_again, terminated(137), waiting("CrashLoopBackOff", "back-off")][seconds // 50 % 3]
        bench.put(bench.job(), mesh(state))
        bench.look()
    assert seconds == 350, "not while it runs, but as soon as it has failed again"
    assert "ContainerConfig" in (objects.annotation(bench.job(), names.STOPPED) or "")


def test_f46_one_containers_image_does_not_hide_what_another_is_stuck_on() -> None:
    pod = with_init(("setup", DONE, None), state=waiting("PodInitializing"))
    pulled = event_json("Pulling image", T0 + 5, "Pulling")
    pulled["involvedObject"]["fieldPath"] = "spec.initContainers{setup}"
    stuck = event_json("failed to create pod sandbox: no IP address", T0 + 30, "FailedCreatePodSandBox")
    events = [msgspec.convert(item, JobEvent) for item in (pulled, stuck)]
    going = decided(pod, now=T0 + 100, events=events)
    assert isinstance(going, Going)
    assert "no IP address" in (going.progress or "")
    assert isinstance(decided(pod, now=T0 + 400, events=events), Stop)


def test_f46_an_init_container_that_ends_badly_is_told_by_its_name() -> None:
    oom = with_init(("setup", terminated(137, None, "OOMKilled"), None), phase="Failed")
    told = decided(oom, job=job_json(*failed()), now=T0 + 100)
    assert isinstance(told, Ended)
    assert told.verdict.code == "InitFailed"
    assert "setup of the training pod used more than its memory" in told.verdict.sentence


NVIDIA = "nvidia-container-cli: initialization error: driver error: failed to process request: unknown"
RUNC = "OCI runtime create failed: runc create failed: unable to start container process: "


@pytest.mark.parametrize(
    ("exit_code", "reason", "text", "code", "words"),
    [
        (137, "ContainerStatusUnknown", "The container could not be located", "ContainerLost", "could not be located"),
        (255, "Unknown", None, "ContainerLost", "node-7 lost the trainer container"),
        (255, "Unknown", "last line", "ContainerLost", "last line"),
        (255, "Error", None, "ContainerLost", "exit code 255"),
        (128, "StartError", RUNC + 'exec: "/x": stat /x: no such file or directory', "CommandNotFound", "/x"),
        (128, "StartError", RUNC + 'exec: "x": executable file not found in $PATH', "CommandNotFound", "$PATH"),
        (128, "ContainerCannotRun", 'exec: "/x": permission denied', "CommandNotFound", "permission denied"),
        (128, "StartError", RUNC + "exec /x: exec format error", "CommandNotFound", "exec format error"),
        (128, "StartError", RUNC + "error running prestart hook #0: " + NVIDIA, "GpuRuntimeFailed", "driver error"),
        (
            128,
            "StartError",
            RUNC + 'exec: "/opt/nvidia/entry.sh": stat: no such file or directory',
            "CommandNotFound",
            "",
        ),
        (128, "StartError", RUNC + 'exec: "nvidia-container-cli": executable file not found', "GpuRuntimeFailed", ""),
        (128, "StartError", "unresolvable CDI devices nvidia.com/gpu=0", "GpuRuntimeFailed", "CDI devices"),
        (128, "StartError", RUNC + "cgroup: no space left", "RuntimeFailed", "no space left"),
    ],
)
def test_f49_what_kubernetes_says_of_an_end_comes_before_its_exit_code(
    exit_code: int, reason: str, text: str | None, code: str, words: str
) -> None:
    pod = pod_json(phase="Failed", state=terminated(exit_code, text, reason))
    told = decided(pod, job=job_json(*failed()), now=T0 + 100)
    assert isinstance(told, Ended)
    assert told.verdict.code == code
    assert words in told.verdict.sentence
    assert "memory" not in told.verdict.sentence


def test_f49_a_node_that_shuts_down_and_a_deletion_are_no_lack_of_memory() -> None:
    shut = pod_json(phase="Failed", reason="Terminated", message="imminent node shutdown", state=terminated(137))
    gone = pod_json(phase="Failed", deleted_at=T0 + 20, state=terminated(137))
    for pod, code in ((shut, "NodeShutdown"), (gone, "PodDeleted")):
        told = decided(pod, job=job_json(*failed()), now=T0 + 100)
        assert isinstance(told, Ended)
        assert told.verdict.code == code


def test_f49_a_command_that_is_not_in_the_image_is_not_tried_again() -> None:
    missing = terminated(128, RUNC + 'exec: "x": executable file not found in $PATH', "StartError")
    broken = terminated(128, RUNC + NVIDIA, "StartError")
    job = job_json(status={"failed": 1})
    stop = decided(pod_json(phase="Failed", state=missing), job=job, now=T0 + 100)
    assert isinstance(stop, Stop)
    assert stop.verdict.code == "CommandNotFound"
    assert isinstance(decided(pod_json(phase="Failed", state=broken), job=job, now=T0 + 100), Going), "another node may"
    dead = pod_json(phase="Failed", state=missing)
    alive = pod_json(name="model-1-bbbbb", phase="Running", state=running(), created_at=T0 + 50)
    assert isinstance(decided(dead, alive, job=job, now=T0 + 100), Going), "its image was mended meanwhile"


def test_f49_a_container_that_waits_with_the_runtimes_words_is_told_whose_they_are() -> None:
    for text, code in ((NVIDIA, "GpuRuntimeFailed"), ('exec: "x": executable file not found', "CommandNotFound")):
        pod = pod_json(state=waiting("CreateContainerError", text), scheduled_at=T0)
        stop = decided(pod, now=T0 + 300)
        assert isinstance(stop, Stop)
        assert stop.verdict.code == code


def test_f50_a_native_sidecars_end_is_not_why_its_pod_failed() -> None:
    ended = (("mesh", terminated(143), "Always"), ("data", DONE, None))
    gone = with_init(*ended, phase="Failed", deleted_at=T0 + 20, state=waiting("PodInitializing"))
    rejected = with_init(*ended, phase="Failed", reason="UnexpectedAdmissionError", message="no such device")
    cut = with_init(("data", terminated(143), None), phase="Failed", deleted_at=T0 + 20)
    for pod, code in ((gone, "PodDeleted"), (rejected, "NodeRejected"), (cut, "PodDeleted")):
        told = decided(pod, job=job_json(*failed()), now=T0 + 100)
        assert isinstance(told, Ended)
        assert told.verdict.code == code
