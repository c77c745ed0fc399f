"""The sections of config.yaml, with what each key may hold; `config` puts them together.

What is not given gets its default here, so that the resolved configuration is complete.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core.core_schema import CoreSchema, no_info_plain_validator_function

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OF_CLASSES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc")
# The figures of each built-in task; which of a table's are possible depends on its target, too.
TASK_METRICS = {
    "tabular": (*_OF_CLASSES, "r2", "rmse", "mae"),
    "image_classification": _OF_CLASSES,
    "text_classification": _OF_CLASSES,
    "language_model": ("bits_per_byte", "accuracy"),
}
BUILT_IN_METRICS = tuple(dict.fromkeys(name for names in TASK_METRICS.values() for name in names))


def _parse_duration(value: object) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)", value, re.ASCII) if isinstance(value, str) else None
    seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else 0.0
    if not 1 <= seconds <= 365 * 86400:
        raise ValueError("must be a duration with its unit, like 90s, 30m, 2h or 1d, from 1s to 365d")
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


@dataclass(eq=False)
class _Auto:
    """auto, or what `read` takes. schema: its JSON Schema"""

    read: Callable[[Any], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return no_info_plain_validator_function(lambda value: value if value == "auto" else self.read(value))

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"const": "auto"}, self.schema]}


def _auto_or_count(most: int) -> _Auto:
    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        raise ValueError(f"must be auto or a whole number from 1 to {most}")

    return _Auto(read, {"type": "integer", "minimum": 1, "maximum": most})


def _rate(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 10:
        return float(value)
    raise ValueError("must be auto or a number above 0 and at most 10")


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("must be auto, true or false")


def _name(value: object) -> object:
    """YAML takes a name of digits for a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# Readers take the blanks around a header's names away.
Column = Annotated[
    str, BeforeValidator(_name), Field(min_length=1, max_length=1024), AfterValidator(lambda name: name.strip() or name)
]


class Section(BaseModel):
    """Strict and frozen: an unknown key is an error, and no text becomes a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


# As a cell of a table is compared: a number of YAML is the same text.
Cell = Annotated[str, BeforeValidator(_name), Field(min_length=1, max_length=1024)]


class SplitConfig(Section):
    """Which rows are tested and validated on, where a column says it."""

    by: Literal["time", "column"] = Field(
        description="time: the newest rows are the test, those before them validate; column: its values say it."
    )
    column: Column = Field(description="The column with the times, or with the values.")
    validation: list[Cell] = Field(default_factory=list, description="Values of the rows that validate.")
    test: list[Cell] = Field(
        default_factory=list,
        description="Values of the test's rows; without lists the values are train, validation and test.",
    )


class DataConfig(Section):
    """Which columns mean what: of a table, of JSON lines, or of an image folder's metadata.csv or .jsonl."""

    target: Column | None = Field(
        default=None,
        description="The column to predict. Required for task tabular, never guessed; else `label` by default.",
    )
    text: Column | None = Field(
        default=None, description="The column with the text, for text_classification and language_model; else `text`."
    )
    drop: list[Column] = Field(default_factory=list, description="Columns to leave out.")
    types: dict[Column, Literal["category", "number", "date", "text"]] = Field(
        default_factory=dict, description="How to read a column where its look deceives: {zip: category}."
    )
    group: Column | None = Field(
        default=None, description="Rows that share this column's value stay on the same side of the split."
    )
    weight: Column | None = Field(
        default=None, description="How much each row counts, as numbers from 0: only their ratios matter."
    )
    split: SplitConfig | None = Field(
        default=None, description="How rows are held out, if not by their content, where the dataset brings no test."
    )


def _names(value: object) -> list[str]:
    given = value if isinstance(value, list) else []
    if given and len({*map(str, given)}) == len(given) <= 100 and all(isinstance(n, str) and n for n in given):
        return given
    raise ValueError("must be auto or a list of different names, like [network, linear]")


class ModelConfig(Section):
    """Which models, and how large."""

    preset: Literal["auto", "fast", "best"] = Field(
        default="auto", description="auto chooses by the data's size, the device and the time budget."
    )
    candidates: Annotated[
        list[str] | Literal["auto"],
        _Auto(_names, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 100}),
    ] = Field(
        default="auto",
        description="Which models compete for being published; auto: all that the task has, the network among them.",
    )


class TrainConfig(Section):
    """How it is trained; auto means: chosen by the trainer and written into report.json."""

    time_budget: Duration = Field(
        default=1800.0,
        json_schema_extra={"default": "30m"},
        description="Training ends after this time at the latest.",
    )
    epochs: Annotated[int | Literal["auto"], _auto_or_count(1_000_000)] = "auto"
    batch_size: Annotated[int | Literal["auto"], _auto_or_count(1_048_576)] = "auto"
    lr: Annotated[float | Literal["auto"], _Auto(_rate, {"type": "number", "exclusiveMinimum": 0, "maximum": 10})] = (
        Field(default="auto", description="Learning rate.")
    )
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Annotated[bool | Literal["auto"], _Auto(_truth, {"type": "boolean"})] = Field(
        default="auto", description="torch.compile; auto: only where it is expected to pay."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = Field(
        default="auto",
        json_schema_extra={"examples": ["auto", *BUILT_IN_METRICS]},
        description="The figure that chooses the best epoch, measured on the validation split; a custom task has its "
        "own names.",
    )


class CheckpointConfig(Section):
    """How often the state is saved beyond the pod."""

    every: Duration = Field(default=300.0, json_schema_extra={"default": "5m"})
    keep: int = Field(default=2, ge=1, le=100, description="How many of the newest are kept; the best one always is.")


def _start(value: str) -> str:
    # A slip in one of the two words is no run: those of ours begin with their time.
    if value in ("none", "latest") or (
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value) and re.search("[0-9]", value)
    ):
        return value
    raise ValueError("must be none, latest, or a run's id like 20261123t081500-1a2b3c4d, which has a digit")


class InitConfig(Section):
    """Where the first weights come from."""

    from_: Annotated[str, AfterValidator(_start)] = Field(
        default="none",
        alias="from",
        json_schema_extra={"examples": ["none", "latest", "20261123t081500-1a2b3c4d"]},
        description="latest: a warm start from the model that latest.json names; a run's id: from that run's.",
    )


class ReportConfig(Section):
    """What the report may show to whoever reads the model's container."""

    examples: bool = Field(
        default=True,
        description="false: no row, text or picture of the dataset is in report.html or report.json.",
    )


def _entry_point(value: str) -> str:
    # As Python's packaging writes it; dotted names only, so that nothing else can be meant.
    if len(value) > 255 or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", value, re.ASCII):
        raise ValueError("must be module:Class, like my_package.task:MyTask")
    return value


def _plain(value: object) -> object:
    """JSON has neither nan nor infinity: they could not be written into the model's description."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is not finite")
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _plain(below)
    return value


def _argument(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


class CustomConfig(Section):
    """A task of one's own, from a package that is installed in the image."""

    entry_point: Annotated[str, AfterValidator(_entry_point)] | None = Field(
        default=None, description="module:Class, registered by its package in the group trainer_image.tasks."
    )
    params: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(
        default_factory=dict, description="Handed to the task, which says what it takes."
    )


class CommandConfig(Section):
    """Any program that is in the image. The operator has to allow it: ALLOW_COMMAND."""

    argv: list[Annotated[str, Field(max_length=4096), AfterValidator(_argument)]] = Field(
        default_factory=list, max_length=256, description="The program and its arguments; no shell reads them."
    )
    shares: list[Annotated[str, Field(min_length=1, max_length=1024)]] = Field(
        default_factory=list,
        max_length=100,
        description="Patterns of names, like train/*.tar: each of several nodes downloads its share of these files.",
    )
