"""torch.compile where measured step times say that it pays; given up, with a note, where it fails or is no faster."""

from __future__ import annotations

import logging
import os
import shutil
import sysconfig
import time
from pathlib import Path

import torch
from torch import nn

log = logging.getLogger(__name__)

# Steps that are not measured (libraries choose their algorithms in them), and steps that are.
WARM_UP, MEASURED = 10, 40
# Guesses, until this run has measured both: the share of a step that compiling saves, and what it costs, in seconds.
ASSUMED_SAVING, ASSUMED_SECONDS = 0.2, 90.0


def lacking(device: torch.device) -> str | None:
    """What torch.compile needs for this device and does not find, None where all is there.

    Triton builds its launchers with CC, gcc or clang, inductor its CPU kernels with CXX or g++, both against Python.h.
    """
    names = ("CC", "gcc", "clang") if device.type == "cuda" else ("CXX", "g++")
    wanted = os.environ.get(names[0])
    if not any(shutil.which(name) for name in ([wanted] if wanted else names[1:])):
        return f"a {'C' if device.type == 'cuda' else 'C++'} compiler ({' or '.join(names[1:])})"
    scheme = sysconfig.get_default_scheme()
    # Debian's own scheme names a folder for what a user adds; the headers are in the other.
    headers = Path(sysconfig.get_path("include", "posix_prefix" if scheme == "posix_local" else scheme))
    return None if (headers / "Python.h").exists() else f"Python's headers ({headers}/Python.h)"


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
            if lacks := lacking(device):
                if wanted:
                    self._note(f"torch.compile needs {lacks}, which this image has not: trained without it.")
                elif device.type == "cuda":
                    log.info("torch.compile is not tried: it needs %s, which this image has not", lacks)
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

    def shapes_change(self) -> None:
        """The next step computes other shapes, for which a compiled network is compiled anew."""
        self.unproven = self.on

    def failed(self, error: Exception) -> None:
        """A compiled step failed: on without, with a note."""
        self.stop()
        self._note(f"torch.compile failed ({type(error).__name__}): trained without it.")

    def proven(self, seconds: float) -> None:
        """A first compiled step went well and took this long."""
        self.unproven = False
        self._compile_seconds += seconds

    def after_step(self, steps_left: int) -> str | None:
        """Called after each step of rank 0: "compile" or "eager" when that changes from the next step on."""
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
        measured = (
            f"{seconds * 1000:.3g} ms a step instead of {self._eager * 1000:.3g} ms "
            f"(compiling took {self._compile_seconds:.0f} s)"
        )
        if seconds < self._eager:
            self._note(f"torch.compile: {measured}.")
            return None
        self.stop()
        self._note(f"torch.compile was given up, it gained nothing: {measured}.")
        return "eager"

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()

    def _note(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self._notes.append(sentence)
