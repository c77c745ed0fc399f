"""How far a program is, by all that it has printed. Pure."""

from __future__ import annotations

import re

from portal_client.progress_text import EpochProgress
from trainer_image.command import printed_tables
from trainer_image.command.printed import MEASURE, Reading, kept, of_rank_0, read

# What all that was printed may add up to.
_MOST_STEPS = 10**15
_IMPROVES = re.compile(rf"{MEASURE.pattern}|deviance|valid|train", re.I)
_LOSS = ("loss", "Loss", "train_loss", "train loss", "training loss", "total_loss")


class Course:
    """How far a program is, by all that it has printed.

    step: counted through: it goes on where an epoch's steps begin anew; the epoch where no steps are told
    figures: the newest of each name
    """

    def __init__(self, step: int = 0) -> None:
        self.step = self._before = step
        self._last = Reading()
        self._raw: int | None = None
        self._raw_epoch: int | None = None
        self._from_zero = False
        self._whole: int | None = None
        self._header: list[str] | None = None
        self.figures: dict[str, float] = {}

    def read(self, printed: str) -> Reading | None:
        """What the line says of progress, also as the row of a table whose header was printed before."""
        line = of_rank_0(printed)
        if line is None:
            return None
        if header := printed_tables.header(line):
            self._header = header if any(map(_IMPROVES.search, header)) else None
            return None
        found = printed_tables.row(self._header, line) if self._header else None
        if found is None or self._header is None:
            return read(line)
        numbers, at, of = found
        step = numbers.pop("#", None)
        figures = kept(numbers)
        if self._header[0].lower() in printed_tables.EPOCHS:
            return Reading(at, of, None if step is None or step < 0 else int(step), None, figures)
        return Reading(None, None, at, of, figures)

    def go_on(self, reading: Reading) -> None:
        last = self._last
        if reading.counted_through and last.counted_through and (reading.steps or 0) < (last.steps or 0):
            return  # a bar beside the bar: of an evaluation
        self._from_zero |= last.epoch is None and reading.epoch == 0 and isinstance(reading.epoch, int)
        epoch = last.epoch if reading.epoch is None else reading.epoch
        if reading.step is not None:
            whole = None if reading.counted_through or isinstance(epoch, float) else epoch
            self._count(reading.step, reading.steps, whole)
        elif self._raw is None and isinstance(reading.epoch, int):
            self.step = max(self.step, min(self._from_one(reading.epoch, reading.epochs or last.epochs), _MOST_STEPS))
        elif self._raw is None and reading.figures:
            self.step += 1
        if reading.step is not None:
            at = reading
        elif isinstance(reading.epoch, float) or reading.epoch in (None, last.epoch):
            at = last
        else:  # another epoch begins, or is told of at its end
            at = Reading() if reading.figures or last.steps is None else Reading(step=0, steps=last.steps)
        if isinstance(reading.epoch, float) and reading.epoch >= 0.5 and last.step and last.steps:
            # From the share that is done and the steps of all epochs follows how many epochs there are.
            self._whole = max(1, round(reading.epoch * last.steps / last.step))
        epochs = reading.epochs or last.epochs
        self._last = Reading(epoch, epochs, at.step, at.steps, counted_through=at.counted_through)
        self.figures |= reading.figures

    def _count(self, step: int, steps: int | None, epoch: int | None) -> None:
        if epoch is not None and steps and (through := (epoch + self._from_zero - 1) * steps + step) >= self.step:
            self._before = through - step  # lines may be missing, whole epochs of them
        elif self._raw is not None and (step < self._raw or (step == self._raw and epoch != self._raw_epoch)):
            self._before += self._raw
        elif self._raw is None and step >= self.step:
            self._before = 0  # it was stopped, and counts on
        self._raw, self._raw_epoch = step, epoch
        self.step = min(self._before + step, _MOST_STEPS)

    def __str__(self) -> str:
        """ "Epoch 2 of 5, step 45 of 100, loss 0.31, val_loss 0.4": the status page's form where it can be."""
        figures = dict(self.figures)
        name = next((name for name in _LOSS if name in figures), None)
        loss = figures.pop(name) if name else None
        first = sorted(figures.items(), key=lambda figure: MEASURE.search(figure[0]) is None)
        more = ", ".join(f"{name} {value:.4g}" for name, value in first[:3])
        epoch, epochs, at = self._place()
        if epoch is not None and epochs:
            step, steps = at or (None, None)
            return str(EpochProgress(epoch, epochs, step, steps, loss, more))
        words = [f"Epoch {epoch}"] if epoch is not None else []
        words += [f"step {at[0]} of {at[1]}"] if at else [f"step {self.step}"] if not words else []
        words += ([] if loss is None else [f"loss {loss:.3g}"]) + ([more] if more else [])
        text = ", ".join(words)
        return text[0].upper() + text[1:]

    def _place(self) -> tuple[int | None, int | None, tuple[int, int] | None]:
        """(epoch from 1, of how many, step and steps within it)"""
        now = self._last
        at = (now.step, now.steps) if now.step is not None and now.steps else None
        if self._whole and at and now.counted_through:
            each = max(1, at[1] // self._whole)
            epoch = min(self._whole, max(0, at[0] - 1) // each + 1)
            return epoch, self._whole, (at[0] - (epoch - 1) * each, each)
        if not isinstance(now.epoch, int):
            return None, None, at
        epoch = self._from_one(now.epoch, now.epochs)
        return epoch, max(epoch, now.epochs) if now.epochs else None, at

    def _from_one(self, epoch: int, epochs: int | None) -> int:
        """A bar that counts the epochs that are done begins at 0 and ends with all of them."""
        return epoch + (self._from_zero and epoch != epochs)
