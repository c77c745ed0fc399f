"""dispatcher.launch.job_spec: the Job that a request becomes."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from dispatcher.cluster import names
from dispatcher.launch.job_spec import JobDefaults, build_job, run_id, shared_credentials
from dispatcher.launch.job_template import RESERVED_ENV, load_template, other_secrets
from portal_client.statuses import ProcessingStatus
from tests.dispatcher.launch.built_jobs import DEFAULTS, POD, a_request, a_template, built, changed, trainer_of
from tests.world.builders import T0
from tests.world.repository import read


def env_of(job: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in trainer_of(job)["env"]}


def expanded(value: str, variables: dict[str, str]) -> str:
    """A pod's env value as Kubernetes expands it (third_party/forked/golang/expansion)."""
    return re.sub(r"\$\$|\$\(([^)]*)\)", lambda m: "$" if m[0] == "$$" else variables.get(m[1], m[0]), value)


def test_the_job_carries_what_the_promises_rest_on() -> None:
    job = built(request=a_request(dataset_container_name="dataset-xyz"))
    assert job["metadata"]["name"] == "model-123"
    labels = {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: "123"}
    assert job["metadata"]["labels"] == labels
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    assert job["metadata"]["finalizers"] == [names.FINALIZER]
    assert job["metadata"]["annotations"] == {
        names.MESSAGE_ID: "message-1",
        names.REQUEST: a_request(dataset_container_name="dataset-xyz").to_json(),
        names.RUN_ID: run_id("message-1", T0),
        names.QUEUED_AT: "2026-11-23T08:00:00Z",
    }
    assert job["spec"]["suspend"] is True
    assert (job["spec"]["parallelism"], job["spec"]["completions"]) == (1, 1)
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    trainer = trainer_of(job)
    assert trainer["terminationMessagePath"] == "/dev/termination-log"
    assert trainer["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_permanent_exit_codes_fail_the_job_and_disruptions_are_retried() -> None:
    disrupted, permanent = built()["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Ignore"
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert permanent["action"] == "FailJob"
    assert permanent["onExitCodes"]["containerName"] == "trainer"
    assert permanent["onExitCodes"]["values"] == list(range(1, 128))
    assert len(permanent["onExitCodes"]["values"]) <= 255, "the API server takes no more"


def test_the_trainer_is_told_what_to_train() -> None:
    env = env_of(built(request=a_request(dataset_container_name="dataset-xyz", note="n")))
    assert env["MODEL_CONTAINER"] == "model-123"
    assert env["DATASET_CONTAINER"] == "dataset-xyz"
    assert env["RUN_ID"] == run_id("message-1", T0)
    assert env["LAUNCHED_BY"] == "dispatcher"
    assert json.loads(env["TRAINING_REQUEST"])["note"] == "n"
    assert env["GRACE_SECONDS"] == "30"
    assert env["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env["API_BASE_URL"] == "https://portal.example.com"


def test_without_a_dataset_the_trainers_own_configuration_names_it() -> None:
    assert "DATASET_CONTAINER" not in env_of(built())


def test_every_reserved_variable_is_written() -> None:
    scoped = JobDefaults({}, 600, "trainer:0.1.0", scoped=True)
    request = a_request(dataset_container_name="dataset-xyz")
    assert set(env_of(built(request=request, shown=ProcessingStatus.CREATED, defaults=scoped))) >= RESERVED_ENV


def test_the_template_keeps_what_is_its_own() -> None:
    template = a_template(backoffLimit=7)
    template["metadata"] = {"labels": {"team": "vision"}, "annotations": {"note": "x"}, "finalizers": ["acme/audit"]}
    template["spec"]["template"]["metadata"] = {"labels": {"team": "vision"}, "annotations": {"scrape": "no"}}
    pod = template["spec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 120
    pod["containers"] = [{"image": "sidecar:1"}, *pod["containers"]]
    job = built(template)
    assert job["metadata"]["labels"]["team"] == "vision"
    assert job["metadata"]["annotations"]["note"] == "x"
    assert job["metadata"]["finalizers"] == ["acme/audit", names.FINALIZER]
    assert job["spec"]["template"]["metadata"]["annotations"] == {"scrape": "no"}
    assert job["spec"]["backoffLimit"] == 7
    assert job["spec"]["template"]["spec"]["containers"][0] == {"image": "sidecar:1"}
    assert env_of(job)["GRACE_SECONDS"] == "120"


def test_the_templates_variables_come_first_and_win() -> None:
    theirs = [{"name": "API_BASE_URL", "value": "http://other"}, {"name": "STATUS_TRACKING", "value": ""}]
    job = built(changed(f"{POD}/trainer/env", theirs))
    env = trainer_of(job)["env"]
    assert env[:2] == theirs
    assert len({entry["name"] for entry in env}) == len(env), "no variable stands there twice"


def test_the_template_is_not_changed() -> None:
    template = load_template(read("manifests/base/job-template.yaml"), "trainer:1")
    before = copy.deepcopy(template)
    first = build_job(template, a_request(resources={"gpus": 3}), message_id="a", queued_at=T0, defaults=DEFAULTS)
    second = build_job(template, a_request(), message_id="b", queued_at=T0, defaults=DEFAULTS)
    assert template == before
    first["spec"]["template"]["spec"]["tolerations"].clear()
    assert second["spec"]["template"]["spec"]["tolerations"]


def test_the_same_message_always_makes_the_same_job() -> None:
    assert json.dumps(built()) == json.dumps(built())


def test_every_delivery_of_a_message_has_the_same_run_and_no_other_has() -> None:
    assert run_id("message-1", T0) == run_id("message-1", T0)
    assert run_id("message-1", T0) != run_id("message-2", T0)
    assert re.fullmatch(r"20261123t080000-[0-9a-f]{8}", run_id("message-1", T0))


@pytest.mark.parametrize(
    ("template_image", "setting", "expected"),
    [
        ("trainer:1", "", "trainer:1"),
        ("trainer:1", "other:2", "trainer:1"),
        (None, "other:2", "other:2"),
        ("", "other:2", "other:2"),
        (..., "other:2", "other:2"),
    ],
)
def test_the_templates_image_wins_over_the_setting(template_image: Any, setting: str, expected: str) -> None:
    job = built(
        changed(f"{POD}/trainer/image", template_image), defaults=JobDefaults(env={}, time_limit=60, image=setting)
    )
    assert trainer_of(job)["image"] == expected


@pytest.mark.parametrize(
    ("wish", "template_limit", "expected"),
    [(None, None, 3600), (600, None, 600), (None, 900, 900), (600, 900, 600), (1200, 900, 1200), (None, 9000, 3600)],
)
def test_the_time_limit_is_the_requests_then_the_templates_then_the_operators(
    wish: int | None, template_limit: int | None, expected: int
) -> None:
    template = a_template() if template_limit is None else a_template(activeDeadlineSeconds=template_limit)
    job = built(template, a_request(time_limit_seconds=wish))
    assert job["spec"]["activeDeadlineSeconds"] == expected


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (None, {"requests": {"cpu": "2", "nvidia.com/gpu": "1"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}}),
        (0, {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}),
        (4, {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": "4"}}),
    ],
)
def test_a_request_for_gpus_changes_gpus_and_nothing_else(wish: int | None, expected: dict[str, Any]) -> None:
    resources = {
        "requests": {"cpu": "2", "nvidia.com/gpu": "1"},
        "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"},
    }
    job = built(changed(f"{POD}/trainer/resources", resources), a_request(resources={"gpus": wish}))
    assert trainer_of(job)["resources"] == expected
    assert env_of(job)["GPUS"] == expected["limits"].get("nvidia.com/gpu", "0"), "what the trainer may count on"


def test_a_gpu_limit_that_is_no_plain_number_promises_the_trainer_nothing() -> None:
    resources = {"limits": {"nvidia.com/gpu": "1k"}}
    assert env_of(built(changed(f"{POD}/trainer/resources", resources)))["GPUS"] == "0"


def test_another_gpu_resource_can_be_named() -> None:
    defaults = JobDefaults(env={}, time_limit=60, gpu_resource="amd.com/gpu")
    job = built(request=a_request(resources={"gpus": 2}), defaults=defaults)
    assert trainer_of(job)["resources"]["limits"] == {"amd.com/gpu": "2"}


def test_a_priority_becomes_the_pods_priority_class() -> None:
    assert built(request=a_request(priority="urgent"))["spec"]["template"]["spec"]["priorityClassName"] == "urgent"
    assert "priorityClassName" not in built()["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    "text",
    ["$(API_KEY)", "$$(API_KEY)", "$$$(API_KEY)", "a$$b", "$", "costs 5$", "$é", "$(", "$()", "\\$(API_KEY)", "$$"],
)
def test_a_message_never_reads_another_variable(text: str) -> None:
    """Kubernetes replaces $(NAME) in values: a message must not get at the portal's key that way."""
    request = a_request(note=text)
    value = env_of(built(request=request))["TRAINING_REQUEST"]
    assert expanded(value, {"API_KEY": "the secret"}) == request.to_json()


def test_a_message_chooses_no_image_command_volume_account_or_namespace() -> None:
    plain = built()
    body = {
        "image": "evil:1",
        "command": ["sh"],
        "args": ["-c"],
        "volumes": [{"hostPath": {"path": "/"}}],
        "serviceAccountName": "admin",
        "namespace": "kube-system",
        "metadata": {"name": "x"},
        "spec": {"suspend": False},
        "env": [{"name": "API_BASE_URL", "value": "http://evil"}],
    }
    job = built(request=a_request(**body))
    for made in (plain, job):
        del made["metadata"]["annotations"][names.REQUEST]
        trainer_of(made)["env"] = [e for e in trainer_of(made)["env"] if e["name"] != "TRAINING_REQUEST"]
    assert job == plain


def test_what_the_portal_showed_before_is_noted_and_handed_to_the_trainer() -> None:
    job = built(shown=ProcessingStatus.RECONFIGURE)
    assert job["metadata"]["annotations"][names.STATUS_BEFORE] == "Reconfigure"
    assert env_of(job)["STATUS_BEFORE"] == "Reconfigure"


# With credentials of its own

SCOPED = JobDefaults({"API_BASE_URL": "http://training-relay:8082"}, 600, "trainer:0.1.0", scoped=True)


def a_template_with_credentials() -> dict[str, Any]:
    template = a_template()
    pod = template["spec"]["template"]
    pod["metadata"] = {"labels": {"azure.workload.identity/use": "true", "team": "vision"}}
    pod["spec"]["volumes"] = [{"name": "work", "emptyDir": {}}]
    trainer = trainer_of(template)
    trainer["volumeMounts"] = [{"name": "work", "mountPath": "/work"}]
    trainer["env"] = [
        {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "portal", "key": "API_KEY"}}},
        {"name": "AZURE_STORAGE_CONNECTION_STRING", "valueFrom": {"secretKeyRef": {"name": "storage", "key": "C"}}},
        {"name": "AZURE_STORAGE_ACCOUNT_URL", "value": "https://account.blob.core.windows.net"},
        {"name": "API_BASE_URL", "value": "https://portal.example.com"},
        {"name": "WORK_DIR", "value": "/work"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "TOKEN"}}},
    ]
    pod["spec"]["containers"].append({"name": "beside", "image": "sidecar:1"})
    return template


def test_a_training_with_scoped_credentials_has_its_own_secret_and_none_that_all_share() -> None:
    template = a_template_with_credentials()
    job = built(template, defaults=SCOPED)
    env, pod = env_of(job), job["spec"]["template"]["spec"]
    assert not {"API_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL"} & set(env)
    assert env["API_BASE_URL"] == "http://training-relay:8082"
    assert env["CREDENTIALS_DIR"] == "/credentials"
    assert env["WORK_DIR"] == "/work"
    assert pod["volumes"][-1] == {
        "name": "training-credentials",
        "secret": {"secretName": "model-123", "defaultMode": 0o444, "optional": False},
    }, "readable without an fsGroup, too"
    mount = {"name": "training-credentials", "mountPath": "/credentials", "readOnly": True}
    assert trainer_of(job)["volumeMounts"] == [{"name": "work", "mountPath": "/work"}, mount]
    assert [container for container in pod["containers"] if mount in container.get("volumeMounts", ())] == [
        trainer_of(job)
    ], "in the trainer alone"
    assert job["spec"]["template"]["metadata"]["labels"]["team"] == "vision"
    assert "azure.workload.identity/use" not in job["spec"]["template"]["metadata"]["labels"]
    assert template == a_template_with_credentials(), "the next Job is made of it, too"


def test_what_comes_with_a_whole_secret_or_configmap_is_hidden_by_variables_of_its_own() -> None:
    template = a_template_with_credentials()
    trainer_of(template)["envFrom"] = [{"secretRef": {"name": "portal"}}, {"configMapRef": {"name": "storage"}}]
    env = env_of(built(template, defaults=SCOPED))
    shared = ("API_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL")
    assert [env.get(name) for name in shared] == ["", "", ""]
    assert env["API_BASE_URL"] == "http://training-relay:8082"
    assert not set(shared[1:]) & set(env_of(built(a_template_with_credentials(), defaults=SCOPED)))


def test_without_scoped_credentials_nothing_of_the_template_is_left_out() -> None:
    job = built(a_template_with_credentials())
    assert {"API_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL"} <= set(env_of(job))
    assert "CREDENTIALS_DIR" not in env_of(job)
    assert [volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]] == ["work"]


def test_what_is_left_out_and_which_secrets_stay_is_known() -> None:
    template = a_template_with_credentials()
    shared = ["API_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_URL", "API_BASE_URL"]
    assert shared_credentials(template) == shared
    assert other_secrets(template) == ["hub"]
    pod = template["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "a", "secret": {"secretName": "certificates"}})
    pod["volumes"].append({"name": "b", "projected": {"sources": [{"secret": {"name": "more"}}]}})
    pod["containers"][1]["envFrom"] = [{"secretRef": {"name": "portal"}}]
    pod["containers"][1]["env"] = None  # the API server's to refuse
    assert other_secrets(template) == ["certificates", "hub", "more", "portal"]
