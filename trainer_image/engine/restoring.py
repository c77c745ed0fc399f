"""A published model from its folder alone: model.json and model.safetensors. Both are a stranger's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer_image.engine import published
from trainer_image.engine.published import Published
from trainer_image.errors import TrainerError, UsageError
from trainer_image.storage import untrusted_json
from trainer_image.storage.blob_names import printable
from trainer_image.tasks import BUILT_IN, plugins, registry, task_named
from trainer_image.tasks.base import Task
from trainer_image.units import format_bytes

# What model.json may have beside four times what the tensors have: a category's name belongs to a row of a tensor. As
# Python's objects JSON may take twenty times the memory.
DESCRIPTION_BYTES = 16 * 1024**2


def task_of(model_dir: Path, description: dict[str, Any]) -> Task:
    """The task that trained the model. The description comes from a stranger: it imports nothing by itself."""
    if description["task"] not in (*BUILT_IN, "command", "custom"):
        raise UsageError(
            f"The model in {model_dir.name} is of task {printable(description['task'])[:40]}, which this trainer does"
            " not know"
        )
    if description["task"] == "command":
        raise UsageError(
            f"The model in {model_dir.name} is what a program left (task command): only a program of its author's"
            " can apply it"
        )
    if description["task"] != "custom":
        return task_named(description["task"])
    entry_point = str(description["entry_point"])
    if entry_point not in registry.registered():
        raise UsageError(
            f"The model in {model_dir.name} was trained by the task {printable(entry_point)}, which is not installed"
            " here: install the package that registers it, or use the image that trained the model"
        )
    return plugins.load(entry_point)


def load(model_dir: Path) -> tuple[dict[str, Any], Published]:
    """(model.json, the model). UsageError when the folder holds no model of ours."""
    try:
        description = described(model_dir)
        predictor = task_of(model_dir, description).restore(description["model"])
        own = description["task"] == "custom"  # whose network may need real tensors while it is built
        return description, published.read(model_dir, description, predictor, trusted=own)
    except FileNotFoundError as error:
        raise UsageError(f"No model in {model_dir.name}: {Path(str(error.filename)).name} is missing") from None
    except TrainerError:
        raise
    except KeyError as error:
        raise UsageError(f"The model in {model_dir.name} cannot be read: model.json lacks {error}") from None
    except Exception as error:  # whatever a stranger's description makes a network stumble over
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"The model in {model_dir.name} cannot be read: {why}") from None


def described(model_dir: Path) -> dict[str, Any]:
    """model.json, as far as every task's is the same. Raises UsageError, ValueError."""
    with (model_dir / "model.json").open("rb") as file:
        tensors = (model_dir / "model.safetensors").stat().st_size
        content = file.read(most := DESCRIPTION_BYTES + 4 * tensors)
    if len(content) == most:
        raise ValueError(f"model.json is far too long for {format_bytes(tensors)} of tensors")
    try:
        description = untrusted_json.loads(content)
    except ValueError as error:
        raise ValueError(f"model.json: {error}") from None
    if not isinstance(description, dict):
        raise ValueError("model.json is no JSON object")
    if description["format"] not in (1, published.FORMAT):
        found = printable(str(description["format"]))[:40]
        raise UsageError(f"{model_dir.name}/model.json has format {found}; this trainer reads 1 and {published.FORMAT}")
    if not isinstance(description["task"], str):
        raise ValueError("model.json names no task")
    return description
