"""Failure modes of `dispatcher check --in-pod`: whatever ends the command, its Job goes with it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher.cli.checks import pod_check
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterUnavailable
from dispatcher.config.settings import Settings
from dispatcher.launch.request import Bounds, decode
from local_stack.processes import bare_environment
from tests.world.dispatcher_process import Stage


def jobs(stage: Stage) -> list[dict[str, Any]]:
    return stage.cluster.jobs(stage.namespace)


@contextlib.contextmanager
def checking(stage: Stage) -> Iterator[subprocess.Popen[str]]:
    """The command, once its pod runs."""
    stage.write_template()
    process = subprocess.Popen(
        [sys.executable, "-m", "dispatcher", "check", "--in-pod", "model-runs-1"],
        env=bare_environment() | stage.settings,
        cwd=stage.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        stage.wait(lambda: any(pod["status"].get("phase") == "Running" for pod in stage.cluster.pods(stage.namespace)))
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_f75_an_interrupted_check_takes_its_job_along(stage: Stage, number: signal.Signals) -> None:
    with checking(stage) as process:
        process.send_signal(number)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 128 + number
    assert jobs(stage) == []
    assert "Traceback" not in err
    stage.wait(lambda: stage.cluster.pods(stage.namespace) == [])


def test_f75_a_check_that_nobody_reads_any_more_takes_its_job_along(stage: Stage) -> None:
    """No signal comes with a terminal that is closed at the other end of `kubectl exec`."""
    with checking(stage) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(30)
        process.stdout = None
        stage.wait(lambda: jobs(stage) == [])


def test_f75_a_check_that_was_killed_leaves_its_job_for_a_moment_only(stage: Stage) -> None:
    with checking(stage) as process:
        process.kill()
    (job,) = jobs(stage)
    assert job["spec"]["activeDeadlineSeconds"] <= 120
    assert job["spec"]["ttlSecondsAfterFinished"] <= 120
    stage.cluster.api(
        "PATCH",
        f"/apis/batch/v1/namespaces/{stage.namespace}/jobs/{job['metadata']['name']}",
        {"spec": {"activeDeadlineSeconds": 1, "ttlSecondsAfterFinished": 0}},
    )
    stage.wait(lambda: jobs(stage) == [])


def test_f75_while_somebody_waits_the_deadline_is_put_off(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_check, "_LEASE", 3)
    monkeypatch.setattr(pod_check, "_RENEW", 0.5)
    found = waited(stage, monkeypatch, seconds=6)
    assert (found.result, found.sentence) == ("failed", "it did not end in time; at last: it was running")
    assert jobs(stage) == []


@pytest.mark.parametrize("after", [True, False])
def test_f75_a_job_whose_creation_nobody_heard_of_is_removed_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    stage.cluster.fail("create", "jobs", status=500, after=after)
    with pytest.raises(ClusterUnavailable):
        waited(stage, monkeypatch, seconds=30)
    assert jobs(stage) == []
    assert stage.cluster.calls().get("delete jobs", 0) <= 1


def waited(stage: Stage, monkeypatch: pytest.MonkeyPatch, seconds: float) -> Any:
    stage.write_template()
    monkeypatch.setenv("KUBECONFIG", str(stage.cluster.kubeconfig))
    stage.cluster.clear_calls()
    request = decode('{"task": "train", "model_container_name": "model-runs-1"}', Bounds(1, 3600))
    return pod_check.check_in_pod(Settings.read(stage.settings), request, seconds, lambda text: None)


def test_f75_a_check_that_may_not_create_a_job_says_just_that(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.cluster.refuse_jobs('admission webhook "w" denied the request: no')
    said: list[str] = []
    monkeypatch.setattr(KubernetesJobs, "delete_job", lambda *_: said.append("deleted"))
    with pytest.raises(Exception, match="denied the request: no"):
        waited(stage, monkeypatch, seconds=5)
    assert said == []
    stage.cluster.refuse_jobs()
