"""`make scale`: it runs, its trainings are such as a real API server shows, and it leaves nothing on a cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.scale import docs
from benchmarks.scale.measure import Figures
from benchmarks.scale.objects import Trainings
from dispatcher.config.settings import Settings
from local_stack.azurite import Azurite
from local_stack.cluster.client import StandInCluster, start_cluster
from local_stack.cluster.registry.fields import decode
from local_stack.processes import wait_until
from local_stack.stack import JOB_TEMPLATE
from tests.world.kube import Kube
from tests.world.repository import RECORDED, ROOT

pytestmark = pytest.mark.long

_QUICK = ("--seconds", "0.5", "--no-docs")
_RECORDED = {
    "running": ("suspended-then-resumed", {"active": 1, "ready": 1}, "Running"),
    "waiting": ("unschedulable", {"active": 1, "ready": 0}, "Pending"),
    "reported": ("suspended-then-resumed", {"succeeded": 1}, "Succeeded"),
}
_SETTINGS = {
    "QUEUE_NAME": "scale",
    "AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true",
    "API_BASE_URL": "https://portal.example",
    "API_KEY": "key",
    "JOB_TEMPLATE": str(JOB_TEMPLATE),
    "TRAINER_IMAGE": "registry.example/trainer:1",
}


def _scale(*options: str, **environment: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "benchmarks.scale", *_QUICK, *options]
    kept = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "NAMESPACE")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(argv, cwd=ROOT, env={**kept, **environment}, text=True, **pipes)


def _trainings(state: str, request_bytes: int = 0) -> Trainings:
    return Trainings(Settings.read(_SETTINGS), "1234", "training", state, request_bytes)


def _recorded(folder: str, file: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """The last recorded status that has these values, as a real API server wrote it."""
    lines = (RECORDED / folder / f"{file}.jsonl").read_text().splitlines()
    found = [json.loads(line)["object"]["status"] for line in lines]
    return next(status for status in reversed(found) if chosen.items() <= status.items())


@pytest.mark.parametrize("state", _RECORDED)
def test_trainings_have_the_fields_and_the_size_that_a_real_server_gives_them(state: str) -> None:
    job, pod = (json.loads(text) for text in _trainings(state).whole(5))
    for obj in (job, pod):
        assert 8_000 < len(json.dumps(obj, separators=(",", ":"))) < 12_000
        assert [entry["manager"] for entry in obj["metadata"].pop("managedFields")]
        decode(obj["kind"], obj["apiVersion"], obj, "Strict")
    folder, of_job, phase = _RECORDED[state]
    assert set(job["status"]) >= set(_recorded(folder, "jobs", of_job))
    recorded = _recorded(folder, "pods", {"phase": phase})
    assert set(pod["status"]) >= set(recorded)
    for ours, theirs in zip(
        pod["status"].get("containerStatuses", ()), recorded.get("containerStatuses", ()), strict=True
    ):
        assert set(ours) >= set(theirs)
    assert "@" not in re.sub(r"@sha256:", "", json.dumps([job, pod])), "each word was replaced"


def test_each_training_is_another_one_and_a_large_request_is_as_large_as_asked_for() -> None:
    trainings = _trainings("running", 20_000)
    first, second = (json.loads(trainings.whole(number)[0]) for number in (1, 2))
    for path in ("uid", "name"):
        assert first["metadata"][path] != second["metadata"][path]
    assert first["metadata"]["labels"]["training-dispatcher/model-id"] == trainings.model_id(1)
    request = first["metadata"]["annotations"]["training-dispatcher/request"]
    env = {entry["name"]: entry.get("value") for entry in first["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["TRAINING_REQUEST"] == request
    assert len(request) == pytest.approx(20_000, rel=0.01)
    assert _trainings("reported", 65_536).whole(1), "the largest that a message can be"


def test_a_run_on_the_stand_in_prints_a_row_for_each_size(azurite: Azurite) -> None:
    del azurite  # installed
    process = _scale("--sizes", "2,6", "--reported", "3", "--request-bytes", "2000", "--page")
    said, complaints = process.communicate(timeout=100)
    assert process.returncode == 0, complaints
    row = r"\| {} \| \d+ MiB \| \d+ MiB \| [\d.]+ % \| [\d.]+ s \| \d+ s \| \d+ \| \d+ \|\nuntil then: \d+ calls to"
    for size in (2, 6):
        assert re.search(row.format(size), said), said
    assert re.search(
        r"; /api/status: [\d.]+ s, [\d,]+ bytes; /metrics: [\d.]+ s, [\d,]+ bytes; after them peak \d+ MiB$", said
    ), said


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInCluster]:
    """In place of a real cluster, whose controllers would leave these objects alone, too."""
    with start_cluster(tmp_path_factory.mktemp("cluster"), "--idle", "--namespace", "training") as it:
        it.create_service_account("model-training", "training")
        yield it


@pytest.mark.parametrize("interrupted", [False, True])
def test_on_a_cluster_nothing_is_left_of_a_run_and_nothing_else_is_touched(
    azurite: Azurite, cluster: StandInCluster, interrupted: bool
) -> None:
    del azurite  # installed
    kube = Kube(cluster.kubeconfig, "training", "any:1")
    if not kube.get("jobs", "model-1"):
        kube.start("model-1", "exit 0")
    cluster.clear_calls()
    sizes = ("3", "20000") if interrupted else ("3", "5")
    process = _scale("--waiting", "--sizes", *sizes, KUBECONFIG=str(cluster.kubeconfig), NAMESPACE="training")
    if interrupted:
        wait_until(lambda: cluster.calls().get("create pods", 0) > 30 or process.poll() is not None, 60)
        process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=100)
    assert process.returncode == int(interrupted), complaints
    assert "| 3 | " in said, complaints
    if not interrupted:
        calls = cluster.calls()
        assert calls["create jobs"] >= 5
        assert (calls["create pods"], calls["patch pods/status"]) == (5, 5)
        assert "| 5 | " in said
    assert [job["metadata"]["name"] for job in kube.list_all("jobs")] == ["model-1"]
    assert kube.list_all("pods") == []


def test_a_namespace_in_which_a_dispatcher_trains_is_not_measured_in(cluster: StandInCluster) -> None:
    cluster.create_namespace("busy")
    kube = Kube(cluster.kubeconfig, "busy", "any:1")
    body = kube.job_body("model-2", "exit 0")
    body["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "training-dispatcher"
    kube.create("jobs", body)
    process = _scale("--sizes", "1", KUBECONFIG=str(cluster.kubeconfig), NAMESPACE="busy")
    complaints = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "namespace busy has trainings of a dispatcher" in complaints
    assert [job["metadata"]["name"] for job in kube.list_all("jobs")] == ["model-2"]


def test_the_page_gets_its_table_and_a_picture_for_light_and_dark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, drawing = tmp_path / "launching.md", tmp_path / "scale.svg"
    page.write_text("before\n<!-- scale -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(docs, "PAGE", page)
    monkeypatch.setattr(docs, "PICTURE", drawing)
    figures = {
        size: Figures(50 + size / 100, 48, size / 5000, 1.5, 2, 4, 1, 0, 0, 0, {}, 0) for size in (100, 1000, 10_000)
    }
    assert docs.write_docs(figures) == [page, drawing]
    assert "| 10,000 | 150 MiB | 48 MiB | 2.0 % | 1.5 s | 4 | 1 |\n<!-- end -->\nafter" in page.read_text()
    assert "old" not in page.read_text()
    svg = ElementTree.fromstring(drawing.read_text())
    assert [len(svg.findall(f".//{{*}}{kind}")) for kind in ("polyline", "g")] == [3, 2]
    assert "prefers-color-scheme:dark" in drawing.read_text()
    page.write_text("no place")
    with pytest.raises(SystemExit, match="has no place for the table"):
        docs.write_docs(figures)
