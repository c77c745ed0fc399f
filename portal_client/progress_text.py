"""How far a training is, as the trainer's message with Processing; parsed again for the status page (pure).

    Epoch 8 of 20, step 12 of 40
    Epoch 7 of 20, loss 0.312, validation accuracy 0.91
    Epoch 2 of 5, loss 0.208, training on all rows

The portal keeps one text for people and nothing for programs. Any other text is valid, too: a custom task or an older
trainer writes what it likes, and has no progress bar.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# Digits are bounded: whoever may write to the portal may write anything.
_SENTENCE = re.compile(
    r"Epoch (?P<epoch>[0-9]{1,9}) of (?P<epochs>[0-9]{1,9})"
    r"(?:, step (?P<step>[0-9]{1,12}) of (?P<steps>[0-9]{1,12}))?"
    r"(?:, loss (?P<loss>-?[0-9]{1,12}(?:\.[0-9]{1,12})?(?:e[+-][0-9]{1,3})?))?"
    r"(?:, (?P<more>.+))?",
    re.ASCII | re.DOTALL,
)


@dataclass(frozen=True)
class EpochProgress:
    """epoch: the one that runs (with step) or the last that is done, from 1; loss: of that epoch, in training.

    step, steps: of this epoch, None at its end; more: the rest of the text, e.g. "validation accuracy 0.91".
    """

    epoch: int
    epochs: int
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    more: str = ""

    @property
    def done(self) -> float:
        """The share of the epochs that is done, 0 to 1."""
        if self.step is None or not self.steps:
            return min(1.0, self.epoch / max(1, self.epochs))
        return min(1.0, (max(0, self.epoch - 1) + self.step / self.steps) / max(1, self.epochs))

    def __str__(self) -> str:
        parts = [f"Epoch {self.epoch} of {self.epochs}"]
        if self.step is not None and self.steps is not None:
            parts.append(f"step {self.step} of {self.steps}")
        if self.loss is not None and math.isfinite(self.loss):
            parts.append(f"loss {self.loss:.3g}")
        if self.more:
            parts.append(self.more)
        return ", ".join(parts)


def parse(text: str) -> EpochProgress | None:
    """`str(progress)` read back, with the loss as it was written; None for any other text."""
    found = _SENTENCE.fullmatch(text)
    if found is None:
        return None
    step, steps, loss = found["step"], found["steps"], float(found["loss"] or "nan")
    return EpochProgress(
        int(found["epoch"]),
        int(found["epochs"]),
        None if step is None else int(step),
        None if steps is None else int(steps),
        loss if math.isfinite(loss) else None,
        found["more"] or "",
    )
