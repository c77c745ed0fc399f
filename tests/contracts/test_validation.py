"""What the API server refuses, and in which words: an operator's template meets these first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.world.kube import JSON_PATCH, Kube, Obj

Names = Callable[[], str]


def test_an_unknown_field_is_refused_when_validation_is_strict(kube: Kube, job: Names) -> None:
    name = job()
    body = kube.job_body(name, "exit 0", suspend=True)
    body["spec"]["template"]["spec"]["containers"][0]["comand"] = ["x"]
    answer = kube.call("POST", kube.path("jobs"), body, query={"fieldValidation": "Strict"})
    assert answer.code == 400
    assert 'strict decoding error: unknown field "spec.template.spec.containers[0].comand"' in answer.message
    loose = kube.call("POST", kube.path("jobs"), body)
    assert loose.code == 201
    assert "comand" not in loose.body["spec"]["template"]["spec"]["containers"][0]
    assert "unknown field" in loose.headers["warning"]


def test_a_value_of_the_wrong_type_is_a_bad_request(kube: Kube, job: Names) -> None:
    body = kube.job_body(job(), "exit 0")
    body["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": 5}]
    answer = kube.call("POST", kube.path("jobs"), body)
    assert answer.code == 400
    assert "cannot unmarshal number into Go struct field EnvVar" in answer.message


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ((lambda j: j["metadata"].update(name="Model_1")), "metadata.name", "RFC 1123"),
        (
            (lambda j: j["metadata"].update(labels={"a": "no spaces"})),
            "metadata.labels",
            "a valid label must be",
        ),
        ((lambda j: j["metadata"].update(finalizers=["report"])), "metadata.finalizers", "fully qualified"),
        (
            (lambda j: j["spec"]["template"]["spec"].pop("restartPolicy")),
            "spec.template.spec.restartPolicy",
            'valid values: "OnFailure", "Never"',
        ),
        (
            (lambda j: j["spec"]["template"]["spec"].update(restartPolicy="OnFailure")),
            "spec.template.spec.restartPolicy",
            'only "Never" is supported when podFailurePolicy is specified',
        ),
        (
            (lambda j: j["spec"].update(podReplacementPolicy="TerminatingOrFailed")),
            "spec.podReplacementPolicy",
            'supported values: "Failed"',
        ),
        (
            (lambda j: j["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=[0])),
            "spec.podFailurePolicy.rules[1].onExitCodes.values[0]",
            "must not be 0",
        ),
        (
            (lambda j: j["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=[66, 65])),
            "spec.podFailurePolicy.rules[1].onExitCodes.values",
            "must be ordered",
        ),
        (
            (lambda j: j["spec"]["template"]["spec"]["containers"][0].pop("image")),
            "spec.template.spec.containers[0].image",
            "Required value",
        ),
        ((lambda j: j["spec"].update(backoffLimit=-1)), "spec.backoffLimit", "greater than or equal to 0"),
        (
            (
                lambda j: j["spec"]["template"]["spec"]["containers"][0].update(
                    volumeMounts=[{"name": "none", "mountPath": "/x"}]
                )
            ),
            "spec.template.spec.containers[0].volumeMounts[0].name",
            "Not found",
        ),
    ],
)
def test_an_invalid_job_is_refused_with_the_field_named(
    kube: Kube, job: Names, change: Callable[[Obj], object], field: str, words: str
) -> None:
    body = kube.job_body(job(), "exit 0")
    change(body)
    answer = kube.call("POST", kube.path("jobs"), body)
    assert (answer.code, answer.reason) == (422, "Invalid")
    # Of a list some releases name the entry (`metadata.finalizers[0]`), others the field.
    causes = [cause for cause in answer.body["details"]["causes"] if cause["field"] in (field, f"{field}[0]")]
    assert any(words in cause["message"] for cause in causes), answer.message


def test_a_jobs_template_cannot_be_changed(kube: Kube, job: Names) -> None:
    name = job()
    kube.start(name, "exit 0", suspend=True)
    change = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"}]
    answer = kube.patch("jobs", name, change, JSON_PATCH)
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert "field is immutable" in answer.message
