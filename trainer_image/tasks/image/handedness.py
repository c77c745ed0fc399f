"""Whether training images may be mirrored: a mirrored digit is another sign, a mirrored landscape is a landscape.

The data say it. A kernel machine is fitted on some images as they are and asked about others as they are and mirrored:
where the mirrored ones are recognised worse by more than chance, their class depends on the side.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor
from torch.nn import functional

from trainer_image.tasks.base import Batch, spaced, take
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.image.kernel import GradientsCandidate

ASKED, SIDE = 1_200, 48
FEWEST = 60
# Standard deviations of chance by which mirrored images have to be recognised worse: of all, and of any one class.
BY_ALL, BY_CLASS = 2.0, 3.0


def mirrored_alike(train: Batch, classes: int) -> bool | None:
    """Whether mirrored images are recognised as the others are; None where too few of either are to tell.

    train: "pixels" (rows, channels, height, width) uint8 and "target" (rows,)
    """
    some = spaced({"train": train}, ["train"], ASKED)
    target = some["target"]
    if len(target) < FEWEST:
        return None
    # At random: every third one could be all of one class.
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    height, width = (min(SIDE, side) for side in some["pixels"].shape[2:])
    some["pixels"] = functional.adaptive_avg_pool2d(some["pixels"].float(), (height, width))
    parts = {"train": take(some, order[len(order) // 3 :]), "validation": take(some, order[: len(order) // 3])}
    allowance = Allowance(float("inf"), torch.get_num_threads(), 0, threading.Event(), lambda: None)
    fitted = GradientsCandidate(parts, classes).fit(["train"], allowance, None)
    assert fitted is not None
    pixels, target = parts["validation"]["pixels"], parts["validation"]["target"]
    with torch.no_grad():
        right, mirrored = (
            torch.cat([fitted[0](part).argmax(1) for part in torch.split(images, 256)]) == target
            for images in (pixels, pixels.flip(3))
        )
    commonest = float(target.bincount().max()) / len(target)
    if float(right.double().mean()) < commonest + BY_ALL * (commonest * (1 - commonest) / len(target)) ** 0.5:
        return None  # what is not recognised at all says nothing
    if _worse(right, mirrored) > BY_ALL:
        return False
    return all(_worse(right[target == c], mirrored[target == c]) <= BY_CLASS for c in range(classes))


def _worse(right: Tensor, mirrored: Tensor) -> float:
    """How much more often only the image as it is was recognised than only its mirrored one, in standard deviations."""
    lost, won = int((right & ~mirrored).sum()), int((mirrored & ~right).sum())
    return (lost - won) / math.sqrt(max(1, lost + won))
