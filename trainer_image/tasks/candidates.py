"""Candidates: models that compete with the network for being published, e.g. a linear one or boosted trees.

A problem offers them (`Problem.candidates`, cheapest first). The engine has each fitted on the training split before
the network trains, compares all on the validation split, and publishes those that have a weight in the blend that
predicts it best; where the network trains once more on training and validation rows, so do they.

What a fit leaves is a module of tensors (parameters or buffers, whole numbers, too) that torch alone evaluates: it is
stored and published as the network is, and `Predictor.build_candidate` makes the empty one that they are loaded into.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from trainer_image.tasks.base import Predictor
    from trainer_image.tasks.tensors import Outputs


@dataclass(frozen=True)
class Allowance:
    """What one fit of a candidate may use.

    seconds: of wall clock: it stops earlier rather than later, with what it has, or sits out
    threads: no more than these
    seed:    the only source of random numbers: of `np.random.default_rng(seed)` or of a `torch.Generator` of its own,
             never torch's default generators, which a resumed training continues as they were
    stop:    once it is set nobody needs the result: a fit of more than seconds looks at it, and returns None
    beat:    called now and then: without it a fit of minutes would be taken for a hang
    """

    seconds: float
    threads: int
    seed: int
    stop: threading.Event
    beat: Callable[[], None]


class Candidate(ABC):
    """A model that competes with the network. Belongs to one problem, whose splits it reads and never changes.

    name: as the report and `model.candidates` say it, e.g. "boosted trees"; "network" is taken
    share: of the time that is left, its part beside those of the candidates after it
    note: why it sits out, one sentence, or what else is worth knowing of the fit; "" where there is nothing to say
    again: seconds of the last fit that were not spent on choosing: another one with `chosen` takes these; None: all.
           0 before any fit: none ever takes time; 0 after one: the refit follows at once, while the candidate
           remembers that fit
    """

    name: ClassVar[str]
    share: ClassVar[float] = 1.0
    note: str = ""
    again: float | None = None

    @abstractmethod
    def fit(
        self, fit_on: Sequence[str], allowance: Allowance, chosen: dict[str, Any] | None
    ) -> tuple[nn.Module, dict[str, Any]] | None:
        """The fitted module, on the CPU, and what was chosen: plain JSON. None: it sits out, and `note` says why.

        fit_on: names of splits. chosen: None: the fit chooses its settings (a strength, the number of trees) with the
        validation split, and returns them together with all that `Predictor.build_candidate` needs (shapes). Otherwise
        what an earlier fit returned: those settings are used, and nothing is chosen (new shapes are returned again).

        The same data, seed, `chosen` and number of threads give the same module.
        """

    def unseen(
        self, predictor: Predictor, allowance: Allowance, chosen: dict[str, Any], fold_of: Tensor
    ) -> Outputs | None:
        """Of a problem with `folds`: what is predicted for each row of training and validation split, in this order,
        by a fit with `chosen` that has seen no row of its fold. None: a fit has returned None, or there are none."""
        return None


def import_ahead(module: str) -> None:
    """Begins to load what a fit needs in a thread: that takes seconds of a time budget, and meanwhile the dataset is
    read, which is no part of it."""

    def load() -> None:
        with contextlib.suppress(Exception):  # the fit says what is missing
            importlib.import_module(module)

    threading.Thread(target=load, name="imports", daemon=True).start()
