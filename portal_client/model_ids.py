"""Container name → model id (pure).

The rule is Azure's for container names (3 to 63 characters; ASCII lower-case letters, digits and single
hyphens; a letter or digit first and last), matched against the whole string. It makes every model container's
name a valid DNS label too, so that it can be a Job's name and a label's value unchanged.
https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
"""

from __future__ import annotations

import re

from portal_client import log_lines
from portal_client.log_lines import AnyLogger

MODEL_PREFIX = "model-"
MIN_LENGTH = 3
MAX_LENGTH = 63

_CONTAINER_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
_FORBIDDEN = re.compile(r"[^a-z0-9-]")


class InvalidContainerName(ValueError):
    """A name that no training can start from; the message says which rule it breaks."""


def is_container_name(name: object) -> bool:
    """Whether `name` is a str that Azure takes as a container name, e.g. of a dataset."""
    return container_name_problem(name) is None


def container_name_problem(name: object) -> str | None:
    """Azure's rule that `name` breaks, as the end of a sentence ("is 64 characters long: ..."), or None."""
    if not isinstance(name, str):
        return f"is a {type(name).__name__}, not a string"
    if not name:
        return f"is empty: a container name has {MIN_LENGTH} to {MAX_LENGTH} characters"
    if forbidden := _FORBIDDEN.search(name):
        return f"contains {forbidden.group()!a}: only letters a-z, digits 0-9 and hyphens are allowed"
    if not MIN_LENGTH <= len(name) <= MAX_LENGTH:
        return f"is {len(name)} characters long: a container name has {MIN_LENGTH} to {MAX_LENGTH}"
    if "--" in name:
        return "contains two hyphens in a row: only single hyphens are allowed"
    if not _CONTAINER_NAME.fullmatch(name):
        return "starts or ends with a hyphen: a letter or digit must stand first and last"
    return None


def extract_model_id(container_name: object) -> str:
    """`model-123` → `123`. Raises InvalidContainerName for anything but `model-{id}` under Azure's rule."""
    if not isinstance(container_name, str):
        raise InvalidContainerName(
            f"Model container name is a {type(container_name).__name__}, not a string: expected model-{{id}}"
        )
    if container_name == MODEL_PREFIX:
        problem: str | None = "has no id after 'model-': expected model-{id}, for example model-123"
    elif not container_name.startswith(MODEL_PREFIX):
        problem = "does not start with 'model-': expected model-{id}, for example model-123"
    else:
        problem = container_name_problem(container_name)
    if problem is not None:
        raise InvalidContainerName(f"Model container name {_shown(container_name)} {problem}")
    return container_name.removeprefix(MODEL_PREFIX)


def extract_and_log_model_id(container_name: object, logger: AnyLogger) -> str:
    """`extract_model_id` that logs the documented line at info, or the reason at warning before it is raised."""
    try:
        model_id = extract_model_id(container_name)
    except InvalidContainerName as error:
        logger.warning(log_lines.NOT_EXTRACTED, error)
        raise
    logger.info(log_lines.EXTRACTED, model_id, container_name)
    return model_id


def _shown(name: str) -> str:
    """In ASCII, so that look-alikes and line ends are seen, and short, so that no message fills a log."""
    return ascii(name) if len(name) <= 80 else f"{name[:80]!a}..."
