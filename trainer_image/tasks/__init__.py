"""The built-in tasks by name. They use the public plug-in interface (`base`) and nothing else of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer_image.errors import ConfigInvalid

if TYPE_CHECKING:  # with torch, which the command line does without
    from trainer_image.tasks.base import Task


def task_named(name: str) -> Task:
    """The built-in task; ConfigInvalid when there is none of that name. Imports only what that task needs."""
    if name == "tabular":
        from trainer_image.tasks.tabular.task import Tabular

        return Tabular()
    if name == "image_classification":
        from trainer_image.tasks.image.task import ImageClassification

        return ImageClassification()
    if name == "text_classification":
        from trainer_image.tasks.text.task import TextClassification

        return TextClassification()
    if name == "language_model":
        from trainer_image.tasks.language.task import LanguageModel

        return LanguageModel()
    raise ConfigInvalid(
        f"Invalid configuration: task: '{name}' is not built in; tabular, image_classification, "
        f"text_classification or language_model would be right"
    )
