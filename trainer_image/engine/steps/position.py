"""Where a training stands, in plain numbers and text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from pydantic import ConfigDict, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

SEARCH: Final = "search"
REFIT: Final = "refit"
DONE: Final = "done"


@dataclass
class Position:
    """Where the training stands; all plain numbers.

    phase:   SEARCH (validation chooses the weights), REFIT (training and validation rows together), DONE
    step:    optimizer steps of all phases; phase_step: of this one
    planned: steps after which this phase's schedule ends; stop_at: steps after which this phase ends
    batch:   batches done of the current epoch; block_rows: of this phase, see row_order.py
    best:    validation figure of the best epoch, None before the first
    micro_batch: rows that are computed at a time; probed: that was tried out on this device
    seconds: training time, earlier attempts included
    full:    what `planned` is without a time budget; most: what `stop_at` is
    cycle:   steps of this phase after which the present schedule began: more epochs begin another one
    reached: the best figure when it began
    size:    the network's, of `Problem.sizes`; empty where there is one only
    candidates: one `Entry` each; weights: of those that will be published, by name, once they are chosen
    calibration: of what is published, for `Predictor.use`; empty before that is chosen
    again:   names of those that are to be fitted once more in the refit
    stopped: why the search ended
    """

    # Checked when a checkpoint is read.
    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    phase: Literal["search", "refit", "done"] = SEARCH
    step: NonNegativeInt = 0
    phase_step: NonNegativeInt = 0
    planned: NonNegativeInt = 0
    stop_at: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    batch: NonNegativeInt = 0
    block_rows: NonNegativeInt = 0
    best: float | None = None
    best_epoch: NonNegativeInt = 0
    best_step: NonNegativeInt = 0
    micro_batch: PositiveInt = 1
    probed: bool = False
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    full: NonNegativeInt = 0
    most: NonNegativeInt = 0
    cycle: NonNegativeInt = 0
    reached: float | None = None
    size: str = ""
    candidates: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)
    stopped: str = ""


@dataclass
class Entry:
    """How a candidate fares.

    validation: its figure there, None where it sat out; seconds: that its fits took; chosen: what its fit returned
    again: seconds that a fit of as many rows takes where nothing is to be chosen
    refitted: it has seen training and validation rows
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    name: str
    validation: float | None = None
    seconds: float = 0.0
    note: str = ""
    chosen: dict[str, Any] | None = None
    again: float = 0.0
    refitted: bool = False


@dataclass
class _Epoch:
    """What a position's history has of an epoch, and the report shows."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    phase: Literal["search", "refit"]
    epoch: PositiveInt
    step: NonNegativeInt
    seconds: float
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)


def is_position(given: Any) -> bool:
    """Whether these are the fields of a Position, each of its kind: another version's may mean other things."""
    try:
        # As JSON: strictly, pydantic takes no dict for a dataclass.
        position = TypeAdapter(Position).validate_json(json.dumps(given))
        TypeAdapter(list[_Epoch]).validate_json(json.dumps(position.history))
        TypeAdapter(list[Entry]).validate_json(json.dumps(position.candidates))
    except ValidationError:
        return False
    return isinstance(given, dict) and set(given) == {f.name for f in fields(Position)}
