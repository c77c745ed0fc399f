"""config.yaml as the trainer understands it: strict, versioned, every problem named at once.

Sentences are `Invalid configuration: {path}: {why}`, one for each problem. What is not given gets its
default here, so that the resolved configuration is complete and its hash says what was trained.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)

from trainer_image import config_problems, config_yaml
from trainer_image.errors import ConfigInvalid

TASKS = ("tabular", "image_classification", "text_classification", "language_model")
PLANNED_TASKS = ("custom", "command")
# The keys of `data` that mean something to each task.
DATA_KEYS = {
    "tabular": {"target", "drop", "types", "group"},
    "image_classification": {"target", "group"},
    "text_classification": {"target", "text", "group"},
    "language_model": {"text", "group"},
}
# Part of every run key: raised when the same configuration starts to mean another training.
RUN_KEY_FORMAT = 1

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_CONTAINER_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}", re.ASCII)


class ConfigProblems(ConfigInvalid):
    """Everything that is wrong with one config.yaml; `problems` holds one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(f"Invalid configuration: {problem}" for problem in problems)
        super().__init__("; ".join(self.problems))


def _parse_duration(value: object) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)", value, re.ASCII) if isinstance(value, str) else None
    seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else 0.0
    if not 1 <= seconds <= 365 * 86400:
        raise ValueError("must be a duration with its unit, like 90s, 30m, 2h or 1d, at least 1s")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact way to write it: 1800.0 → "30m"."""
    for unit in "dhm":
        if seconds % _UNIT_SECONDS[unit] == 0:
            return f"{int(seconds // _UNIT_SECONDS[unit])}{unit}"
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{seconds!r}s"


Duration = Annotated[
    float,
    PlainValidator(_parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(s|m|h|d)$", "examples": ["90s", "30m", "2h"]}),
]


def _auto_or_int(low: int, high: int) -> Callable[[object], int | str]:
    def check(value: object) -> int | str:
        if value == "auto":
            return "auto"
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"must be auto or a whole number from {low} to {high}")

    return check


def _auto_or_rate(value: object) -> float | str:
    if value == "auto":
        return "auto"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 10:
        return float(value)
    raise ValueError("must be auto or a number above 0 and at most 10")


def _auto_or_bool(value: object) -> bool | str:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError("must be auto, true or false")


def _json_auto(kind: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": "auto"}, kind]})


def _container_name(value: str) -> str:
    if not (3 <= len(value) <= 63 and _CONTAINER_NAME.fullmatch(value)):
        raise ValueError("must be a container's name: 3 to 63 lower-case letters, digits and single hyphens")
    return value


def _task(value: object) -> str:
    if isinstance(value, str) and value in TASKS:
        return value
    known = f"{', '.join(TASKS[:-1])} and {TASKS[-1]}"
    if value in PLANNED_TASKS:
        raise ValueError(f"{value} is planned, but this version of the trainer trains {known} only")
    raise ValueError(f"must be one of {', '.join(TASKS)}")


Column = Annotated[str, Field(min_length=1, max_length=1024)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class DataConfig(_Section):
    """Which columns mean what: of a table, of JSON lines, or of an image folder's metadata.csv or .jsonl."""

    target: Column | None = Field(
        default=None,
        description="The column to predict. Required for task tabular, never guessed; else `label` by default.",
    )
    text: Column | None = Field(
        default=None, description="The column with the text, for text_classification and language_model; else `text`."
    )
    drop: list[Column] = Field(default_factory=list, description="Columns to leave out.")
    types: dict[Column, Literal["category", "number"]] = Field(
        default_factory=dict, description="How to read a column where its look deceives: {zip: category}."
    )
    group: Column | None = Field(
        default=None, description="Rows that share this column's value stay on the same side of the split."
    )


class ModelConfig(_Section):
    """How large a model."""

    preset: Literal["auto", "fast", "best"] = Field(default="auto", description="auto chooses by the data's size.")


class TrainConfig(_Section):
    """How it is trained; auto means: chosen by the trainer and written into report.json."""

    time_budget: Duration = Field(
        default=1800.0,
        json_schema_extra={"default": "30m"},
        description="Training ends after this time at the latest.",
    )
    epochs: Annotated[
        int | Literal["auto"],
        PlainValidator(_auto_or_int(1, 1_000_000)),
        _json_auto({"type": "integer", "minimum": 1, "maximum": 1_000_000}),
    ] = "auto"
    batch_size: Annotated[
        int | Literal["auto"],
        PlainValidator(_auto_or_int(1, 1_048_576)),
        _json_auto({"type": "integer", "minimum": 1, "maximum": 1_048_576}),
    ] = "auto"
    lr: Annotated[
        float | Literal["auto"],
        PlainValidator(_auto_or_rate),
        _json_auto({"type": "number", "exclusiveMinimum": 0, "maximum": 10}),
    ] = Field(default="auto", description="Learning rate.")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Annotated[bool | Literal["auto"], PlainValidator(_auto_or_bool), _json_auto({"type": "boolean"})] = Field(
        default="auto", description="torch.compile; auto: only where it is expected to pay."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    metric: Literal[
        "auto", "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "r2", "rmse", "mae", "bits_per_byte"
    ] = Field(
        default="auto",
        description="The figure that chooses the best epoch, measured on the validation split.",
    )


class CheckpointConfig(_Section):
    """How often the state is saved beyond the pod."""

    every: Duration = Field(default=300.0, json_schema_extra={"default": "5m"})
    keep: int = Field(default=2, ge=1, le=100, description="How many of the newest are kept; the best one always is.")


class InitConfig(_Section):
    """Where the first weights come from."""

    from_: Literal["none", "latest"] = Field(
        default="none",
        alias="from",
        description="latest: a warm start from the model that latest.json names.",
    )


class Config(_Section):
    """The whole file. The smallest valid one is `task: tabular` and `data: {target: …}`."""

    version: Literal[1] = 1
    task: Annotated[
        Literal["tabular", "image_classification", "text_classification", "language_model"],
        PlainValidator(_task),
        WithJsonSchema({"enum": list(TASKS), "description": f"Planned: {', '.join(PLANNED_TASKS)}."}),
    ]
    dataset: Annotated[str, AfterValidator(_container_name)] | None = Field(
        default=None, description="The dataset's container, unless the request or DATASET_CONTAINER names it."
    )
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    init: InitConfig = Field(default_factory=InitConfig)

    def resolved(self) -> dict[str, Any]:
        """All fields with their values, defaults included, as plain YAML and JSON types."""
        return self.model_dump(mode="json", by_alias=True)

    def resolved_yaml(self) -> str:
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True)


def parse_config(text: bytes) -> Config:
    """The text of a config.yaml → Config. Raises ConfigProblems with all that is wrong with it."""
    try:
        raw = config_yaml.load(text)
    except config_yaml.YamlRefused as refused:
        raise ConfigProblems([f"config.yaml: {refused}"]) from None
    if not isinstance(raw, dict):
        raise ConfigProblems(["config.yaml: must hold keys and values, like `task: tabular`"])
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems = config_problems.sentences(error, Config)
        raise ConfigProblems(problems + _across_fields(raw)) from None
    problems = _across_fields(raw)
    if problems:
        raise ConfigProblems(problems)
    return config


def _across_fields(raw: dict[str, Any]) -> list[str]:
    """What no single field can see; works on the raw values, to be told together with the others."""
    task, data = raw.get("task"), raw.get("data", {})
    if not isinstance(data, dict):
        return []
    problems = []
    if task == "tabular" and "target" not in data:
        problems.append("data.target: is required for task tabular: name the column to predict; it is never guessed")
    elif task == "tabular":
        target, drop = data["target"], data.get("drop")
        if target is None:
            problems.append("data.target: is empty; it must name the column to predict")
        if isinstance(drop, list) and target in drop:
            problems.append(f"data.drop: contains the target {target!r}")
    if isinstance(task, str) and task in DATA_KEYS:
        for key in DataConfig.model_fields:
            if data.get(key) and key not in DATA_KEYS[task]:
                owners = [name for name in TASKS if key in DATA_KEYS[name]]
                problems.append(f"data.{key}: belongs to task {' or '.join(owners)}, not to {task}")
    return problems


def json_schema() -> dict[str, Any]:
    """The JSON Schema of config.yaml (draft 2020-12)."""
    schema = Config.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "config.yaml"}


def run_key(config: Config, dataset_fingerprint: str, initial: str | None) -> str:
    """Hex SHA-256 of what decides the outcome of a training; equal keys resume each other's checkpoints.

    Left out: where the data lies (the fingerprint says what it is) and how often the state is saved.
    `initial` is the manifest hash of the model a warm start begins with: another one is another training.
    """
    identity = {
        "format": RUN_KEY_FORMAT,
        "config": {k: v for k, v in config.resolved().items() if k not in ("dataset", "checkpoint")},
        "dataset": dataset_fingerprint,
        "initial": initial,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
