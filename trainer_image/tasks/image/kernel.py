"""Candidates for images: kernel machines on features that cost no training, seconds where the network takes minutes.

A regularised least-squares classifier with a Gaussian kernel on some rows as landmarks (Rifkin et al., "Regularized
least-squares classification", 2003; Williams and Seeger, "Using the Nyström method to speed up kernel machines", 2000):
about as accurate as a support vector machine with the same kernel, solved in closed form, a handful of matrices at
rest. Rows go by in portions, so that images larger than memory are no matter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from trainer_image.tasks.base import Batch, rows_in, spaced
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.image.features import Gradients, Look, Patches, Pixels

MOST_ROWS, MOST_BYTES = 20_000, 256 * 1024**2
# Of landmarks a model may have more than are chosen here.
LANDMARKS, MOST_LANDMARKS = 1_000, 2_000
MOST_VALIDATION = 5_000
PORTION, AT_A_TIME = 128, 16
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
SCALES = tuple(1.25**power for power in range(1, 18))


@dataclass(frozen=True)
class KernelSettings:
    """landmarks: rows that all others are compared with; strength: of the regularisation; scale: of the logits."""

    landmarks: Annotated[int, Field(ge=1, le=MOST_LANDMARKS)]
    strength: Annotated[float, Field(gt=0)]
    scale: Annotated[float, Field(gt=0)]


class KernelMachine(nn.Module):
    """float (rows, channels, height, width) in 0..255 → logits (rows, classes), by likeness to its landmarks."""

    def __init__(self, features: nn.Module, size: tuple[int, int, int], landmarks: int, classes: int) -> None:
        """size: (channels, height, width)"""
        super().__init__()
        self.features = features.eval()
        count = features(torch.zeros(1, *size)).shape[1]
        self.middle: Tensor
        self.spread: Tensor
        self.landmarks: Tensor
        self.weights: Tensor
        self.bias: Tensor
        self.register_buffer("middle", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        self.register_buffer("landmarks", torch.zeros(landmarks, count))
        self.register_buffer("weights", torch.zeros(landmarks, classes))
        self.register_buffer("bias", torch.zeros(classes))

    def described(self, pixels: Tensor, look: Look = lambda: None) -> Tensor:
        """The features. A few rows at a time: on their way they are many times as large as the images. look: is called
        before each of these parts"""
        parts = []
        for part in torch.split(pixels, AT_A_TIME):
            look()
            parts.append(self.features(part))
        return torch.cat(parts)

    def likeness(self, pixels: Tensor, look: Look = lambda: None) -> Tensor:
        """(rows, landmarks), from 0 to 1: exp of minus the squared distance between the scaled features."""
        return _likeness((self.described(pixels, look) - self.middle) / self.spread, self.landmarks)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.likeness(pixels) @ self.weights + self.bias


def _likeness(features: Tensor, landmarks: Tensor) -> Tensor:
    squared = features.square().sum(1, keepdim=True) + landmarks.square().sum(1) - 2 * features @ landmarks.T
    return torch.exp(-squared.clamp(min=0))


class KernelCandidate(Candidate):
    """A kernel machine on one kind of features. Its landmarks are training rows; a refit adds the validation rows to
    its equations, and since these rows have been compared with the landmarks to choose the settings, that costs a
    solution more: the first fit finds it, too."""

    again = 0.0

    def __init__(self, splits: Mapping[str, Batch], classes: int) -> None:
        self._splits, self._classes = splits, classes
        # What a first fit in this process left for a refit: its module, what it chose, weights and bias.
        self._found: tuple[KernelMachine, dict[str, Any], dict[str, Tensor]] | None = None

    def fit(
        self, fit_on: Sequence[str], allowance: Allowance, chosen: dict[str, Any] | None
    ) -> tuple[nn.Module, dict[str, Any]] | None:
        clock = _Clock(allowance)
        some = self._some("train", MOST_ROWS)
        found = rows_in(self._splits["train"])
        self.note = f"it is fitted on {rows_in(some)} of {found} images, evenly spaced" if rows_in(some) < found else ""
        self.again = 0.0
        count = min(rows_in(some), LANDMARKS)
        model = build(self.name, tuple(some["pixels"].shape[1:]), count, self._classes)
        if chosen is not None and self._found is not None and self._found[1] == chosen:
            model.load_state_dict({**self._found[0].state_dict(), **self._found[2]})
            return model, chosen
        generator = torch.Generator().manual_seed(allowance.seed)
        order = torch.randperm(rows_in(some), generator=generator)
        asked = self._some("validation", MOST_VALIDATION)
        clock.work = count + rows_in(some) + rows_in(asked)
        try:
            if isinstance(model.features, Patches):
                model.features.learn(some["pixels"][order[:LANDMARKS]], generator, clock.look)
            _look(model, some["pixels"][order[:count].sort()[0]], clock)
            system = _System(model)
            for portion, target in _portions(some, clock):
                system.add(model.likeness(portion, clock.look), target)
            likeness = torch.cat([model.likeness(portion, clock.look) for portion, _ in _portions(asked, clock)])
        except _OutOfTimeError as error:
            self.note = str(error)
            return None
        if chosen is None:
            chosen = {"landmarks": count, **system.choose(likeness, asked["target"])}
        first = system.solved(chosen["strength"], chosen["scale"])
        for part, target in zip(torch.split(likeness, PORTION), torch.split(asked["target"], PORTION), strict=True):
            system.add(part, target)
        refitted = system.solved(chosen["strength"], chosen["scale"])
        model.load_state_dict({**model.state_dict(), **(refitted if "validation" in fit_on else first)})
        self._found = model, chosen, refitted
        return model, chosen

    def _some(self, split: str, most: int) -> Batch:
        """At most so many rows of a split, and not more than MOST_BYTES of them, evenly spaced."""
        bytes_each = self._splits[split]["pixels"][0].numel()
        return spaced(self._splits, [split], max(1, min(most, MOST_BYTES // bytes_each)))


class PixelsCandidate(KernelCandidate):
    name: ClassVar[str] = "pixels"


class GradientsCandidate(KernelCandidate):
    name: ClassVar[str] = "gradients"


class PatchesCandidate(KernelCandidate):
    name: ClassVar[str] = "patches"


CANDIDATES = (PixelsCandidate, GradientsCandidate, PatchesCandidate)


def build(name: str, size: tuple[int, ...], landmarks: int, classes: int) -> KernelMachine:
    """The unfitted machine of the candidate of this name. size: (channels, height, width). Raises ValueError."""
    channels, height, width = size
    if name == "pixels":
        features: nn.Module = Pixels()
    elif name == "gradients":
        features = Gradients()
    elif name == "patches":
        features = Patches(height, width, channels)
    else:
        raise ValueError(f"models of this task have no candidate '{name}'")
    return KernelMachine(features, (channels, height, width), landmarks, classes)


class _OutOfTimeError(Exception):
    """Says why a candidate sits out."""


class _Clock:
    """Whether a fit goes on: nobody has stopped it, and at the pace so far it ends in time. work: rows in all."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance, self._begun = allowance, time.monotonic()
        self.work, self._done = 1, 0

    def look(self) -> None:
        """Raises where it does not: also within a portion, which may take as long as all were given."""
        self._allowance.beat()
        if self._allowance.stop.is_set():
            raise _OutOfTimeError("the training was stopped")
        spent, done = time.monotonic() - self._begun, self._done
        needed = spent * max(1.0, self.work / done) if done else 0.0
        # The first portions are slower than those that follow.
        patience = 1.5 - 0.5 * done / self.work
        if spent > self._allowance.seconds or (done > 2 * PORTION and needed > patience * self._allowance.seconds):
            about = f"about {needed:.0f} s, " if done else ""
            raise _OutOfTimeError(f"it would take {about}more than its share of the time budget")

    def count(self, rows: int) -> None:
        self._done += rows
        self.look()


def _portions(rows: Batch, clock: _Clock) -> Iterator[tuple[Tensor, Tensor]]:
    for pixels, target in zip(torch.split(rows["pixels"], PORTION), torch.split(rows["target"], PORTION), strict=True):
        yield pixels.float(), target
        clock.count(len(target))


@torch.no_grad()
def _look(model: KernelMachine, pixels: Tensor, clock: _Clock) -> None:
    """Takes these images, uint8 (rows, channels, height, width), for landmarks, and scales features by them.

    So that the mean squared distance between two of them is 1 or so: each feature counts by its spread, those that
    hardly vary count for little.
    """
    described = []
    for part in torch.split(pixels, PORTION):
        described.append(model.described(part.float(), clock.look))
        clock.count(len(part))
    features = torch.cat(described)
    spread = features.std(0, correction=0)
    spread = spread + 0.1 * spread.mean() + 1e-6
    model.middle.copy_(features.mean(0))
    scaled = (features - model.middle) / spread
    apart = 2 * scaled.square().sum(1).mean()  # the mean squared distance of two rows around their mean
    model.spread.copy_(spread * apart.clamp(min=1e-6).sqrt())
    model.landmarks.copy_((features - model.middle) / model.spread)


class _System:
    """The normal equations of a machine: (K'K + strength n L) w = K'T, with K (n rows, m landmarks), L (m, m)."""

    def __init__(self, model: KernelMachine) -> None:
        self._model, (count, classes) = model, model.weights.shape
        self._rows = torch.zeros(classes, dtype=torch.float64)  # of each class
        self._square = torch.zeros(count, count, dtype=torch.float64)
        self._sums = torch.zeros(count, dtype=torch.float64)
        self._right = torch.zeros(count, classes, dtype=torch.float64)
        self._among = _likeness(model.landmarks, model.landmarks).double()

    @torch.no_grad()
    def add(self, likeness: Tensor, target: Tensor) -> None:
        """Rows of this likeness (rows, landmarks) to the landmarks."""
        likeness = likeness.double()
        wanted = functional.one_hot(target, len(self._rows)).double()
        self._rows += wanted.sum(0)
        self._square.addmm_(likeness.T, likeness)
        self._sums += likeness.sum(0)
        self._right.addmm_(likeness.T, wanted)

    @torch.no_grad()
    def solved(self, strength: float, scale: float = 1.0) -> dict[str, Tensor]:
        """The machine's weights and bias."""
        rows = float(self._rows.sum())
        system = self._square + strength * rows * self._among
        system.diagonal().add_(1e-7 * rows)
        factor = torch.linalg.cholesky(system)
        # Wanted is 1 of the row's own class and -1 of the others, less its mean over all rows.
        prior = 2 * self._rows / rows - 1
        right = 2 * self._right - torch.outer(self._sums, 1 + prior)
        weights = scale * torch.cholesky_solve(right, factor)
        return {"weights": weights.float(), "bias": (scale * prior).float()}

    @torch.no_grad()
    def choose(self, likeness: Tensor, target: Tensor) -> dict[str, float]:
        """Strength and scale with the least log loss on rows of this likeness (rows, landmarks) to the landmarks."""
        best = (float("inf"), STRENGTHS[0], SCALES[0])
        for strength in STRENGTHS:
            found = self.solved(strength)
            logits = likeness @ found["weights"] + found["bias"]
            for scale in SCALES:
                best = min(best, (float(functional.cross_entropy(scale * logits, target)), strength, scale))
        return {"strength": best[1], "scale": best[2]}
