"""What each task does on the GPU: rows a second, how busy the GPU is, and the time to a quality.

python -m benchmarks.gpu                every task on the GPU; says so and exits 1 where none is visible
python -m benchmarks.gpu --device cpu   the same on the CPU, small and with preset fast: to try the command
python -m benchmarks.gpu --markdown     the table as docs/performance.md has it

Each task trains through the trainer's own code, from files to a report. "rows/s" counts the rows of all optimizer steps
over the seconds of training, validation included. "busy" is the share of time in which the GPU ran something, by NVML
or nvidia-smi, sampled every half second; "–" where neither can be asked. "to quality" is when validation first reached
the named figure.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn import datasets

from local_stack import demo_data
from trainer_image.config import parse_config
from trainer_image.contract import Limits, RunInputs
from trainer_image.devices import choose_device, hardware
from trainer_image.errors import TrainerError
from trainer_image.training import train

SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """One training. write: puts the dataset of `rows` rows into a folder; quality: (figure, at least or at most)."""

    name: str
    write: Callable[[Path, int], None]
    config: str
    rows: int
    small_rows: int
    quality: tuple[str, float]


def write_table(folder: Path, rows: int) -> None:
    """A classification of two classes with 40 numbers, of which 20 tell something."""
    inputs, labels = datasets.make_classification(
        rows, 40, n_informative=20, n_redundant=4, class_sep=1.2, flip_y=0.02, random_state=0
    )
    folder.mkdir(parents=True)
    header = ",".join([*(f"x{number}" for number in range(40)), "y"])
    content = np.column_stack([inputs.astype(np.float32), labels])
    np.savetxt(folder / "train.csv", content, "%.6g", ",", header=header, comments="")


def write_images(folder: Path, rows: int) -> None:
    """Colour images of 48 x 48 pixels in ten classes: stripes of ten directions, with noise, anywhere."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:48, 0:48] / 48
    for number in range(rows):
        label = number % 10
        angle = np.pi * label / 10 + random.normal(0, 0.05)
        wave = np.sin(2 * np.pi * (6 * (x * np.cos(angle) + y * np.sin(angle)) + random.random()))
        pixels = 128 + 60 * wave[:, :, None] * random.uniform(0.3, 1, 3) + random.normal(0, 40, (48, 48, 3))
        place = folder / "train" / f"direction-{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png", compress_level=1)


def write_digits(folder: Path, rows: int) -> None:
    """scikit-learn's handwritten digits, 8 x 8 grey pixels."""
    demo_data.write_digits(folder, per_class=rows // 10)


LOADS = (
    Load(
        "tabular", write_table, "task: tabular\ndata: {target: y}\ntrain: {epochs: 20}\n", 200_000, 2_000,
        ("accuracy", 0.9),
    ),
    Load(
        "images, 48 x 48", write_images, "task: image_classification\ntrain: {epochs: 10}\n", 20_000, 60,
        ("accuracy", 0.9),
    ),
    Load(
        "images, 8 x 8", write_digits, "task: image_classification\n", 1_790, 300,
        ("accuracy", 0.95),
    ),
)  # fmt: skip


class Busy:
    """Samples the GPU's utilisation in a thread of its own, as percent, from `with` to its end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._samples: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Busy:
        if self._device.type == "cuda":
            self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()

    @property
    def percent(self) -> float | None:
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            now = utilisation(self._device)
            if now is None:
                return
            self._samples.append(now)


def utilisation(device: torch.device) -> float | None:
    """Percent, None where neither NVML's Python package nor nvidia-smi is there."""
    try:
        return float(torch.cuda.utilization(device))
    except (ModuleNotFoundError, RuntimeError):
        pass
    try:
        query = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
            f"--id={device.index or 0}",
        ]
        return float(subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.split()[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def measure(load: Load, device: torch.device, *, small: bool) -> list[str]:
    """One row of the table."""
    place = Path(tempfile.mkdtemp(prefix="gpu-"))
    try:
        load.write(place / "data", load.small_rows if small else load.rows)
        inputs = RunInputs(
            config=parse_config((load.config + ("model: {preset: fast}\n" if small else "")).encode()),
            data=place / "data",
            output=place / "out" / "model",
            run_id="gpu",
            run_key="gpu",
            dataset_fingerprint="gpu",
            device=str(device) if device.type == "cpu" else f"{device.type}:{device.index or 0}",
            limits=Limits(),
            stop=threading.Event(),
            progress=lambda progress: None,
        )
        with Busy(device) as busy:
            result = train(inputs)
        report: dict[str, Any] = json.loads((inputs.output / "report.json").read_text())
    finally:
        shutil.rmtree(place)
    training, rows, history = report["training"], report["dataset"]["rows"], report["history"]
    searched = sum(record["phase"] == "search" for record in history)
    refitted = len(history) - searched
    seen = searched * rows["train"] + refitted * (rows["train"] + rows["validation"])
    figure, wanted = load.quality
    reached = next(
        (r["seconds"] for r in history if r.get("validation") and reaches(r["validation"], figure, wanted)), None
    )
    return [
        load.name,
        str(rows["train"]),
        "bf16" if training["bfloat16"] else "fp32",
        f"{seen / result.seconds:,.0f}",
        "–" if busy.percent is None else f"{busy.percent:.0f} %",
        f"{result.seconds:.1f} s",
        f"{figure} {wanted:g}: " + ("not reached" if reached is None else f"{reached:.1f} s"),
        f"{figure} {result.metrics[figure]:.4f}",
    ]


def reaches(figures: dict[str, float], name: str, wanted: float) -> bool:
    return figures[name] >= wanted


HEADER = ["load", "training rows", "precision", "rows/s", "busy", "training", "to quality", "test"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (cuda)")
    parser.add_argument("--markdown", action="store_true", help="as a table for docs/performance.md")
    parser.add_argument("--only", action="append", choices=[load.name for load in LOADS], help="may be repeated")
    options = parser.parse_args(arguments)
    try:
        device = choose_device(options.device)
    except TrainerError as error:
        print(f"Nothing was measured. {error.sentence}", file=sys.stderr)
        return 1
    facts = hardware(device)
    print(", ".join(f"{name} {facts[name]}" for name in ("gpu", "processor", "cpus", "torch", "cuda") if name in facts))
    separator = " | " if options.markdown else "  "
    widths = [0] * len(HEADER) if options.markdown else [16, 13, 9, 9, 5, 9, 24, 16]

    def show(cells: list[str]) -> None:
        line = separator.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(f"| {line} |" if options.markdown else line.rstrip(), flush=True)

    show(HEADER)
    if options.markdown:
        show(["---"] * len(HEADER))
    for load in LOADS:
        if not options.only or load.name in options.only:
            show(measure(load, device, small=device.type == "cpu"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
