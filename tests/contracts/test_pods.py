"""Pods and containers: what they leave behind, why they wait, how they end."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.world.kube import MERGE, Kube, container_state, find, is_running, wait_until, waiting_reason

Names = Callable[[], str]

_MESSAGE = "${TERMINATION_MESSAGE_PATH:-/dev/termination-log}"


def _ended(kube: Kube, name: str) -> dict[str, object]:
    pod = kube.wait_pod(name, lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"))
    return dict(container_state(pod)["terminated"])


def test_the_termination_message_arrives_word_for_word(kube: Kube, job: Names) -> None:
    name = job()
    words = json.dumps({"message": "Größe: 3 µm", "code": "Completed", "exit": 0}, ensure_ascii=False)
    kube.start(name, f"printf '%s' '{words}' > {_MESSAGE}")
    ended = _ended(kube, name)
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (0, "Completed", words)


def test_a_long_termination_message_is_cut_to_4096_bytes(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, f"i=0; while [ $i -lt 500 ]; do printf '0123456789' >> {_MESSAGE}; i=$((i+1)); done; exit 66")
    assert len(str(_ended(kube, name)["message"])) == 4096


def test_the_logs_end_stands_in_for_a_missing_message(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "echo loading; echo 'RuntimeError: boom' >&2; exit 66")
    ended = _ended(kube, name)
    assert (ended["exitCode"], ended["reason"]) == (66, "Error")
    assert ended["message"] == "loading\nRuntimeError: boom\n"


def test_a_success_has_no_message_from_the_log(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "echo chatter")
    assert "message" not in _ended(kube, name)


def test_a_process_over_its_memory_limit_is_oom_killed(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 0.3; tail /dev/zero", pod={"container": {"resources": {"limits": {"memory": "24Mi"}}}})
    ended = _ended(kube, name)
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_a_command_that_is_not_there_is_a_start_error(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "", pod={"container": {"command": ["no-such-program"]}})
    ended = _ended(kube, name)
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")


def test_an_image_that_cannot_be_pulled_is_said_and_tried_again(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", pod={"container": {"image": "localhost:1/none:1"}})
    pod = kube.wait_pod(name, lambda pod: waiting_reason(pod) == "ErrImagePull")
    assert pod["status"]["phase"] == "Pending"
    backing_off = kube.wait_pod(name, lambda pod: waiting_reason(pod) == "ImagePullBackOff")
    message = container_state(backing_off)["waiting"]["message"]
    assert message.startswith('Back-off pulling image "localhost:1/none:1"')


def test_an_image_that_must_not_be_pulled_is_said(kube: Kube, job: Names) -> None:
    name = job()
    container = {"image": "localhost/none:1", "imagePullPolicy": "Never"}
    kube.start(name, "exit 0", pod={"container": container})
    kube.wait_pod(name, lambda pod: waiting_reason(pod) == "ErrImageNeverPull")


def test_an_image_name_that_cannot_be_read_is_said(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", pod={"container": {"image": "UPPER//bad:1"}})
    pod = kube.wait_pod(name, lambda pod: waiting_reason(pod) == "InvalidImageName")
    assert "couldn't parse image name" in container_state(pod)["waiting"]["message"]


@pytest.mark.parametrize("kind", ["secret", "configmap"])
def test_a_missing_source_of_the_environment_holds_the_container_until_it_is_there(
    kube: Kube, job: Names, kind: str
) -> None:
    name, source = job(), f"{kind}-{kube.run}-late"
    reference = "secretKeyRef" if kind == "secret" else "configMapKeyRef"
    env = [{"name": "KEY", "valueFrom": {reference: {"name": source, "key": "KEY"}}}]
    kube.start(name, 'test "$KEY" = value', pod={"container": {"env": env}})
    pod = kube.wait_pod(name, lambda pod: waiting_reason(pod) == "CreateContainerConfigError")
    assert container_state(pod)["waiting"]["message"] == f'{kind} "{source}" not found'
    data = "stringData" if kind == "secret" else "data"
    plural = "secrets" if kind == "secret" else "configmaps"
    kube.create(plural, {"metadata": {"name": source}, data: {"KEY": "value"}})
    try:
        kube.wait_job(name, "Complete")
    finally:
        kube.delete(plural, source)


def test_a_missing_key_of_a_secret_is_named(kube: Kube, job: Names) -> None:
    name, source = job(), f"secret-{kube.run}-empty"
    kube.create("secrets", {"metadata": {"name": source}, "stringData": {"OTHER": "x"}})
    try:
        env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": source, "key": "KEY"}}}]
        kube.start(name, "exit 0", pod={"container": {"env": env}})
        pod = kube.wait_pod(name, lambda pod: waiting_reason(pod) == "CreateContainerConfigError")
        said = container_state(pod)["waiting"]["message"]
        assert said == f"couldn't find key KEY in Secret {kube.namespace}/{source}"
    finally:
        kube.delete("secrets", source)


def test_a_node_selector_that_nothing_matches_is_unschedulable(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", pod={"nodeSelector": {"contracts": "no-such-node"}})
    pod = kube.wait_pod(name, lambda pod: find(pod, "PodScheduled").get("reason") == "Unschedulable")
    condition = find(pod, "PodScheduled")
    assert condition["status"] == "False"
    assert "nodes are available" in condition["message"]
    assert "didn't match Pod's node affinity/selector" in condition["message"]
    assert pod["status"]["phase"] == "Pending"
    reasons = {event["reason"] for event in kube.events(pod["metadata"]["name"])}
    assert "FailedScheduling" in reasons


def test_a_pod_that_asks_for_too_many_gpus_waits_and_says_so(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", pod={"container": {"resources": {"limits": {"nvidia.com/gpu": "9999"}}}})
    pod = kube.wait_pod(name, lambda pod: find(pod, "PodScheduled").get("status") == "False")
    assert "Insufficient nvidia.com/gpu" in find(pod, "PodScheduled")["message"]


def test_environment_comes_from_secrets_fields_and_expansion(kube: Kube, job: Names) -> None:
    name, source = job(), f"secret-{kube.run}-env"
    kube.create("secrets", {"metadata": {"name": source}, "stringData": {"KEY": "s3cret", "B": "b"}})
    env = [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": source, "key": "KEY"}}},
        {"name": "BOTH", "value": "$(KEY)-$(B)-$$(KEY)"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "RUN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['contracts']"}}},
        {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": source, "key": "none", "optional": True}}},
    ]
    container = {"env": env, "envFrom": [{"secretRef": {"name": source}}], "args": ["$(POD)"]}
    script = 'printf "%s|%s|%s|%s|%s" "$KEY" "$BOTH" "$POD" "$0" "${GONE-unset}" > ' + _MESSAGE
    body = kube.job_body(name, script, pod={"container": container})
    body["spec"]["template"]["metadata"] = {"labels": {"contracts": kube.run}}
    kube.create("jobs", body)
    try:
        ended = _ended(kube, name)
        pod = kube.pods(name)[0]["metadata"]["name"]
        assert ended["message"] == f"s3cret|s3cret-b-$(KEY)|{pod}|{pod}|unset"
    finally:
        kube.delete("secrets", source)


def test_volumes_hold_what_is_written_and_what_secrets_say(kube: Kube, job: Names) -> None:
    name, source = job(), f"secret-{kube.run}-volume"
    kube.create("secrets", {"metadata": {"name": source}, "stringData": {"KEY": "from-a-file"}})
    container = {
        "env": [{"name": "WORK_DIR", "value": "/work/data"}, {"name": "KEYS", "value": "/keys"}],
        "volumeMounts": [
            {"name": "work", "mountPath": "/work"},
            {"name": "keys", "mountPath": "/keys", "readOnly": True},
        ],
    }
    volumes = [{"name": "work", "emptyDir": {}}, {"name": "keys", "secret": {"secretName": source}}]
    script = f'mkdir -p "$WORK_DIR" && cp "$KEYS/KEY" "$WORK_DIR/x" && cat "$WORK_DIR/x" > {_MESSAGE}'
    kube.start(name, script, pod={"container": container, "volumes": volumes})
    try:
        assert _ended(kube, name)["message"] == "from-a-file"
    finally:
        kube.delete("secrets", source)


def test_a_changed_secret_shows_in_the_volume_of_a_pod_that_runs(kube: Kube, job: Names) -> None:
    """As the kubelet does it: through ..data, all of it at once, in a minute or two at most."""
    name, source = job(), f"secret-{kube.run}-changing"
    kube.create("secrets", {"metadata": {"name": source}, "stringData": {"KEY": "old", "GONE": "x"}})
    container = {
        "env": [{"name": "KEYS", "value": "/keys"}],
        "volumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": True}],
    }
    volumes = [{"name": "keys", "secret": {"secretName": source, "defaultMode": 0o440}}]
    script = (
        'test -L "$KEYS/KEY" -a -L "$KEYS/..data" && cat "$KEYS/KEY" && echo " is there"; '
        f'while test "$(cat "$KEYS/KEY")" = old; do sleep 0.1; done; cat "$KEYS/KEY" "$KEYS/NEW" > {_MESSAGE}; '
        f'test -e "$KEYS/GONE" && echo " GONE" >> {_MESSAGE}; exit 0'
    )
    pod = {"container": container, "volumes": volumes, "securityContext": {"fsGroup": 65532}}
    kube.start(name, script, pod=pod)
    try:
        running = kube.wait_pod(name, is_running)["metadata"]["name"]
        wait_until(lambda: "old is there" in kube.log(running), 30.0)
        changed = {"data": {"KEY": "bmV3", "NEW": "ZXI=", "GONE": None}}
        answer = kube.call("PATCH", kube.path("secrets", source), changed, content=MERGE)
        assert answer.code == 200, answer.body
        assert _ended(kube, name)["message"] == "newer"
    finally:
        kube.delete("secrets", source)


def test_a_deleted_pods_program_may_end_itself_within_its_grace(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "trap 'exit 143' TERM; echo ready; sleep 600 & wait", finalizer=True)
    pod = kube.wait_pod(name, is_running)["metadata"]["name"]
    wait_until(lambda: "ready" in kube.log(pod), 30.0)
    with kube.watching("pods", fieldSelector=f"metadata.name={pod}") as events:
        answer = kube.delete("pods", pod, gracePeriodSeconds=20)
        assert answer.body["metadata"]["deletionGracePeriodSeconds"] == 20
        kube.wait_gone("pods", pod)
        wait_until(lambda: events and events[-1]["type"] == "DELETED")
    last = events[-1]["object"]
    assert container_state(last)["terminated"]["exitCode"] == 143
    assert last["status"]["phase"] == "Failed"


def test_a_program_that_ignores_the_signal_is_killed_after_the_grace(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "sleep 600", finalizer=True)
    pod = kube.wait_pod(name, is_running)["metadata"]["name"]
    with kube.watching("pods", fieldSelector=f"metadata.name={pod}") as events:
        kube.delete("pods", pod)
        kube.wait_gone("pods", pod)
        wait_until(lambda: events and events[-1]["type"] == "DELETED")
    assert container_state(events[-1]["object"])["terminated"]["exitCode"] == 137


def test_logs_are_read_while_and_after_it_runs(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "echo one; echo two; sleep 1; echo three")
    pod = kube.wait_pod(name, is_running)["metadata"]["name"]
    assert kube.log(pod, follow="true").splitlines() == ["one", "two", "three"]
    kube.wait_job(name, "Complete")
    assert kube.log(pod, tailLines=1) == "three\n"


def test_a_log_that_does_not_exist_yet_is_refused_with_the_reason(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", pod={"container": {"image": "localhost:1/none:1"}})
    pod = kube.wait_pod(name, lambda pod: waiting_reason(pod) == "ImagePullBackOff")["metadata"]["name"]
    answer = kube.call("GET", kube.path("pods", pod) + "/log")
    assert answer.code == 400
    assert "is waiting to start" in answer.message
