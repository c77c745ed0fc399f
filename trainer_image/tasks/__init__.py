"""The built-in tasks by name. They use the public plug-in interface (`base`) and nothing else of the engine."""

from __future__ import annotations

from trainer_image.errors import ConfigInvalid
from trainer_image.tasks.base import Task


def task_named(name: str) -> Task:
    """The built-in task; ConfigInvalid when there is none of that name. Imports only what that task needs."""
    if name == "tabular":
        from trainer_image.tasks.tabular import Tabular

        return Tabular()
    if name == "image_classification":
        from trainer_image.tasks.image_classification import ImageClassification

        return ImageClassification()
    if name == "text_classification":
        from trainer_image.tasks.text_classification import TextClassification

        return TextClassification()
    if name == "language_model":
        from trainer_image.tasks.language_model import LanguageModel

        return LanguageModel()
    raise ConfigInvalid(
        f"Invalid configuration: task: '{name}' is not built in; tabular, image_classification, "
        f"text_classification or language_model would be right"
    )
