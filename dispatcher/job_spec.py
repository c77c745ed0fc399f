"""The operator's Job template + a request → the Job to create. Pure.

The template is a plain `batch/v1` Job. What the orchestrator's promises rest on (name, suspend, finalizer, failure
policy, deadline, the trainer's environment) is ours; everything else is the operator's. A template that would break
a promise is refused when the dispatcher starts, with the field named.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from dispatcher import names
from dispatcher.objects import rfc3339
from dispatcher.training_request import TrainingRequest

# Exit codes up to 127 are permanent by the trainer's contract, those from 128 are counted by backoffLimit.
_PERMANENT_EXIT_CODES = list(range(1, 128))

# Written for each Job; a template that sets one itself would train the wrong model.
_RESERVED_ENV = frozenset(
    {
        "MODEL_CONTAINER",
        "DATASET_CONTAINER",
        "RUN_ID",
        "LAUNCHED_BY",
        "TRAINING_REQUEST",
        "POD_NAME",
        "GRACE_SECONDS",
    }
)


class TemplateError(ValueError):
    """The operator's template cannot work; the message has one line for each problem, with the field's path."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("The Job template cannot work:\n" + "\n".join(f"  {problem}" for problem in problems))


@dataclass(frozen=True)
class JobDefaults:
    """What every Job gets from the dispatcher's settings. env: handed to the trainer unless the template sets it."""

    env: Mapping[str, str]
    time_limit: int
    image: str = ""
    gpu_resource: str = names.GPU_RESOURCE


def load_template(text: str, image: str = "") -> dict[str, Any]:
    """Parse and check the template. image: used where the template leaves the trainer's image out.

    Raises TemplateError.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise TemplateError([f"it is no YAML: {' '.join(str(error).split())}"]) from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise TemplateError(["it must be one YAML document: a Job of apiVersion batch/v1"])
    template: dict[str, Any] = documents[0]
    if problems := _problems(template, image):
        raise TemplateError(problems)
    return template


def run_id(message_id: str, queued_at: float) -> str:
    """The run's folder in the model container: sortable by time, the same for every delivery of one message."""
    when = datetime.fromtimestamp(queued_at, UTC).strftime("%Y%m%dt%H%M%S")
    return f"{when}-{hashlib.sha256(message_id.encode()).hexdigest()[:8]}"


def build_job(
    template: Mapping[str, Any],
    request: TrainingRequest,
    *,
    message_id: str,
    queued_at: float,
    defaults: JobDefaults,
) -> dict[str, Any]:
    """The suspended Job for one request. queued_at: seconds since the epoch. The template is not changed."""
    job: dict[str, Any] = copy.deepcopy(dict(template))
    run = run_id(message_id, queued_at)
    labels = {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: request.model_id}

    metadata = job.setdefault("metadata", {})
    metadata["name"] = request.model_container
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        names.MESSAGE_ID: message_id,
        names.REQUEST: request.to_json(),
        names.RUN_ID: run,
        names.QUEUED_AT: rfc3339(queued_at),
    }
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), names.FINALIZER]

    spec = job["spec"]
    spec["suspend"] = True
    spec["parallelism"] = spec["completions"] = 1
    spec["activeDeadlineSeconds"] = min(
        request.time_limit or spec.get("activeDeadlineSeconds") or defaults.time_limit, defaults.time_limit
    )
    spec["podReplacementPolicy"] = "Failed"
    spec["podFailurePolicy"] = {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailJob",
                "onExitCodes": {
                    "containerName": names.TRAINER_CONTAINER,
                    "operator": "In",
                    "values": _PERMANENT_EXIT_CODES,
                },
            },
        ]
    }

    pod = spec["template"]
    pod_metadata = pod.setdefault("metadata", {})
    pod_metadata["labels"] = {**(pod_metadata.get("labels") or {}), **labels}
    if request.priority is not None:
        pod["spec"]["priorityClassName"] = request.priority
    _complete_container(pod["spec"], request, run, defaults)
    return job


def _complete_container(pod_spec: dict[str, Any], request: TrainingRequest, run: str, defaults: JobDefaults) -> None:
    container = next(c for c in pod_spec["containers"] if c["name"] == names.TRAINER_CONTAINER)
    container.setdefault("image", defaults.image)
    container["terminationMessagePath"] = "/dev/termination-log"
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    theirs = container.get("env") or []
    taken = {entry["name"] for entry in theirs}
    ours: dict[str, str] = {
        "MODEL_CONTAINER": request.model_container,
        "RUN_ID": run,
        "LAUNCHED_BY": "dispatcher",
        "TRAINING_REQUEST": request.to_json(),
        "GRACE_SECONDS": str(pod_spec.get("terminationGracePeriodSeconds", 30)),
        **{name: value for name, value in defaults.env.items() if name not in taken},
    }
    if request.dataset_container is not None:
        ours["DATASET_CONTAINER"] = request.dataset_container
    container["env"] = [
        *theirs,
        # "$(" begins a reference to another variable in a pod's env; "$$(" is the text itself.
        *({"name": name, "value": value.replace("$(", "$$(")} for name, value in ours.items()),
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    if request.gpus is not None:
        resources = container.setdefault("resources", {})
        for kind in ("requests", "limits"):
            amounts = dict(resources.get(kind) or {})
            amounts.pop(defaults.gpu_resource, None)
            if request.gpus and kind == "limits":
                amounts[defaults.gpu_resource] = str(request.gpus)
            resources[kind] = amounts


def _problems(template: Mapping[str, Any], image: str) -> list[str]:
    """Every reason why no Job made of this template could keep our promises."""
    problems: list[str] = []
    if template.get("apiVersion") != "batch/v1" or template.get("kind") != "Job":
        problems.append("apiVersion and kind must be batch/v1 and Job")
    metadata = _mapping(template, "metadata", "", problems, needed=False)
    for key in ("name", "generateName", "namespace"):
        if key in metadata:
            problems.append(f"metadata.{key} must be left out: each Job is named after its model container")
    spec = _mapping(template, "spec", "", problems)
    problems += _spec_problems(spec)
    pod = _mapping(_mapping(spec, "template", "spec.", problems), "spec", "spec.template.", problems)
    if pod:
        problems += _pod_problems(pod, image)
    return problems


def _spec_problems(spec: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in ("parallelism", "completions"):
        if spec.get(key, 1) != 1:
            problems.append(f"spec.{key} is {spec[key]!r}; one model is one pod: leave it out")
    for key, why in {
        "ttlSecondsAfterFinished": "it is set after the outcome was reported (TTL_AFTER_REPORT_SECONDS)",
        "podFailurePolicy": "the exit codes of the trainer's contract decide",
        "selector": "the Job controller makes it",
        "manualSelector": "the Job controller makes it",
        "backoffLimitPerIndex": "one model is one pod",
        "successPolicy": "one model is one pod",
        "managedBy": "Kubernetes' own Job controller is needed",
    }.items():
        if key in spec:
            problems.append(f"spec.{key} must be left out: {why}")
    if spec.get("completionMode", "NonIndexed") != "NonIndexed":
        problems.append("spec.completionMode must be left out: one model is one pod")
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        problems.append("spec.podReplacementPolicy must be Failed: two pods of one model would fence each other out")
    if spec.get("suspend", True) is not True:
        problems.append("spec.suspend must be left out: no pod may start before the portal was told")
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
    containers = pod.get("containers")
    if not isinstance(containers, list) or not all(isinstance(c, dict) for c in containers):
        return [
            *problems,
            f"{where}.containers must be a list with a container named {names.TRAINER_CONTAINER}",
        ]
    trainers = [c for c in containers if c.get("name") == names.TRAINER_CONTAINER]
    if len(trainers) != 1:
        return [*problems, f"{where}.containers must have one container named {names.TRAINER_CONTAINER}"]
    trainer, where = trainers[0], f"{where}.containers[{names.TRAINER_CONTAINER}]"
    if not trainer.get("image") and not image:
        problems.append(f"{where}.image is missing: name one, or set TRAINER_IMAGE")
    env = trainer.get("env") or []
    if not isinstance(env, list) or not all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in env):
        problems.append(f"{where}.env must be a list of entries with a name")
    else:
        for entry in env:
            if entry["name"] in _RESERVED_ENV:
                problems.append(f"{where}.env[{entry['name']}] must be left out: it is written for each Job")
    grace = pod.get("terminationGracePeriodSeconds", 30)
    if type(grace) is not int or grace < 0:
        problems.append("spec.template.spec.terminationGracePeriodSeconds must be a whole number of seconds")
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
