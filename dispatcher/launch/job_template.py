"""The operator's Job template: read and checked when the dispatcher starts. Pure.

A template that would break a promise of the orchestrator, or that the API server could never take, is refused with
every problem and its field named, before the first message is touched.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from dispatcher.cluster import names
from dispatcher.launch import gpus
from dispatcher.launch.job_spec import SHARED_CREDENTIALS

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
        "STATUS_BEFORE",
        "GPUS",
        "CREDENTIALS_DIR",
    }
)

# The same for trainings on several nodes: they are a template's own where MAX_NODES allows none.
TEAM_ENV = frozenset({"NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "POD_IP"})

# Deeper than any Job, and the end of a YAML alias that contains itself.
_MAX_DEPTH = 40

_NODES = "a message's resources.nodes says how many pods a training has"
_TOGETHER = "the pods of a training succeed or fail together"
_NOT_YOURS = {
    "ttlSecondsAfterFinished": "it is set after the outcome was reported (TTL_AFTER_REPORT_SECONDS)",
    "podFailurePolicy": "the exit codes of the trainer's contract decide",
    "selector": "the Job controller makes it",
    "manualSelector": "the Job controller makes it",
    "backoffLimitPerIndex": _TOGETHER,
    "maxFailedIndexes": _TOGETHER,
    "successPolicy": _TOGETHER,
    "managedBy": "Kubernetes' own Job controller is needed",
}


class TemplateError(ValueError):
    """The operator's template cannot work; the message has one line for each problem, with the field's path."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("The Job template cannot work:\n" + "\n".join(f"  {problem}" for problem in problems))


def load_template(
    text: str, image: str = "", gpu_resource: str = names.GPU_RESOURCE, max_nodes: int = 1
) -> dict[str, Any]:
    """Parse and check the template. image: used where the template leaves the trainer's image out.

    gpu_resource: what a message's number of GPUs means where the template asks for none. max_nodes: the most nodes of a
    training. Raises TemplateError.
    """
    try:
        twice = [problem for node in yaml.compose_all(text, yaml.SafeLoader) for problem in _twice(node)]
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-02-30
        raise TemplateError([f"it is no YAML: {' '.join(str(error).split())}"]) from None
    if twice:
        raise TemplateError(twice)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise TemplateError(["it must be one YAML document: a Job of apiVersion batch/v1"])
    template: dict[str, Any] = documents[0]
    # What is not JSON cannot be searched safely, either.
    if problems := list(_no_json(template, "", 0)) or list(_problems(template, image, gpu_resource)):
        raise TemplateError(problems)
    if max_nodes > 1 and (problems := list(_team_problems(template))):
        raise TemplateError(problems)
    return template


def ordinary_sidecars(template: Mapping[str, Any]) -> list[str]:
    """Names of containers beside the trainer that nothing ends when it has (F45). template: a loaded one."""
    containers = template["spec"]["template"]["spec"]["containers"]
    return [str(c.get("name")) for c in containers if c.get("name") != names.TRAINER_CONTAINER]


def other_secrets(template: Mapping[str, Any]) -> list[str]:
    """Names of the Secrets that its pods have with scoped credentials, too. template: a loaded one."""
    pod = template["spec"]["template"]["spec"]
    found = []
    for volume in _mappings(pod, "volumes"):
        found.append(_mapping(volume, "secret").get("secretName"))
        found += [
            _mapping(source, "secret").get("name") for source in _mappings(_mapping(volume, "projected"), "sources")
        ]
    for container in (*_mappings(pod, "containers"), *_mappings(pod, "initContainers")):
        left_out = SHARED_CREDENTIALS if container.get("name") == names.TRAINER_CONTAINER else ()
        found += [_mapping(source, "secretRef").get("name") for source in _mappings(container, "envFrom")]
        for entry in _mappings(container, "env"):
            if entry.get("name") not in left_out:
                found.append(_mapping(entry, "valueFrom.secretKeyRef").get("name"))
    return sorted({name for name in found if isinstance(name, str)})


def _twice(root: yaml.Node | None) -> Iterator[str]:
    """Keys that stand in one mapping twice: YAML's readers silently take the last one."""
    seen: set[int] = set()  # an alias may contain itself
    left = [(root, "")] if root is not None else []
    while left:
        node, path = left.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += [(item, f"{path}[{number}]") for number, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, item in node.value:
                where, name = f"{path}.{key.value}" if path else str(key.value), (key.tag, str(key.value))
                line = key.start_mark.line + 1
                if name in lines:
                    yield f"{where[:200]} stands there twice, in lines {lines[name]} and {line}: keep one"
                lines[name] = line
                left.append((item, where))


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


def _problems(template: Mapping[str, Any], image: str, gpu_resource: str) -> Iterator[str]:
    """Every reason why no Job made of this template could keep our promises."""
    if template.get("apiVersion") != "batch/v1" or template.get("kind") != "Job":
        yield "apiVersion and kind must be batch/v1 and Job"
    for path in ("spec", "spec.template", "spec.template.spec"):
        if not isinstance(_at(template, path), dict):
            yield f"{path} must be a mapping"
    for where in ("metadata", "spec.template.metadata"):
        yield from _metadata_problems(template, where)
    metadata = _mapping(template, "metadata")
    for key in ("name", "generateName", "namespace"):
        if key in metadata:
            yield f"metadata.{key} must be left out: each Job is named after its model container"
    finalizers = metadata.get("finalizers") or []
    if not isinstance(finalizers, list) or not all(isinstance(f, str) for f in finalizers):
        yield "metadata.finalizers must be a list of texts"
    elif names.FINALIZER in finalizers:
        yield f"metadata.finalizers[{names.FINALIZER}] must be left out: it is written for each Job"
    yield from _spec_problems(_mapping(template, "spec"))
    yield from _pod_problems(_mapping(template, "spec.template.spec"), "spec.template.spec", image, gpu_resource)


def _team_problems(template: Mapping[str, Any]) -> Iterator[str]:
    """What would break a training on several nodes alone. template: one that can work on one."""
    for entry in gpus.trainer_of(template).get("env") or ():
        if entry["name"] in TEAM_ENV:
            where = f"spec.template.spec.containers[{names.TRAINER_CONTAINER}].env[{entry['name']}]"
            yield f"{where} must be left out: with MAX_NODES it is written for each Job"
    if names.KUEUE_PARTIAL in _mapping(template, "metadata.annotations"):
        where = f"metadata.annotations[{names.KUEUE_PARTIAL}]"
        yield f"{where} must be left out: with MAX_NODES a training has all of its nodes or none"


def _metadata_problems(template: Mapping[str, Any], where: str) -> Iterator[str]:
    labels, annotations = f"{where}.labels", f"{where}.annotations"
    yield from _no_mappings(template, where, labels, annotations)
    for path in (labels, annotations):
        for key, value in _mapping(template, path).items():
            if not isinstance(value, str):
                yield f"{path}[{key}] is {value!r}, which is no text: put it in quotes"
            # One of our own in the template would be believed of every Job.
            if key.startswith("training-dispatcher/"):
                yield f"{path}[{key}] must be left out: the dispatcher writes it"
            if key == names.KUEUE_QUEUE_LABEL:
                why = "KUEUE_QUEUE names the queue, and the label is added once Processing was sent"
                yield f"{path}[{key}] must be left out: {why}"


def _spec_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    for key in ("parallelism", "completions"):
        if spec.get(key, 1) != 1:
            yield f"spec.{key} is {spec[key]!r}: leave it out, {_NODES}"
    for key, why in _NOT_YOURS.items():
        if key in spec:
            yield f"spec.{key} must be left out: {why}"
    if spec.get("completionMode", "NonIndexed") != "NonIndexed":
        yield f"spec.completionMode must be left out: {_NODES}"
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "spec.podReplacementPolicy must be Failed: two pods of one model would fence each other out"
    if spec.get("suspend", True) is not True:
        yield "spec.suspend must be left out: no pod may start before Processing was sent"
    for key, least in (("backoffLimit", 0), ("activeDeadlineSeconds", 1)):
        value = spec.get(key, 1)
        if type(value) is not int or value < least:
            yield f"spec.{key} is {value!r}; a whole number would be right"


def _pod_problems(pod: Mapping[str, Any], where: str, image: str, gpu_resource: str) -> Iterator[str]:
    if pod.get("restartPolicy") != "Never":
        yield f"{where}.restartPolicy must be Never: retries are the Job's, by exit code"
    if "activeDeadlineSeconds" in pod:
        yield f"{where}.activeDeadlineSeconds must be left out: spec.activeDeadlineSeconds is the limit"
    if not re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?", str(pod.get("subdomain") or "")):
        yield f"{where}.subdomain is {pod['subdomain']!r}; the name of a headless Service would be right"
    grace = pod.get("terminationGracePeriodSeconds", 30)
    if type(grace) is not int or grace < 0:
        yield f"{where}.terminationGracePeriodSeconds must be a whole number of seconds"
    containers = pod.get("containers")
    if not isinstance(containers, list) or not all(isinstance(c, dict) for c in containers):
        yield f"{where}.containers must be a list with a container named {names.TRAINER_CONTAINER}"
        return
    trainers = [c for c in containers if c.get("name") == names.TRAINER_CONTAINER]
    if len(trainers) != 1:
        yield f"{where}.containers must have one container named {names.TRAINER_CONTAINER}"
        return
    yield from _restart_problems(pod, where)
    yield from _credentials_problems(pod, where)
    for problem in _trainer_problems(trainers[0], image, gpu_resource):
        yield f"{where}.containers[{names.TRAINER_CONTAINER}].{problem}"


def _credentials_problems(pod: Mapping[str, Any], where: str) -> Iterator[str]:
    """What the dispatcher adds with scoped credentials: a volume, and its place in the trainer."""
    found = [(f"{where}.volumes", entry) for entry in _mappings(pod, "volumes")]
    for container in (*_mappings(pod, "containers"), *_mappings(pod, "initContainers")):
        at = f"{where}.containers[{container.get('name')}].volumeMounts"
        found += [(at, entry) for entry in _mappings(container, "volumeMounts")]
    for at, entry in found:
        if entry.get("name") == names.CREDENTIALS_VOLUME:
            yield f"{at}[{names.CREDENTIALS_VOLUME}] must be left out: it is added with CREDENTIALS=scoped"
        elif _is_under(entry.get("mountPath"), names.CREDENTIALS_DIR):
            yield f"{at} must not lie at {names.CREDENTIALS_DIR}: a training's credentials are mounted there"


def _mappings(parent: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = parent.get(key)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _is_under(path: object, folder: str) -> bool:
    return isinstance(path, str) and f"{posixpath.normpath(path)}/".startswith(f"{folder}/")


def _restart_problems(pod: Mapping[str, Any], where: str) -> Iterator[str]:
    """A trainer that the kubelet restarts in place is counted by nobody, and looks ended in between (1.35)."""
    for kind in ("containers", "initContainers"):
        for container in pod.get(kind) or ():
            if not isinstance(container, dict):
                continue
            at, rules = f"{where}.{kind}[{container.get('name')}]", container.get("restartPolicyRules") or ()
            if container.get("name") == names.TRAINER_CONTAINER and kind == "containers":
                for key in ("restartPolicy", "restartPolicyRules"):
                    if key in container:
                        yield f"{at}.{key} must be left out: retries are the Job's, by exit code"
            elif any(isinstance(rule, dict) and rule.get("action") == "RestartAllContainers" for rule in rules):
                yield f"{at}.restartPolicyRules must not restart all containers: the trainer is one of them"


def _trainer_problems(trainer: Mapping[str, Any], image: str, gpu_resource: str) -> Iterator[str]:
    if not isinstance(trainer.get("image") or "", str):
        yield "image must be a text"
    elif not trainer.get("image") and not image:
        yield "image is missing: name one, or set TRAINER_IMAGE"
    shapeless = list(_no_mappings(trainer, "resources", "resources.requests", "resources.limits"))
    if shapeless:
        yield from shapeless
    elif not isinstance(_mapping(trainer, "resources").get("claims") or [], list):
        yield "resources.claims must be a list"
    elif len(kinds := gpus.kinds(trainer, gpu_resource)) > 1:
        yield f"resources asks for several kinds of GPU: {', '.join(kinds)}; keep one"
    env = trainer.get("env") or []
    if not isinstance(env, list) or not all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in env):
        yield "env must be a list of entries with a name"
        return
    for entry in env:
        if entry["name"] in RESERVED_ENV:
            yield f"env[{entry['name']}] must be left out: it is written for each Job"
        if not isinstance(entry.get("value") or "", str):
            yield f"env[{entry['name']}].value is {entry['value']!r}, which is no text: put it in quotes"


def _no_mappings(tree: Mapping[str, Any], *paths: str) -> Iterator[str]:
    for path in paths:
        if not isinstance(_at(tree, path), dict | None):
            yield f"{path} must be a mapping"


def _mapping(tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    value = _at(tree, path)
    return value if isinstance(value, dict) else {}


def _at(tree: Any, path: str) -> Any:
    """What lies at a path such as "spec.template"; None where nothing does."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
