"""config.yaml as the trainer understands it: strict, versioned, every problem named at once.

Sentences are `Invalid configuration: {path}: {why}`, one for each problem. What is not given gets its
default here, so that the resolved configuration is complete and its hash says what was trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, Field, ValidationError

from portal_client.settings import container_name
from trainer_image.config import problems, strict_yaml
from trainer_image.config.sections import (
    TASK_METRICS,
    CheckpointConfig,
    CommandConfig,
    CustomConfig,
    DataConfig,
    InitConfig,
    ModelConfig,
    ReportConfig,
    Section,
    TrainConfig,
    format_duration,
)
from trainer_image.errors import ConfigInvalid, shown

__all__ = ["TASKS", "Config", "ConfigProblems", "format_duration", "identity", "json_schema", "parse_config", "run_key"]

TaskName = Literal["tabular", "image_classification", "text_classification", "language_model", "custom", "command"]
TASKS: tuple[str, ...] = get_args(TaskName)
# What a task of one's own needs, in the section of its name.
USER_TASKS = {
    "custom": ("entry_point", "module:Class of a task that is registered in the image"),
    "command": ("argv", "the program and its arguments, like [python, train.py]"),
}
# The keys of `data` that mean something to each built-in task.
DATA_KEYS = {
    "tabular": {"target", "drop", "types", "group", "weight", "split"},
    "image_classification": {"target", "group"},
    "text_classification": {"target", "text", "group"},
    "language_model": {"text", "group"},
}
# The column that a task predicts where data.target names none.
DEFAULT_TARGETS = {"image_classification": "label", "text_classification": "label"}
# Part of every run key: raised when the same configuration starts to mean another training, or a checkpoint cannot be
# gone on with any more.
RUN_KEY_FORMAT, PROGRAM_KEY_FORMAT = 4, 2


class ConfigProblems(ConfigInvalid):
    """Everything that is wrong with one config.yaml; `problems` holds one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(shown(f"Invalid configuration: {problem}") for problem in problems)
        super().__init__("; ".join(self.problems))


class Config(Section):
    """The whole file. The smallest valid one is `task: tabular` and `data: {target: …}`."""

    version: Literal[1] = 1
    task: TaskName
    dataset: Annotated[str, AfterValidator(container_name)] | None = Field(
        default=None, description="The dataset's container, unless the request or DATASET_CONTAINER names it."
    )
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    init: InitConfig = Field(default_factory=InitConfig)
    publish: Literal["always", "if_better"] = Field(
        default="always",
        description="if_better: only a model that is better than the published one takes its place, on test rows that"
        " neither was trained on.",
    )
    report: ReportConfig = Field(default_factory=ReportConfig)
    custom: CustomConfig = Field(default_factory=CustomConfig)
    command: CommandConfig = Field(default_factory=CommandConfig)

    def resolved(self) -> dict[str, Any]:
        """All fields that the task has, with their values, defaults included, as plain YAML and JSON types."""
        return self.model_dump(mode="json", by_alias=True, exclude=set(USER_TASKS) - {self.task})

    def resolved_yaml(self) -> str:
        return as_yaml(self.resolved())


def as_yaml(resolved: dict[str, Any]) -> str:
    """As config.resolved.yaml is written."""
    return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)


def parse_config(text: bytes) -> Config:
    """The text of a config.yaml → Config. Raises ConfigProblems with all that is wrong with it."""
    try:
        raw = strict_yaml.load(text)
    except strict_yaml.YamlRefused as refused:
        raise ConfigProblems([f"config.yaml: {refused}"]) from None
    if not isinstance(raw, dict):
        raise ConfigProblems(["config.yaml: must hold keys and values, like `task: tabular`"])
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigProblems(problems.sentences(error, Config) + _across_fields(raw)) from None
    if across := _across_fields(raw):
        raise ConfigProblems(across)
    return config


def _across_fields(raw: dict[str, Any]) -> list[str]:
    """What no single field can see; works on the raw values, so that all problems are reported at once."""
    task, data, train = raw.get("task"), raw.get("data", {}), raw.get("train", {})
    if not (isinstance(task, str) and task in TASKS):
        return []
    found = _of_user_tasks(task, raw)
    if task == "command" and raw.get("publish") == "if_better":
        found.append(
            "publish: if_better is for models that the trainer can test; a program compares with LATEST_MODEL_DIR"
            " (init.from: latest) by itself, and ends with an exit code other than 0 where its model is not to be"
            " published"
        )
    if isinstance(data, dict):
        found += _of_data(task, data)
    metric = train.get("metric", "auto") if isinstance(train, dict) else "auto"
    if task in DATA_KEYS and isinstance(metric, str) and metric not in ("auto", *TASK_METRICS[task]):
        known = ", ".join(TASK_METRICS[task])
        found.append(f"train.metric: must be auto or one of {known} for task {task}; it is {metric[:60]!r}")
    return found


def _of_user_tasks(task: str, raw: dict[str, Any]) -> list[str]:
    found = [f"{name}: belongs to task {name}, not to {task}" for name in USER_TASKS if name != task and raw.get(name)]
    if task in USER_TASKS:
        key, right = USER_TASKS[task]
        section = raw.get(task) or {}
        if isinstance(section, dict) and not section.get(key):
            found.append(f"{task}.{key}: is required for task {task}: {right}")
    return found


def _of_data(task: str, data: dict[str, Any]) -> list[str]:
    found = []
    if task == "tabular" and "target" not in data:
        found.append("data.target: is required for task tabular: name the column to predict; it is never guessed")
    elif task == "tabular":
        target, drop = data["target"], data.get("drop")
        if target is None:
            found.append("data.target: is empty; it must name the column to predict")
        types = data.get("types")
        if isinstance(types, dict) and isinstance(target, str | int) and types.get(target) in ("date", "text"):
            found.append(f"data.types: the target {target!r} is a number or a category; a {types[target]} is no target")
        if isinstance(drop, list) and target in drop:
            found.append(f"data.drop: contains the target {target!r}")
    if task in DATA_KEYS and data.get("group") and data["group"] == data.get("target", DEFAULT_TARGETS.get(task)):
        found.append(
            f"data.group: is the target {data['group']!r}: rows with the same answer would all lie on one side of the"
            " split; name a column like a customer or a patient, or leave it out"
        )
    if task == "tabular" and data.get("weight") and data["weight"] == data.get("target"):
        found.append(f"data.weight: is the target {data['weight']!r}: it cannot say how much its own rows count")
    if isinstance(data.get("split"), dict):
        found += _of_split(data["split"], data)
    for key in DataConfig.model_fields if task in DATA_KEYS else ():
        if data.get(key) and key not in DATA_KEYS[task]:
            owners = [name for name, keys in DATA_KEYS.items() if key in keys]
            found.append(f"data.{key}: belongs to task {' or '.join(owners)}, not to {task}")
    return found


def _of_split(split: dict[str, Any], data: dict[str, Any]) -> list[str]:
    found = []
    by, column = split.get("by"), split.get("column")
    validation, test = (split.get(name) or [] for name in ("validation", "test"))
    if column is not None and column == data.get("target"):
        found.append(f"data.split.column: is the target {column!r}: it cannot say which rows are held out")
    if by == "time":
        found += [f"data.split.{name}: belongs to by: column" for name in ("validation", "test") if split.get(name)]
        if data.get("group"):
            found.append("data.split: by time divides the groups of data.group; leave one of the two out")
    if isinstance(validation, list) and isinstance(test, list) and {*map(str, validation)} & {*map(str, test)}:
        found.append("data.split: a value is both among validation and among test")
    return found


def json_schema() -> dict[str, Any]:
    """The JSON Schema of config.yaml (draft 2020-12)."""
    schema = Config.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "config.yaml"}


def identity(
    config: Config, dataset_fingerprint: str, initial: str | None, code: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """What decides the outcome of a training, as plain JSON of digests.

    Left out: where the data lies (the fingerprint says what it is), how often the state is saved, what a report shows,
    whether the model is published. What came later is left out where it is not used, so that checkpoints outlive an
    update: `command.shares`, and of a program `model.candidates`, `data.split` and `data.weight`.
    initial: the manifest hash of the model that a warm start begins with: another one is another training.
    code: what trains, by name, see `run.code`
    """
    aside = ("dataset", "checkpoint", "report", "publish")
    resolved = {k: v for k, v in config.resolved().items() if k not in aside}
    if not config.command.shares:
        resolved.get("command", {}).pop("shares", None)
    if program := config.task == "command":
        resolved["model"].pop("candidates")
        resolved["data"].pop("split")
        resolved["data"].pop("weight")
    meant = {"format": PROGRAM_KEY_FORMAT if program else RUN_KEY_FORMAT, "config": resolved}
    return {
        "configuration": _digest(meant),
        "dataset": dataset_fingerprint,
        "start": initial,
        "code": dict(code),
    }


def run_key(identity: Mapping[str, Any]) -> str:
    """Hex SHA-256; trainings with equal keys resume each other's checkpoints."""
    return _digest(identity)


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
