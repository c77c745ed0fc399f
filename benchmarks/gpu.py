"""What each task does on the GPU: rows a second, how busy the GPU is, and the time to a quality.

python -m benchmarks.gpu                every task on the GPU; says so and exits 1 where none is visible
python -m benchmarks.gpu --device cpu   the same on the CPU, small and with preset fast: to try the command
python -m benchmarks.gpu --markdown     the table as docs/performance.md has it

Each task trains through the trainer's own code, from files to a report. "rows/s" counts the rows of all optimizer steps
over the seconds of training, validation included. "busy" is the share of time in which the GPU ran something, by NVML
or nvidia-smi, sampled every half second; "–" where neither can be asked. "to quality" is when validation first reached
the named figure. What the trainer notes of compiling and of memory stands below the table, and so does the whole error
of a load that failed: the others are measured all the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
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

from trainer_image.config.model_config import parse_config
from trainer_image.contract import RunInputs
from trainer_image.engine.training import train
from trainer_image.errors import TrainerError
from trainer_image.host.devices import choose_device, hardware
from trainer_image.limits import Limits

SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """One training. write: puts a dataset of `rows` rows or files into a folder; quality: (figure, what to reach)."""

    name: str
    write: Callable[[Path, int], None]
    config: str
    rows: int
    small_rows: int
    quality: tuple[str, float]
    preset: str = "auto"


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
    data = datasets.load_digits()
    for number in range(min(rows, len(data.target))):
        place = folder / "train" / str(data.target[number])
        place.mkdir(parents=True, exist_ok=True)
        # The set counts ink from 0 to 16.
        Image.fromarray((data.images[number] * (255 / 16)).round().astype(np.uint8)).save(place / f"{number}.png")


def sources() -> list[Path]:
    """The standard library's modules by size: text that is at hand wherever Python is."""
    return sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"), key=lambda path: (-path.stat().st_size, path.name))


def write_documents(folder: Path, rows: int) -> None:
    """That number of the standard library's modules of all sizes, as they are."""
    (folder / "train").mkdir(parents=True)
    found = sources()
    step = max(1, len(found) // rows)
    for number, source in enumerate(found[step // 2 :: step][:rows]):
        shutil.copyfile(source, folder / "train" / f"{number:04}.txt")


def write_texts(folder: Path, rows: int) -> None:
    """Pieces of eight lines of the standard library's packages; to tell is which package one is from."""
    root = Path(sysconfig.get_path("stdlib"))
    names = ["asyncio", "email", "encodings", "idlelib", "multiprocessing", "tkinter", "unittest", "xml"]
    found = []
    for name in (name for name in names if (root / name).is_dir()):
        for source in sorted((root / name).rglob("*.py")):
            lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
            pieces = ("\n".join(lines[start : start + 8]) for start in range(0, len(lines), 8))
            found += [{"text": piece, "label": name} for piece in pieces if piece.strip()]
    folder.mkdir(parents=True)
    chosen = np.random.default_rng(0).permutation(len(found))[:rows]
    content = "".join(json.dumps(found[number]) + "\n" for number in chosen)
    (folder / "train.jsonl").write_text(content, encoding="utf-8")


LOADS = (
    Load(
        "tabular", write_table, "task: tabular\ndata: {target: y}\ntrain: {epochs: 20, time_budget: 90s}\n",
        200_000, 2_000, ("accuracy", 0.9),
    ),
    Load(
        "images, 48 x 48", write_images, "task: image_classification\ntrain: {epochs: 10, time_budget: 90s}\n",
        20_000, 60, ("accuracy", 0.9),
    ),
    Load(
        "images, 8 x 8", write_digits, "task: image_classification\ntrain: {time_budget: 90s}\n", 1_790, 300,
        ("accuracy", 0.95),
    ),
    Load(
        "texts", write_texts, "task: text_classification\ntrain: {time_budget: 90s}\n", 20_000, 400,
        ("accuracy", 0.6),
    ),
    Load(
        "language model", write_documents, "task: language_model\ntrain: {epochs: 3, time_budget: 90s}\n", 600, 3,
        ("bits_per_byte", 2.0), preset="best",
    ),
)  # fmt: skip
LOWER_IS_BETTER = ("bits_per_byte",)
# Of one load, all in all: a hang is a line of the table, too.
MOST_SECONDS = 300.0


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
    except Exception:  # NVML's errors are its own, and nothing here may end a measurement
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


def measure(load: Load, device: torch.device, *, small: bool) -> tuple[list[str], list[str]]:
    """One row of the table, and what the trainer noted."""
    place = Path(tempfile.mkdtemp(prefix="gpu-"))
    try:
        load.write(place / "data", load.small_rows if small else load.rows)
        inputs = RunInputs(
            config=parse_config((f"{load.config}model: {{preset: {'fast' if small else load.preset}}}\n").encode()),
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
        shutil.rmtree(place, ignore_errors=True)
    training, rows, history = report["training"], report["dataset"]["rows"], report["history"]
    searched = sum(record["phase"] == "search" for record in history)
    refitted = len(history) - searched
    seen = searched * rows["train"] + refitted * (rows["train"] + rows["validation"])
    figure, wanted = load.quality
    reached = next(
        (r["seconds"] for r in history if r.get("validation") and reaches(r["validation"], figure, wanted)), None
    )
    cells = [
        load.name,
        str(rows["train"]),
        "bf16" if training["bfloat16"] else "fp32",
        f"{seen / result.seconds:,.0f}",
        "–" if busy.percent is None else f"{busy.percent:.0f} %",
        f"{report['hardware'].get('peak_gpu_memory_bytes', 0) / 2**30:.2f} GiB" if device.type == "cuda" else "–",
        f"{result.seconds:.1f} s",
        f"{figure} {wanted:g}: " + ("not reached" if reached is None else f"{reached:.1f} s"),
        f"{figure} {result.metrics[figure]:.4f}",
    ]
    return cells, training["notes"]


def reaches(figures: dict[str, float], name: str, wanted: float) -> bool:
    return figures[name] <= wanted if name in LOWER_IS_BETTER else figures[name] >= wanted


HEADER = ["load", "training rows", "precision", "rows/s", "busy", "memory", "training", "to quality", "test"]


def apart(load: Load, device: str) -> tuple[list[str], list[str], str]:
    """(cells, notes, error) of a load in a process of its own: a GPU's error stays with the process that met it."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", load.name, "--device", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
        cells, notes = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return [load.name, f"failed: not through after {MOST_SECONDS:.0f} s"], [], ""
    except (ValueError, IndexError):
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return [load.name, f"failed: {last[0][:200]}"], [], done.stderr
    return cells, notes, ""


def device_or_none(wanted: str) -> torch.device | None:
    """The device, or None once it is said that there is none."""
    try:
        return choose_device(wanted)
    except TrainerError as error:
        print(f"Nothing was measured. {error.sentence}", file=sys.stderr)
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [load.name for load in LOADS]
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (cuda)")
    parser.add_argument("--markdown", action="store_true", help="as a table for docs/performance.md")
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--one", choices=names, help="this one in this process, its line as JSON")
    options = parser.parse_args(arguments)
    device = device_or_none(options.device)
    if device is None:
        return 1
    if options.one:
        [load] = [load for load in LOADS if load.name == options.one]
        print(json.dumps(measure(load, device, small=device.type == "cpu")))
        return 0
    facts = hardware(device)
    print(", ".join(f"{name} {facts[name]}" for name in ("gpu", "processor", "cpus", "torch", "cuda") if name in facts))
    separator = " | " if options.markdown else "  "
    widths = [0] * len(HEADER) if options.markdown else [16, 13, 9, 9, 5, 9, 9, 26, 20]

    def show(cells: list[str]) -> None:
        filled = cells + [""] * (len(HEADER) - len(cells))
        line = separator.join(cell.ljust(width) for cell, width in zip(filled, widths, strict=True))
        print(f"| {line} |" if options.markdown else line.rstrip(), flush=True)

    show(HEADER)
    if options.markdown:
        show(["---"] * len(HEADER))
    below: list[str] = []
    failed = False
    for load in (load for load in LOADS if not options.only or load.name in options.only):
        cells, notes, error = apart(load, options.device)
        show(cells)
        below += [f"{load.name}: {note}" for note in notes]
        failed |= len(cells) < len(HEADER)
        print(error, file=sys.stderr, end="")
    print("\n".join(["", *below]) if below else "", end="\n" if below else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
