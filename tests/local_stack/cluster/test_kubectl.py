"""kubectl against the stand-in: what the README and the demo tell people to type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from local_stack.cluster.client import StandInCluster, start_cluster

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

Kubectl = Callable[..., subprocess.CompletedProcess[str]]

_JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "model-1", "finalizers": ["training-dispatcher/report"]},
    "spec": {
        "suspend": True,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {"name": "trainer", "image": "busybox:1", "command": ["sh", "-c", "echo hello; echo bye"]}
                ],
            }
        },
    },
}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInCluster]:
    folder = tmp_path_factory.mktemp("kubectl")
    with start_cluster(folder, "--namespace", "training", images={"busybox:1": None}) as it:
        yield it


@pytest.fixture(scope="module")
def kubectl(stand_in: StandInCluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(stand_in.kubeconfig)}

    def run(*words: str, given: object = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        text = None if given is None else json.dumps(given)
        done = subprocess.run(
            ["kubectl", *words], input=text, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def test_a_job_is_applied_resumed_awaited_read_and_deleted(kubectl: Kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", given=_JOB).stdout
    assert "unchanged" in kubectl("apply", "-f", "-", given=_JOB).stdout
    assert "Suspended" in kubectl("get", "jobs").stdout
    kubectl("patch", "job", "model-1", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    kubectl("wait", "--for=condition=complete", "job/model-1", "--timeout=30s")
    assert kubectl("logs", "job/model-1").stdout == "hello\nbye\n"
    assert "1/1" in kubectl("get", "jobs").stdout
    assert "Completed" in kubectl("get", "pods").stdout
    described = kubectl("describe", "job", "model-1").stdout
    assert "SuccessfulCreate" in described
    assert "Completed" in kubectl("get", "events").stdout
    kubectl("delete", "job", "model-1", "--wait=false")
    assert kubectl("get", "job", "model-1", "-o", "jsonpath={.metadata.deletionTimestamp}").stdout
    kubectl("patch", "job", "model-1", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
    kubectl("wait", "--for=delete", "job/model-1", "--timeout=30s")


def test_a_misspelt_field_is_refused(kubectl: Kubectl) -> None:
    wrong = json.loads(json.dumps(_JOB).replace('"command"', '"comand"').replace("model-1", "model-2"))
    refused = kubectl("create", "-f", "-", given=wrong, code=1)
    assert 'unknown field "spec.template.spec.containers[0].comand"' in refused.stderr


def test_secrets_and_configmaps_are_made_from_files(kubectl: Kubectl) -> None:
    for kind, key in (("Secret", "stringData"), ("ConfigMap", "data")):
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "settings"}, key: {"A": "b"}}
        kubectl("apply", "-f", "-", given=body)
        body[key] = {"A": "c", "D": "e"}
        assert "configured" in kubectl("apply", "-f", "-", given=body).stdout
    assert kubectl("get", "secret", "settings", "-o", "jsonpath={.data.D}").stdout == "ZQ=="
    assert kubectl("get", "configmap", "settings", "-o", "jsonpath={.data.A}").stdout == "c"


def test_short_commands_that_need_no_file_work_too(kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "portal", "--from-literal=API_KEY=k")
    assert kubectl("get", "secret", "portal", "-o", "jsonpath={.data.API_KEY}").stdout == "aw=="
    kubectl("create", "configmap", "plain", "--from-literal=A=b")
    kubectl("create", "namespace", "other")
    assert kubectl("auth", "can-i", "create", "jobs").stdout.strip() == "yes"
    kubectl("create", "job", "quick", "--image=busybox:1", "--", "true")
    kubectl("wait", "--for=condition=complete", "job/quick", "--timeout=30s")
    kubectl("delete", "job", "quick")
    kubectl("delete", "namespace", "other", "--timeout=30s")


def test_a_denied_verb_reads_as_on_a_real_cluster(kubectl: Kubectl, stand_in: StandInCluster) -> None:
    stand_in.deny({"verb": "list", "resource": "pods"})
    try:
        refused = kubectl("get", "pods", code=1)
    finally:
        stand_in.deny()
    assert refused.stderr.startswith("Error from server (Forbidden): pods is forbidden: User ")
