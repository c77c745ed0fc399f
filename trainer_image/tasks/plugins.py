"""Custom tasks (`task: custom`): from the name of an entry point to a Task, and whose fault an error is.

What may be imported at all, registry.py says.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainer_image import raised
from trainer_image.errors import TrainerError, UserCodeFailed
from trainer_image.tasks.registry import check_registered, installed_path

if TYPE_CHECKING:
    from trainer_image.tasks.base import Task

log = logging.getLogger(__name__)


def load(entry_point: str) -> Task:
    """The registered task. Raises ConfigInvalid where it is not registered, UserCodeFailed where it is no good."""
    from trainer_image.tasks.base import INTERFACE, OLDEST_INTERFACE, Task

    check_registered(entry_point)
    where = f"The task {entry_point} cannot be loaded"
    module_name, _, name = entry_point.partition(":")
    try:
        with _only_installed():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UserCodeFailed(f"{where}: its package is installed, but has no module {error.name}") from None
        log.error("%s", where, exc_info=error)
        raise UserCodeFailed(f"{where}: importing it failed with {last_line(error, module_name)}") from error
    found = getattr(module, name, None)
    if found is None:
        raise UserCodeFailed(f"{where}: there is no {name} in {module_name}")
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserCodeFailed(f"{where}: {name} is no class that derives from trainer_image.tasks.base.Task")
    interface = getattr(found, "interface", None)
    if type(interface) is not int or not OLDEST_INTERFACE <= interface <= INTERFACE:
        written = "does not say for which version of the plug-in interface it was written"
        if interface is not None:
            written = f"was written for version {interface!r} of the plug-in interface"
        raise UserCodeFailed(
            f"{where}: it {written}; this trainer has version {INTERFACE} (`interface = {INTERFACE}`), and takes what"
            f" was written for {OLDEST_INTERFACE}"
        )
    with blames(entry_point):
        return found()


def name_of(entry_point: str | None) -> str | None:
    """What the task of this entry point calls itself; its class, where it has no name. None: there is no plug-in."""
    if entry_point is None:
        return None
    name = getattr(load(entry_point), "name", None)
    return name[:100] if isinstance(name, str) and name.strip() else entry_point.partition(":")[2]


@contextmanager
def blames(entry_point: str | None) -> Iterator[None]:
    """What is raised within is the plug-in's doing: UserCodeFailed. None: there is no plug-in, nothing changes."""
    try:
        yield
    except TrainerError:
        raise
    except (Exception, SystemExit) as error:
        if entry_point is None:
            raise
        log.error("The task %s failed", entry_point, exc_info=error)
        module_name = entry_point.partition(":")[0]
        line = last_line(error, module_name)
        raise UserCodeFailed(f"The task {entry_point} failed{_within(error, module_name)}: {line}") from error


def _within(error: BaseException, module_name: str) -> str:
    """ " in loss": the hook that was called when the task failed; "" where it was none."""
    from trainer_image.tasks.base import Predictor, Problem, Task

    for place in raised.in_package(raised.of(error).places, module_name.partition(".")[0])[:1]:
        hook = place.function
        if not hook.startswith("_") and any(hasattr(of, hook) for of in (Task, Problem, Predictor)):
            return f" in {hook}"
    return ""


def last_line(error: BaseException, module_name: str) -> str:
    """ "KeyError: 'price' (task.py, line 42, in prepare)": what was raised, and its last place in the package."""
    return raised.sentence(raised.of(error), raised.last_in_package(module_name.partition(".")[0]))


@contextmanager
def _only_installed() -> Iterator[None]:
    """A module of the same name that lies in the working directory, beside a dataset say, is not taken for it."""
    before = sys.path[:]
    sys.path[:] = installed_path()
    try:
        yield
    finally:
        sys.path[:] = before
