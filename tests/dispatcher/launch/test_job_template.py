"""dispatcher.launch.job_template: which Job templates are refused, with the field and what would be right."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from dispatcher.cluster import names
from dispatcher.launch.job_spec import build_job
from dispatcher.launch.job_template import RESERVED_ENV, TemplateError, load_template
from tests.dispatcher.launch.built_jobs import DEFAULTS, POD, a_request, a_template, built, changed, trainer_of
from tests.world.builders import T0
from tests.world.repository import JOB_TEMPLATE

SHIPPED = JOB_TEMPLATE.read_text(encoding="utf-8")


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
        ("[" * 600, "YAML"),
    ],
)
def test_what_is_no_single_yaml_mapping_is_refused(text: str, said: str) -> None:
    with pytest.raises(TemplateError, match=said):
        load_template(text)


REFUSALS: list[tuple[str, Any, str]] = [
    ("spec/template/spec/volumes", [{"name": "training-credentials", "emptyDir": {}}], "CREDENTIALS=scoped"),
    (f"{POD}/trainer/volumeMounts", [{"name": "x", "mountPath": "/credentials/"}], "must not lie at /credentials"),
    (f"{POD}/trainer/volumeMounts", [{"name": "x", "mountPath": "/credentials/x"}], "must not lie at /credentials"),
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
    (POD, {}, "restartPolicy must be Never"),
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
