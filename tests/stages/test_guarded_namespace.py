"""A namespace where production's policies hold: trainings, `dispatcher check`, and the way there from 0.1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_stack.azurite import Azurite
from local_stack.cluster.client import StandInCluster, start_cluster
from local_stack.portal.client import StandInPortal
from local_stack.surroundings import scoped_settings
from tests.world.dispatcher_process import Stage
from tests.world.manifests.admission import install
from tests.world.manifests.kustomized import needs_kubectl

pytestmark = needs_kubectl

REPOSITORY = "registry.example.com/training-dispatcher/trainer"
IMAGE = f"{REPOSITORY}:0.1.0"


@pytest.fixture(scope="module")
def guarded_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInCluster]:
    quick = ("--job-backoff", "0.5", "--retry", "0.2")
    with start_cluster(tmp_path_factory.mktemp("guarded"), "--gpus", "4", *quick, images={IMAGE: None}) as cluster:
        yield cluster


@pytest.fixture
def guarded(
    tmp_path: Path, azurite: Azurite, portal: StandInPortal, guarded_cluster: StandInCluster
) -> Iterator[Stage]:
    """A stage with credentials for each training; its policies are not there yet."""
    stage = Stage(tmp_path, azurite, portal, guarded_cluster)
    stage.settings |= scoped_settings()
    pod = stage.template["spec"]["template"]["spec"]
    pod |= {"serviceAccountName": "model-training", "automountServiceAccountToken": False}
    pod["containers"][0]["image"] = IMAGE
    stage.cluster.create_service_account("model-training", stage.namespace)
    try:
        yield stage
    finally:
        stage.stop()
        stage.cluster.deny()


def _lines(out: str) -> dict[str, tuple[str, str]]:
    """Name → (mark, sentence) of what `check` prints."""
    found = {}
    for line in out.splitlines():
        name, _, sentence = line[5:].partition(": ")
        found[name] = (line[:4].strip(), sentence)
    return found


def test_check_tries_signature_relay_and_policies(guarded: Stage) -> None:
    install(guarded.cluster, guarded.namespace)
    code, out, _ = guarded.cli("check")
    found = _lines(out)
    assert code == 0, out
    assert found["relay"][0] == "--", "no dispatcher runs here"
    guarded.start()
    code, out, _ = guarded.cli("check")
    found = _lines(out)
    assert code == 0, out
    assert found["relay"] == (
        "ok",
        f"{guarded.settings['RELAY_URL']} answers and knows its tokens; trainings call it "
        f"{guarded.settings['RELAY_URL']}",
    )
    assert found["signatures for storage"][0] == "ok"
    assert found["admission policies"] == (
        "ok",
        "10 Jobs and 2 Secrets that a stolen token might be used for are refused",
    )
    code, out, _ = guarded.cli("check", RELAY_KEY="another-key-0123456789abcdef0123456789")
    assert code == 1
    assert "another RELAY_KEY or API_KEY" in _lines(out)["relay"][1]


def test_check_names_what_is_accepted(guarded: Stage) -> None:
    code, out, _ = guarded.cli("check", MAX_NODES="2")
    mark, sentence = _lines(out)["admission policies"]
    assert (code, mark) == (0, "WARN")
    for words in ("another image", "files of the node", "a Secret that Kubernetes fills with a token"):
        assert words in sentence
    assert "a NetworkPolicy that opens trainings to everybody" in sentence
    install(guarded.cluster, guarded.namespace)
    _drop_rule(guarded, "automountServiceAccountToken must be false")
    code, out, _ = guarded.cli("check", MAX_NODES="2")
    mark, sentence = _lines(out)["admission policies"]
    assert (code, mark) == (0, "WARN")
    assert "accepts the service account's token in namespace" in sentence


def _drop_rule(stage: Stage, message: str) -> None:
    path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/training-pods.{stage.namespace}"
    rules = stage.cluster.api("GET", path)["spec"]["validations"]
    kept = [rule for rule in rules if rule.get("message") != message]
    assert len(kept) == len(rules) - 1
    stage.cluster.api("PATCH", path, {"spec": {"validations": kept}})


def test_check_in_a_pod_has_credentials_of_its_own_and_looks_at_the_network(guarded: Stage) -> None:
    install(guarded.cluster, guarded.namespace)
    script = guarded.template["spec"]["template"]["spec"]["containers"][0]["command"]
    script[2] = 'grep -q "model-done-1?.*sp=rl&" "$CREDENTIALS_DIR/MODEL_URL" || exit 66;' + script[2]
    code, out, err = guarded.cli("check", "--in-pod", "model-done-1")
    assert code == 1, out + err
    assert _lines(out)["in a pod"][0] == "ok", out
    mark, sentence = _lines(out)["network of a pod"]
    assert mark == "FAIL"
    assert "does not reach the relay (127.0.0.1:" in sentence, "no dispatcher runs here"
    guarded.start()
    code, out, err = guarded.cli("check", "--in-pod", "model-done-1", MAX_NODES="2")
    assert code == 0, out + err
    assert "a Job for 2 nodes and its NetworkPolicy are accepted by dry runs" in out
    assert "two pods of one training find and reach each other" in out
    assert "a training reaches the relay, storage, and not the cloud's metadata service" in out
    guarded.forbidden["the kubelet of its node"] = ("127.0.0.1", guarded.port)
    code, out, err = guarded.cli("check", "--in-pod", "model-done-1")
    mark, sentence = _lines(out)["network of a pod"]
    assert (code, mark) == (0, "WARN"), out + err
    assert sentence.startswith("a training reaches the kubelet of its node: manifests/components/network-policy closes")
    guarded.wait(lambda: guarded.cluster.jobs(guarded.namespace) == [])


def test_trainings_are_launched_and_reported_where_the_policies_hold(guarded: Stage) -> None:
    """And the pods of one on several nodes may reach each other."""
    install(guarded.cluster, guarded.namespace)
    guarded.start(MAX_NODES="2")
    model_id, failed = guarded.submit("done", resources={"nodes": 2}), guarded.submit("invalid")
    guarded.wait_status(model_id, "Completed")
    guarded.wait_status(failed, "Failed")
    assert guarded.message(failed).startswith("Invalid dataset: train.csv: it is empty. To train it again, set")
    job = guarded.job(model_id)
    assert job is not None
    path = f"/apis/networking.k8s.io/v1/namespaces/{guarded.namespace}/networkpolicies"
    [policy] = guarded.cluster.api("GET", path)["items"]
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    assert policy["metadata"]["name"] == f"{name}-{uid}"
    assert [owner["uid"] for owner in policy["metadata"]["ownerReferences"]] == [uid]
    selected = policy["spec"]["podSelector"]["matchLabels"].items()
    assert [selected <= pod["metadata"]["labels"].items() for pod in guarded.pods(model_id)] == [True, True]
    found = guarded.cluster.api("GET", f"/api/v1/namespaces/{guarded.namespace}/events")["items"]
    events = [event for event in found if event["involvedObject"]["name"] == name]
    [launched] = [event["message"] for event in events if event["reason"] == "Launched"]
    assert " on 2 nodes: resumed" in launched


def _old_template(stage: Stage) -> dict[str, Any]:
    """As in 0.1: every training has the Secrets of all."""
    template: dict[str, Any] = json.loads(json.dumps(stage.template))
    template["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}
        for name, secret in (("API_KEY", "portal"), ("AZURE_STORAGE_CONNECTION_STRING", "storage"))
    ]
    return template


def test_a_dispatcher_of_two_namespaces_takes_over_what_0_1_has_begun(guarded: Stage) -> None:
    stage = guarded
    stage.cluster.put_secret("portal", {"API_KEY": stage.settings["API_KEY"]}, stage.namespace)
    stage.cluster.put_secret("storage", {"AZURE_STORAGE_CONNECTION_STRING": "x"}, stage.namespace)
    stage.template = _old_template(stage)
    # 1. What 0.1 has begun, and it is scaled down.
    old = stage.start(CREDENTIALS="shared", RELAY_PORT="0")
    begun = stage.submit("runs")
    stage.wait(lambda: stage.running(begun))
    old.stop()
    first = stage.pods(begun)[0]["metadata"]["uid"]
    # 2. A request comes meanwhile, and a second one for the training that runs.
    later = stage.submit("done")
    stage.send(begun)
    # 3. The new layout, with the old Secrets allowed for a while.
    install(stage.cluster, stage.namespace, secrets="portal,storage")
    stage.start()
    stage.wait_status(later, "Completed")
    assert stage.job(later)["spec"]["template"]["spec"]["volumes"][-1]["secret"]["secretName"] == f"model-{later}"
    stage.wait(stage.drained)
    assert [pod["metadata"]["uid"] for pod in stage.pods(begun)] == [first], "one training of a model"
    # 4. Its node is drained: the pod that follows has the Secrets of its Job.
    stage.evict(begun)
    stage.wait(lambda: any(pod["metadata"]["uid"] != first for pod in stage.pods(begun)))
    stage.wait(lambda: stage.running(begun))
    # 5. It ends, and is reported by the new one.
    stage.delete_job(begun)
    stage.wait_status(begun, "Failed")
    stage.wait(lambda: stage.job(begun) is None)


def test_a_job_of_0_1_whose_secrets_are_not_allowed_says_so(guarded: Stage) -> None:
    stage = guarded
    stage.template = _old_template(stage)
    stage.cluster.put_secret("portal", {"API_KEY": stage.settings["API_KEY"]}, stage.namespace)
    stage.cluster.put_secret("storage", {"AZURE_STORAGE_CONNECTION_STRING": "x"}, stage.namespace)
    old = stage.start(CREDENTIALS="shared", RELAY_PORT="0")
    begun = stage.submit("runs")
    stage.wait(lambda: stage.running(begun))
    old.stop()
    install(stage.cluster, stage.namespace)
    stage.start(POD_CREATE_GRACE_SECONDS="2")
    stage.evict(begun)
    stage.wait_status(begun, "Failed")
    assert "the only Secret that a training may use is its own" in stage.message(begun)
