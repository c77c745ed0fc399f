"""torch.compile where it pays: measured, not believed, and given up with a note where it fails or is no faster."""

from __future__ import annotations

import logging
import os
import shutil
import time

import torch
from torch import nn

log = logging.getLogger(__name__)

# Steps that are not measured (libraries choose their algorithms in them), and steps that are.
WARM_UP, MEASURED = 10, 40
# Guesses, until this run has measured both: the share of a step that compiling saves, and what it costs, in seconds.
ASSUMED_SAVING, ASSUMED_SECONDS = 0.2, 90.0


def c_compiler() -> str | None:
    """The C compiler that torch.compile would use, None where there is none."""
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def pays(steps_left: int, seconds_a_step: float) -> bool:
    """Whether compiling is expected to save more time than it costs."""
    return steps_left * seconds_a_step * ASSUMED_SAVING > ASSUMED_SECONDS


class Compiling:
    """The network as the loss is given it: `network`. wanted: True, False, or None to measure first and then decide.

    notes: gets a sentence for each decision that a user should know of
    """

    def __init__(self, model: nn.Module, device: torch.device, wanted: bool | None, notes: list[str]) -> None:
        self._model, self._device, self._notes = model, device, notes
        self.network = model
        self.on = False
        # The first steps of a compiled network compile: they may take minutes, and fail.
        self.unproven = False
        self._measuring = False
        self._steps = 0
        self._since = 0.0
        self._eager: float | None = None
        self._compile_seconds = 0.0
        if wanted is not False:
            if c_compiler() is None:
                if wanted:
                    self._note("torch.compile needs a C compiler and there is none in the image: trained without it.")
            elif wanted:
                self.start()
            else:
                self._measuring = True

    def start(self) -> None:
        """From the next step on the network is compiled, for the shapes that come, which must not vary."""
        self.network = torch.compile(self._model, dynamic=False)  # type: ignore[assignment]
        self.on = self.unproven = True

    def stop(self) -> None:
        """From the next step on the network is not compiled."""
        self.network = self._model
        self.on = self.unproven = self._measuring = False

    def failed(self, error: Exception) -> None:
        """A compiled step failed: on without, with a note."""
        self.stop()
        self._note(f"torch.compile failed ({type(error).__name__}): trained without it.")

    def proven(self, seconds: float) -> None:
        """A first compiled step went well and took this long."""
        self.unproven = False
        self._compile_seconds += seconds

    def after_step(self, steps_left: int) -> str | None:
        """To be called after each step of the first process: "compile" or "eager" when that is to be from now on."""
        if not self._measuring:
            return None
        self._steps += 1
        if self._steps == WARM_UP:
            self._since = self._now()
        if self._steps < WARM_UP + MEASURED:
            return None
        seconds = (self._now() - self._since) / MEASURED
        self._steps = 0
        if self._eager is None:
            self._eager = seconds
            if pays(steps_left, seconds):
                self.start()
                return "compile"
            self._measuring = False
            return None
        self._measuring = False
        told = (
            f"{seconds * 1000:.3g} ms a step instead of {self._eager * 1000:.3g} ms "
            f"(compiling took {self._compile_seconds:.0f} s)"
        )
        if seconds < self._eager:
            self._note(f"torch.compile: {told}.")
            return None
        self.stop()
        self._note(f"torch.compile was given up, it gained nothing: {told}.")
        return "eager"

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()

    def _note(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self._notes.append(sentence)
