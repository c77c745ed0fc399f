"""No process outlives the stand-in, and bad command lines say what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from local_stack.cluster.client import StandInCluster, start_cluster
from local_stack.http_json import OPENER
from local_stack.processes import wait_until
from tests.world.kube import Kube, is_running


def _alive(marker: str) -> list[int]:
    """The processes that carry this word in their environment or command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marker.encode() in text and state != "Z" and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_containers_end_with_the_stand_in_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    marker = f"marker-{tmp_path.name}-{number}"
    with start_cluster(tmp_path, images={"shell:1": None}) as stand_in:
        kube = Kube(stand_in.kubeconfig, "default", "shell:1")
        # A child that ignores SIGTERM, and its own child.
        kube.start("model-1", f"trap '' TERM; sh -c 'sleep 600; : {marker}' & wait; : {marker}")
        kube.wait_pod("model-1", is_running)
        wait_until(lambda: len(_alive(marker)) >= 2)
        stand_in.service.send_signal(number)
        wait_until(lambda: stand_in.service.returncode is not None)
        wait_until(lambda: not _alive(marker), what=lambda: f"the end of {_alive(marker)}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image", 'x:1={"a": 1}'], "after = stands a JSON list of words"),
        (["--namespace", "Not_Valid"], 'Invalid value: "Not_Valid"'),
        (["--node", "a=many"], "many"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path: Path, arguments: list[str], words: str) -> None:
    argv = [sys.executable, "-m", "local_stack.cluster", "--dir", str(tmp_path), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def answer_to(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> int:
    try:
        request = urllib.request.Request(url, headers=headers or {}, method=method)
        return int(OPENER.open(request, timeout=10).status)
    except urllib.error.HTTPError as error:
        return error.code


PATHS = ["/api", "/version", "/api/v1/namespaces/default/pods", "/_stub/watches", "/", "/none"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_without_the_token(cluster: StandInCluster, path: str) -> None:
    root, token = cluster.url.rsplit("/", 1)
    assert answer_to(root + path) == 401
    assert answer_to(f"{root}/{'0' * len(token)}{path}") == 401
    assert answer_to(root + path, {"Authorization": "Bearer wrong"}) == 401
    assert answer_to(cluster.url + path, {"Authorization": "Bearer wrong"}) == 401
    assert answer_to(root + path, {"Authorization": f"Bearer {token}"}) == answer_to(cluster.url + path) != 401


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode"])
@pytest.mark.parametrize("path", PATHS)
def test_a_browser_is_refused_whatever_it_knows(cluster: StandInCluster, header: str, path: str) -> None:
    assert answer_to(cluster.url + path, {header: "null"}) == 403
    assert answer_to(cluster.url + path, {header: "null"}, "OPTIONS") == 403


def test_it_speaks_as_1_36_does(cluster: StandInCluster) -> None:
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    job = {"metadata": {"name": "words"}, "spec": {"suspend": True, "template": {"spec": pod}}}
    uid = cluster.api("POST", jobs, job)["metadata"]["uid"]

    def refusal(method: str, path: str, body: object = None) -> str:
        with pytest.raises(urllib.error.HTTPError) as caught:
            cluster.api(method, path, body)
        return str(json.loads(caught.value.read())["message"])

    assert refusal("DELETE", f"{jobs}/words", {"preconditions": {"uid": "other"}}) == (
        'Operation cannot be fulfilled on Job.batch "words": the UID in the precondition (other) does not match '
        f"the UID in record ({uid}). The object might have been deleted and then recreated"
    )
    assert refusal("GET", f"{jobs}?fieldSelector=spec.suspend%3Dtrue") == (
        'field label "spec.suspend" not supported for Job'
    )
    job["metadata"] = {"name": "words-2", "finalizers": ["a/b", "report"]}  # type: ignore[dict-item]
    assert "metadata.finalizers[1]: Invalid value" in refusal("POST", jobs, job)
    cluster.api("DELETE", f"{jobs}/words", {})
