"""The operator's Job template: read and checked when the dispatcher starts. Pure.

A template that would break a promise of the orchestrator, or that the API server could never take, is refused with
every problem and its field named, before the first message is touched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from dispatcher.cluster import names

# Written for each Job; a template that sets one itself would train the wrong model.
RESERVED_ENV = frozenset(
    {
        "MODEL_CONTAINER",
        "DATASET_CONTAINER",
        "RUN_ID",
        "LAUNCHED_BY",
        "TRAINER_IMAGE",
        "TRAINING_REQUEST",
        "POD_NAME",
        "GRACE_SECONDS",
        "GPUS",
    }
)

# Our own annotations and labels; one that stands in the template would be believed of every Job.
_OURS = re.compile(r"training-dispatcher/.*")

# Deeper than any Job, and the end of a YAML alias that contains itself.
_MAX_DEPTH = 40

_ONE_POD = "one model is one pod"
_NOT_YOURS = {
    "ttlSecondsAfterFinished": "it is set after the outcome was reported (TTL_AFTER_REPORT_SECONDS)",
    "podFailurePolicy": "the exit codes of the trainer's contract decide",
    "selector": "the Job controller makes it",
    "manualSelector": "the Job controller makes it",
    "backoffLimitPerIndex": _ONE_POD,
    "maxFailedIndexes": _ONE_POD,
    "successPolicy": _ONE_POD,
    "managedBy": "Kubernetes' own Job controller is needed",
}


class TemplateError(ValueError):
    """The operator's template cannot work; the message has one line for each problem, with the field's path."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("The Job template cannot work:\n" + "\n".join(f"  {problem}" for problem in problems))


def load_template(text: str, image: str = "") -> dict[str, Any]:
    """Parse and check the template. image: used where the template leaves the trainer's image out.

    Raises TemplateError.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-02-30
        raise TemplateError([f"it is no YAML: {' '.join(str(error).split())}"]) from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise TemplateError(["it must be one YAML document: a Job of apiVersion batch/v1"])
    template: dict[str, Any] = documents[0]
    # What is not JSON cannot be searched safely, either.
    if problems := list(_no_json(template, "", 0)) or _problems(template, image):
        raise TemplateError(problems)
    return template


def _no_json(value: object, path: str, depth: int) -> Iterator[str]:
    """What YAML has and JSON has not, so that it cannot be sent to the API server."""
    if depth > _MAX_DEPTH:
        yield f"{path[:80]}... is nested more than {_MAX_DEPTH} levels deep"
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _no_json(item, f"{path}.{key}" if path else key, depth + 1)
            else:
                yield f"{path or 'the template'} has the key {key!r}, which is no text: put it in quotes"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _no_json(item, f"{path}[{number}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is {value}, which is no number of JSON"
    elif value is not None and not isinstance(value, str | int | float):
        yield f"{path} is {value!s:.80}, a {type(value).__name__} to YAML: put it in quotes"


def _problems(template: Mapping[str, Any], image: str) -> list[str]:
    """Every reason why no Job made of this template could keep our promises."""
    problems: list[str] = []
    if template.get("apiVersion") != "batch/v1" or template.get("kind") != "Job":
        problems.append("apiVersion and kind must be batch/v1 and Job")
    metadata = _mapping(template, "metadata", "", problems, needed=False)
    for key in ("name", "generateName", "namespace"):
        if key in metadata:
            problems.append(f"metadata.{key} must be left out: each Job is named after its model container")
    problems += _metadata_problems(metadata, "metadata")
    finalizers = metadata.get("finalizers") or []
    if not isinstance(finalizers, list) or not all(isinstance(f, str) for f in finalizers):
        problems.append("metadata.finalizers must be a list of texts")
    elif names.FINALIZER in finalizers:
        problems.append(f"metadata.finalizers[{names.FINALIZER}] must be left out: it is written for each Job")
    spec = _mapping(template, "spec", "", problems)
    problems += _spec_problems(spec)
    pod_template = _mapping(spec, "template", "spec.", problems)
    problems += _metadata_problems(
        _mapping(pod_template, "metadata", "spec.template.", problems, needed=False), "spec.template.metadata"
    )
    pod = _mapping(pod_template, "spec", "spec.template.", problems)
    if pod:
        problems += _pod_problems(pod, image)
    return problems


def _metadata_problems(metadata: Mapping[str, Any], where: str) -> list[str]:
    problems: list[str] = []
    for kind in ("labels", "annotations"):
        for key, value in _mapping(metadata, kind, f"{where}.", problems, needed=False).items():
            if not isinstance(value, str):
                problems.append(f"{where}.{kind}[{key}] is {value!r}, which is no text: put it in quotes")
            if _OURS.fullmatch(key):
                problems.append(f"{where}.{kind}[{key}] must be left out: the dispatcher writes it")
            if key == names.KUEUE_QUEUE_LABEL:
                problems.append(
                    f"{where}.{kind}[{key}] must be left out: KUEUE_QUEUE names the queue, "
                    "and the label is added once Processing was sent"
                )
    return problems


def _spec_problems(spec: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in ("parallelism", "completions"):
        if spec.get(key, 1) != 1:
            problems.append(f"spec.{key} is {spec[key]!r}; {_ONE_POD}: leave it out")
    problems += [f"spec.{key} must be left out: {why}" for key, why in _NOT_YOURS.items() if key in spec]
    if spec.get("completionMode", "NonIndexed") != "NonIndexed":
        problems.append(f"spec.completionMode must be left out: {_ONE_POD}")
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        problems.append("spec.podReplacementPolicy must be Failed: two pods of one model would fence each other out")
    if spec.get("suspend", True) is not True:
        problems.append("spec.suspend must be left out: no pod may start before Processing was sent")
    for key in ("backoffLimit", "activeDeadlineSeconds"):
        value = spec.get(key, 1)
        if type(value) is not int or value < (1 if key == "activeDeadlineSeconds" else 0):
            problems.append(f"spec.{key} is {value!r}; a whole number would be right")
    return problems


def _pod_problems(pod: Mapping[str, Any], image: str) -> list[str]:
    problems = []
    where = "spec.template.spec"
    if pod.get("restartPolicy") != "Never":
        problems.append(f"{where}.restartPolicy must be Never: retries are the Job's, by exit code")
    if "activeDeadlineSeconds" in pod:
        problems.append(f"{where}.activeDeadlineSeconds must be left out: spec.activeDeadlineSeconds is the limit")
    grace = pod.get("terminationGracePeriodSeconds", 30)
    if type(grace) is not int or grace < 0:
        problems.append(f"{where}.terminationGracePeriodSeconds must be a whole number of seconds")
    containers = pod.get("containers")
    if not isinstance(containers, list) or not all(isinstance(c, dict) for c in containers):
        return [*problems, f"{where}.containers must be a list with a container named {names.TRAINER_CONTAINER}"]
    trainers = [c for c in containers if c.get("name") == names.TRAINER_CONTAINER]
    if len(trainers) != 1:
        return [*problems, f"{where}.containers must have one container named {names.TRAINER_CONTAINER}"]
    return problems + _trainer_problems(trainers[0], f"{where}.containers[{names.TRAINER_CONTAINER}]", image)


def _trainer_problems(trainer: Mapping[str, Any], where: str, image: str) -> list[str]:
    problems: list[str] = []
    if not isinstance(trainer.get("image") or "", str):
        problems.append(f"{where}.image must be a text")
    elif not trainer.get("image") and not image:
        problems.append(f"{where}.image is missing: name one, or set TRAINER_IMAGE")
    resources = _mapping(trainer, "resources", f"{where}.", problems, needed=False)
    for kind in ("requests", "limits"):
        _mapping(resources, kind, f"{where}.resources.", problems, needed=False)
    env = trainer.get("env") or []
    if not isinstance(env, list) or not all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in env):
        return [*problems, f"{where}.env must be a list of entries with a name"]
    for entry in env:
        if entry["name"] in RESERVED_ENV:
            problems.append(f"{where}.env[{entry['name']}] must be left out: it is written for each Job")
        if not isinstance(entry.get("value") or "", str):
            problems.append(
                f"{where}.env[{entry['name']}].value is {entry['value']!r}, which is no text: put it in quotes"
            )
    return problems


def _mapping(
    parent: Mapping[str, Any], key: str, prefix: str, problems: list[str], needed: bool = True
) -> Mapping[str, Any]:
    value = parent.get(key)
    if isinstance(value, dict):
        return value
    if needed or value is not None:
        problems.append(f"{prefix}{key} must be a mapping")
    return {}
