"""The kinds of training problems: the plug-in interface (`base`), the built-in tasks behind it, and what they share.

A built-in task uses nothing of the engine: what it can do, a plug-in can.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from trainer_image.errors import ConfigInvalid

if TYPE_CHECKING:  # with torch, which the command line does without
    from trainer_image.tasks.base import Task

BUILT_IN = {
    "tabular": "tabular.task:Tabular",
    "image_classification": "image.task:ImageClassification",
    "text_classification": "text.task:TextClassification",
    "language_model": "language.task:LanguageModel",
}


def task_named(name: str) -> Task:
    """The built-in task; ConfigInvalid when there is none of that name. Imports only what that task needs."""
    if name not in BUILT_IN:
        *others, last = BUILT_IN
        right = f"{', '.join(others)} or {last} would be right"
        raise ConfigInvalid(f"Invalid configuration: task: '{name}' is not built in; {right}")
    module, _, kind = BUILT_IN[name].partition(":")
    return cast("Task", getattr(import_module(f"{__name__}.{module}"), kind)())
