"""dispatcher.launch.job_spec and job_template: which templates are refused, and the Job that a request becomes."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from dispatcher.cluster import names
from dispatcher.launch.job_spec import JobDefaults, TemplateError, build_job, load_template, run_id
from dispatcher.launch.job_template import RESERVED_ENV
from dispatcher.launch.request import Bounds, TrainingRequest, decode
from tests.world.builders import T0
from tests.world.repository import JOB_TEMPLATE

SHIPPED = JOB_TEMPLATE.read_text(encoding="utf-8")
DEFAULTS = JobDefaults(env={"API_BASE_URL": "https://portal.example.com", "STATUS_TRACKING": "on"}, time_limit=3600)
BOUNDS = Bounds(max_gpus=8, max_time_limit=3600.0, priority_classes=("urgent",))


def a_template(**spec: Any) -> dict[str, Any]:
    """The smallest template; spec: more fields of the Job's spec."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "trainer:1"}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}, **spec}}


def a_request(**fields: Any) -> TrainingRequest:
    return decode(json.dumps({"task": "train", "model_container_name": "model-123", **fields}), BOUNDS)


def built(
    template: dict[str, Any] | None = None, request: TrainingRequest | None = None, defaults: JobDefaults = DEFAULTS
) -> dict[str, Any]:
    template = template or a_template()
    load_template(yaml.safe_dump(template), defaults.image)
    return build_job(template, request or a_request(), message_id="message-1", queued_at=T0, defaults=defaults)


def trainer_of(job: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in job["spec"]["template"]["spec"]["containers"] if c.get("name") == "trainer")


def env_of(job: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in trainer_of(job)["env"]}


def expanded(value: str, variables: dict[str, str]) -> str:
    """A pod's env value as Kubernetes expands it (third_party/forked/golang/expansion)."""
    return re.sub(r"\$\$|\$\(([^)]*)\)", lambda m: "$" if m[0] == "$$" else variables.get(m[1], m[0]), value)


# Templates


def test_the_shipped_template_is_accepted() -> None:
    template = load_template(SHIPPED, "trainer:1")
    job = build_job(template, a_request(), message_id="m", queued_at=T0, defaults=replace(DEFAULTS, image="trainer:1"))
    assert trainer_of(job)["image"] == "trainer:1"


def test_a_template_may_be_followed_by_empty_documents() -> None:
    assert load_template(yaml.safe_dump(a_template()) + "---\n---\n")["kind"] == "Job"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "one YAML document"),
        ("# nothing but a comment", "one YAML document"),
        ("[]", "one YAML document"),
        ("just words", "one YAML document"),
        (SHIPPED + "\n---\n" + SHIPPED, "one YAML document"),
        ("kind: [", "no YAML"),
        ("a: !!python/object/apply:os.system [ls]", "no YAML"),
        ("kind: Job\nmetadata: {annotations: {built: 2026-02-31}}", "no YAML"),
        ("a: &a [*a]", "nested"),
        ("[" * 1500, "YAML"),
    ],
)
def test_what_is_no_single_yaml_mapping_is_refused(text: str, said: str) -> None:
    with pytest.raises(TemplateError, match=said):
        load_template(text)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The smallest template with one more field; `path` is dotted, "trainer" is the container."""
    template = a_template()
    *way, last = path.split("/")
    place: Any = template
    for key in way:
        place = place["containers"][0] if key == "trainer" else place.setdefault(key, {})
    if value is ...:
        place.pop(last, None)
    else:
        place[last] = value
    return template


POD = "spec/template/spec"
REFUSALS: list[tuple[str, Any, str]] = [
    ("apiVersion", "batch/v1beta1", "apiVersion and kind"),
    ("kind", "CronJob", "apiVersion and kind"),
    ("metadata", [], "metadata must be a mapping"),
    ("metadata", "training", "metadata must be a mapping"),
    ("metadata/name", "model-1", "metadata.name"),
    ("metadata/generateName", "model-", "metadata.generateName"),
    ("metadata/namespace", "training", "metadata.namespace"),
    ("metadata/labels", ["a"], "metadata.labels must be a mapping"),
    ("metadata/labels/version", 1, "metadata.labels[version]"),
    ("metadata/labels/kueue.x-k8s.io~queue-name", "gpus", "KUEUE_QUEUE"),
    ("metadata/annotations/on-call", True, "metadata.annotations[on-call]"),
    ("metadata/annotations/training-dispatcher~launched-at", "now", "training-dispatcher/launched-at"),
    ("metadata/annotations/training-dispatcher~reported", "{}", "training-dispatcher/reported"),
    ("metadata/finalizers", "a/b", "metadata.finalizers"),
    ("metadata/finalizers", [names.FINALIZER], f"metadata.finalizers[{names.FINALIZER}]"),
    ("spec", ..., "spec must be a mapping"),
    ("spec", [], "spec must be a mapping"),
    ("spec/parallelism", 2, "spec.parallelism"),
    ("spec/completions", 2, "spec.completions"),
    ("spec/completions", None, "spec.completions"),
    ("spec/completionMode", "Indexed", "spec.completionMode"),
    ("spec/ttlSecondsAfterFinished", 60, "spec.ttlSecondsAfterFinished"),
    ("spec/podFailurePolicy", {"rules": []}, "spec.podFailurePolicy"),
    ("spec/selector", {}, "spec.selector"),
    ("spec/manualSelector", True, "spec.manualSelector"),
    ("spec/backoffLimitPerIndex", 1, "spec.backoffLimitPerIndex"),
    ("spec/successPolicy", {}, "spec.successPolicy"),
    ("spec/managedBy", "kueue.x-k8s.io/multikueue", "spec.managedBy"),
    ("spec/podReplacementPolicy", "TerminatingOrFailed", "spec.podReplacementPolicy"),
    ("spec/suspend", False, "spec.suspend"),
    ("spec/backoffLimit", -1, "spec.backoffLimit"),
    ("spec/backoffLimit", "3", "spec.backoffLimit"),
    ("spec/backoffLimit", True, "spec.backoffLimit"),
    ("spec/activeDeadlineSeconds", 0, "spec.activeDeadlineSeconds"),
    ("spec/activeDeadlineSeconds", 1.5, "spec.activeDeadlineSeconds"),
    ("spec/template", ..., "spec.template must be a mapping"),
    ("spec/template/metadata", "x", "spec.template.metadata must be a mapping"),
    ("spec/template/metadata/labels/version", 1.1, "spec.template.metadata.labels[version]"),
    (POD, ..., "spec.template.spec must be a mapping"),
    (f"{POD}/restartPolicy", ..., "restartPolicy must be Never"),
    (f"{POD}/restartPolicy", "OnFailure", "restartPolicy must be Never"),
    (f"{POD}/activeDeadlineSeconds", 60, "spec.template.spec.activeDeadlineSeconds"),
    (f"{POD}/terminationGracePeriodSeconds", -1, "terminationGracePeriodSeconds"),
    (f"{POD}/terminationGracePeriodSeconds", "30", "terminationGracePeriodSeconds"),
    (f"{POD}/containers", ..., "spec.template.spec.containers"),
    (f"{POD}/containers", [], "one container named trainer"),
    (f"{POD}/containers", {"name": "trainer"}, "spec.template.spec.containers"),
    (f"{POD}/containers", ["trainer"], "spec.template.spec.containers"),
    (f"{POD}/containers", [{"name": "main", "image": "x"}], "one container named trainer"),
    (f"{POD}/containers", [{"name": "trainer", "image": "x"}] * 2, "one container named trainer"),
    (f"{POD}/trainer/image", ..., "TRAINER_IMAGE"),
    (f"{POD}/trainer/image", "", "TRAINER_IMAGE"),
    (f"{POD}/trainer/image", 5, "image must be a text"),
    (f"{POD}/trainer/resources", [], "containers[trainer].resources must be a mapping"),
    (f"{POD}/trainer/resources/limits", ["gpu"], "resources.limits must be a mapping"),
    (f"{POD}/trainer/env", {"A": "b"}, "containers[trainer].env must be a list"),
    (f"{POD}/trainer/env", ["A=b"], "containers[trainer].env must be a list"),
    (f"{POD}/trainer/env", [{"value": "b"}], "containers[trainer].env must be a list"),
    (f"{POD}/trainer/env", [{"name": "A", "value": 5}], "containers[trainer].env[A].value is 5"),
    (f"{POD}/trainer/env", [{"name": "A", "value": True}], "containers[trainer].env[A].value"),
    *((f"{POD}/trainer/env", [{"name": name, "value": "x"}], f"env[{name}]") for name in sorted(RESERVED_ENV)),
]


@pytest.mark.parametrize(("path", "value", "said"), REFUSALS, ids=[f"{row[0]}={row[1]!r}"[:70] for row in REFUSALS])
def test_a_template_that_cannot_work_is_refused_with_the_field(path: str, value: Any, said: str) -> None:
    template = json.loads(json.dumps(changed(path, "..." if value is ... else value)).replace("~", "/"))
    if value is ...:
        template = changed(path, ...)
    with pytest.raises(TemplateError) as raised:
        load_template(yaml.safe_dump(template))
    assert any(said in problem for problem in raised.value.problems), raised.value.problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metadata: {annotations: {built: 2026-11-23}}", "metadata.annotations.built is 2026-11-23, a date"),
        ("metadata: {annotations: {at: 2026-11-23T08:00:00Z}}", "metadata.annotations.at"),
        ("metadata: {labels: {1: x}}", "metadata.labels has the key 1"),
        ("metadata: {labels: {on: x}}", "metadata.labels has the key True"),
        ("x: !!binary aGVsbG8=", "a bytes to YAML"),
        ("x: !!set {a, b}", "a set to YAML"),
        ("x: [1, .nan]", "x[1] is nan"),
        ("x: .inf", "x is inf"),
    ],
)
def test_yaml_that_is_no_json_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(TemplateError) as raised:
        load_template(text)
    assert said in str(raised.value)


def test_every_problem_is_told_at_once() -> None:
    template = a_template(parallelism=2, suspend=False)
    template["metadata"] = {"name": "x"}
    template["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    with pytest.raises(TemplateError) as raised:
        load_template(yaml.safe_dump(template))
    assert len(raised.value.problems) == 4


@pytest.mark.parametrize(
    "path",
    [
        "metadata",
        "metadata/labels",
        "metadata/annotations",
        "metadata/finalizers",
        "spec/template/metadata",
        "spec/template/metadata/labels",
        f"{POD}/trainer/env",
        f"{POD}/trainer/resources",
        f"{POD}/trainer/resources/limits",
    ],
)
def test_an_empty_field_is_as_good_as_none(path: str) -> None:
    """`metadata:` with nothing behind it is null to YAML."""
    job = built(changed(path, None), a_request(resources={"gpus": 1}))
    assert job["metadata"]["name"] == "model-123"
    assert trainer_of(job)["resources"]["limits"] == {"nvidia.com/gpu": "1"}


# Jobs


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
    assert set(env_of(built(request=a_request(dataset_container_name="dataset-xyz")))) >= RESERVED_ENV


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
    template = load_template(SHIPPED, "trainer:1")
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
