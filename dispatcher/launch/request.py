"""Queue text → TrainingRequest, or MalformedRequest with a code and a sentence for the poison queue. Pure.

The text is plain JSON or standard base64 of it (what the .NET SDK and Azure Functions send), distinguished per message.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from dispatcher.launch.encodings import EDGES, OPENINGS, json_in_base64, looks_like
from portal_client.model_ids import MODEL_PREFIX, InvalidContainerName, container_name_problem, extract_model_id

# A queue message holds 64 KiB; the request also has to fit into a Job's annotations (256 KiB in all).
MAX_BYTES = 64 * 1024
_MAX_DEPTH = 32
# Of a label of DNS, such as a pod's host name.
_LONGEST_NAME = 63


class MalformedRequest(ValueError):
    """The message can never be launched. code: stable, for metrics and the poison queue; the text is a sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


@dataclass(frozen=True)
class TrainingRequest:
    """One request to train one model.

    gpus (of each node), priority, time_limit (seconds): None where the message leaves it to the operator's template.
    body: the whole message, unchanged, for the trainer. nodes: None where the message says nothing of them: one.
    """

    model_id: str
    model_container: str
    dataset_container: str | None
    gpus: int | None
    priority: str | None
    time_limit: int | None
    body: Mapping[str, Any]
    nodes: int | None = None

    def to_json(self) -> str:
        """The request as it is kept on the Job; `decode` reads it back."""
        return json.dumps(self.body, ensure_ascii=False, separators=(",", ":"))


# Stands for any request where the API server is asked about a Job that is not to be made.
DRY_RUN = TrainingRequest(
    "dispatcher-dry-run", f"{MODEL_PREFIX}dispatcher-dry-run", None, None, None, None, {"task": "train"}
)


@dataclass(frozen=True)
class Bounds:
    """The operator's limits on what a message may ask for."""

    max_gpus: int
    max_time_limit: float
    priority_classes: tuple[str, ...] = ()
    claimed_gpus: int = 0  # those of a template that asks for them by claims; a message can only do without them
    own_datasets: bool = False  # a dataset must not be another model's container
    max_nodes: int = 1


def decode(text: str, bounds: Bounds) -> TrainingRequest:
    """Parse and validate the text of one message. Raises MalformedRequest and nothing else."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        _bad("MessageTooLarge", f"The message has {size} bytes; at most {MAX_BYTES} are read")
    body = _object(text)
    task = body.get("task")
    if task is None:
        _bad("MissingField", 'The message has no field "task"; "train" would be right')
    if task != "train":
        _bad("UnknownTask", f'The field "task" is {_shown(task)}; only "train" is known')
    model = body.get("model_container_name")
    if model is None:
        right = 'a name such as "model-123" would be right'
        _bad("MissingField", f'The message has no field "model_container_name"; {right}')
    try:
        model_id = extract_model_id(model)
    except InvalidContainerName as error:
        _bad("InvalidContainerName", str(error))
    claimed = body.get("model_id")
    if claimed is not None and (type(claimed) not in (str, int) or str(claimed) != model_id):
        _bad(
            "InvalidField",
            f'The field "model_id" is {_shown(claimed)} and "model_container_name" is {_shown(model)}: they must agree',
        )
    dataset = body.get("dataset_container_name")
    if dataset is not None and (problem := container_name_problem(dataset)):
        _bad("InvalidField", f'The field "dataset_container_name", {_shown(dataset)}, {problem}')
    if bounds.own_datasets and dataset is not None and (problem := foreign_dataset(model, dataset)):
        _bad("InvalidField", f'The field "dataset_container_name", {_shown(dataset)}, {problem}')
    fresh = body.get("fresh")
    if fresh is not None and not isinstance(fresh, bool):
        _bad("InvalidField", f'The field "fresh" is {_shown(fresh)}; it must be true or false')
    longest = int(bounds.max_time_limit)
    resources = _resources(body)
    request = TrainingRequest(
        model_id=model_id,
        model_container=model,
        dataset_container=dataset,
        gpus=_gpus(resources, bounds),
        priority=_priority(body, bounds),
        time_limit=_whole(body.get("time_limit_seconds"), "time_limit_seconds", 1, longest, "MAX_TIME_LIMIT_SECONDS"),
        body=body,
        nodes=_nodes(resources, bounds, model),
    )
    # "1e15" is written back as 1000000000000000.0: a short message may grow past what one variable of a pod's
    # environment holds (128 KiB on Linux).
    kept = len(request.to_json().encode())
    if kept > MAX_BYTES:
        _bad("MessageTooLarge", f"The message has {kept} bytes when it is written out; at most {MAX_BYTES} are kept")
    return request


def foreign_dataset(model_container: str, dataset: str) -> str | None:
    """Why a training may not read this container by credentials of its own, as the end of a sentence; None: it may."""
    if dataset.startswith(MODEL_PREFIX) and dataset != model_container:
        return "is another model's container, which no training may read; a dataset's own would be right"
    return None


def claimed_model(text: str) -> str:
    """The model container that a message names, also one that no model can have; "" where it names none."""
    if len(text) > MAX_BYTES:
        return ""
    try:
        name = _object(text).get("model_container_name")
    except MalformedRequest:
        return ""
    return name if isinstance(name, str) else ""


def _object(text: str) -> dict[str, Any]:
    """The JSON object in `text`, plain or in base64."""
    stripped = text.strip(EDGES)
    if not stripped:
        _bad("NotJson", "The message is empty; a JSON object would be right")
    # An object begins with "{", which is not in base64's alphabet: nothing is both.
    json_text = stripped if stripped.startswith("{") else json_in_base64(stripped)
    if looks := looks_like(stripped, known=json_text is not None):
        _bad("NotJson", f"The message is neither JSON nor base64 of JSON: it looks like {looks}")
    body = _parse(json_text or stripped)
    if not isinstance(body, dict):
        _bad("NotAnObject", f"The message is JSON but {_kind(body)}; an object {{...}} would be right")
    _check_tree(body)
    return body


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except MalformedRequest:
        raise
    except (ValueError, RecursionError) as error:
        why = "too deep or too long a number"
        if isinstance(error, json.JSONDecodeError):
            why = f"{error.msg} at character {error.pos}"
        _bad("NotJson", f"The message is neither JSON nor base64 of JSON: {why}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            _bad("NotJson", f"The message has the field {_shown(key)} twice; only one of them can be meant")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    _bad("NotJson", f"The message has the value {name}, which is no JSON")


def _check_tree(value: Any, depth: int = 1) -> None:
    """Refuse what could not be handed on: text with lone surrogates or NUL, infinity, and nesting without end."""
    if depth > _MAX_DEPTH:
        _bad("NotJson", f"The message is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_tree(key, depth)
            _check_tree(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_tree(item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        _bad("NotJson", "The message has a number that is too large, such as 1e999")
    elif isinstance(value, str) and ("\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        _bad("NotJson", f"The message has a text with NUL or half a Unicode pair: {_shown(value)}")


def _resources(body: Mapping[str, Any]) -> Mapping[str, Any]:
    resources = body.get("resources")
    if resources is None:
        return {}
    if not isinstance(resources, dict):
        _bad("InvalidField", f'The field "resources" is {_shown(resources)}; {{"gpus": 1}} would be right')
    if unknown := sorted(set(resources) - {"gpus", "nodes"}):
        known = 'only "resources.gpus" and "resources.nodes" are'
        _bad("InvalidField", f"The field {_shown('resources.' + unknown[0])} is not known; {known}")
    return resources


def _nodes(resources: Mapping[str, Any], bounds: Bounds, name: str) -> int | None:
    number = resources.get("nodes")
    if bounds.max_nodes == 1 and number is not None and (type(number) is not int or number != 1):
        right = "no such field, or 1, would be right: trainings on several nodes are off (the operator's MAX_NODES)"
        _bad("InvalidField", f'The field "resources.nodes" is {_shown(number)}; {right}')
    nodes = _whole(number, "resources.nodes", 1, bounds.max_nodes, "MAX_NODES")
    # A pod's host name is the Job's name with its index, and no longer than a label of DNS: the API server takes no
    # Indexed Job whose last pod could have none.
    longest = _LONGEST_NAME - len(f"-{(nodes or 1) - 1}")
    if nodes is not None and nodes > 1 and len(name) > longest:
        right = f"on {nodes} nodes at most {longest} would be right, since each pod is named by it and its number"
        _bad("InvalidField", f'The field "model_container_name", {_shown(name)}, has {len(name)} characters; {right}')
    return nodes


def _gpus(resources: Mapping[str, Any], bounds: Bounds) -> int | None:
    number = _whole(resources.get("gpus"), "resources.gpus", 0, bounds.max_gpus, "MAX_GPUS")
    if bounds.claimed_gpus and number not in (None, 0, bounds.claimed_gpus):
        right = "no such field, or 0 for none, would be right: the operator's template gives GPUs by claims"
        _bad("InvalidField", f'The field "resources.gpus" is {number}; {right}')
    return number


def _whole(value: Any, name: str, low: int, high: int, setting: str) -> int | None:
    # bool is an int in Python, and 1.0 a float that some serialisers write for 1: neither is meant.
    if value is not None and (type(value) is not int or not low <= value <= high):
        right = f"a whole number from {low} to {high} (the operator's {setting}) would be right"
        _bad("InvalidField", f'The field "{name}" is {_shown(value)}; {right}')
    return value


def _priority(body: Mapping[str, Any], bounds: Bounds) -> str | None:
    priority = body.get("priority")
    if priority is not None and priority not in bounds.priority_classes:
        allowed = ", ".join(bounds.priority_classes) or "none"
        _bad("InvalidField", f'The field "priority" is {_shown(priority)}; the operator allows: {allowed}')
    return priority


def _kind(value: object) -> str:
    if isinstance(value, str) and (value.strip(EDGES).startswith(OPENINGS) or json_in_base64(value)):
        return "a text that holds JSON, encoded twice"
    names = {bool: "true or false", list: "an array", str: "a text", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _bad(code: str, sentence: str) -> NoReturn:
    raise MalformedRequest(code, sentence)
