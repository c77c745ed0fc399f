"""A dataset many times larger than the memory it may take: is it trained on, and how much memory does that take?

    python -m benchmarks.larger_than_memory --mib 2048 --room 64
    python -m benchmarks.larger_than_memory --task text_classification --mib 256 --room 16

Makes a table or texts on the spot, trains on them with `--room` MiB for the dataset in memory, and says how far the
process's anonymous memory (what no file stands behind, and the kernel cannot drop) grew in each phase. Of a language
model validation and test are small: scoring text takes a CPU as long as learning it.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from trainer_image.config.model_config import parse_config
from trainer_image.contract import RunInputs
from trainer_image.data.spill import Scratch
from trainer_image.engine import training
from trainer_image.limits import Limits

COLUMNS = 20
CONFIG = "task: {task}\ndata: {data}\nmodel: {{preset: fast}}\ntrain: {{time_budget: 20s, batch_size: {rows}}}\n"
DATA = {"tabular": ("{target: y}", 4096), "text_classification": ("{}", 256), "language_model": ("{}", 16)}


def make(task: str, folder: Path, mib: int) -> int:
    """Writes some `mib` MiB for the task. Returns the rows."""
    if task == "tabular":
        return make_table(folder / "train.csv", mib)
    if task == "language_model":
        for split in ("validation", "test"):
            make_texts(folder / f"{split}.jsonl", 0, seed=len(split))
    return make_texts(folder / "train.jsonl", mib)


def make_texts(path: Path, mib: int, seed: int = 0) -> int:
    """Texts of 20 to 400 words, of which some are of one class and some of the other."""
    random = np.random.default_rng(seed)
    words = np.array(["".join(chr(97 + c) for c in random.integers(0, 26, 2 + n % 9)) for n in range(5000)])
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        while not rows or file.tell() < mib * 2**20:
            for size in random.integers(20, 400, 100).tolist():
                label = rows % 2
                drawn = random.zipf(1.2, size) % 4900 + 100 * (random.random(size) < 0.02) * (1 - 2 * label)
                text = " ".join(words[drawn % 5000].tolist())
                file.write(json.dumps({"text": text, "label": ("land", "sea")[label]}) + "\n")
                rows += 1
    return rows


def make_table(path: Path, mib: int) -> int:
    """Numbers, a category of 3000, a class."""
    random = np.random.default_rng(0)
    rows = 0
    with path.open("wb") as file:
        writer = None
        while file.tell() < mib * 2**20:
            x = random.normal(size=(100_000, COLUMNS)).round(4)
            columns = {f"x{n}": x[:, n] for n in range(COLUMNS)}
            columns["shop"] = np.array([f"s{n}" for n in random.integers(0, 3000, len(x))])
            columns["y"] = np.where(x[:, 0] + x[:, 1] * x[:, 2] > 0, "up", "down")
            table = pa.table(columns)
            writer = writer or pyarrow.csv.CSVWriter(file, table.schema)
            writer.write_table(table)
            rows += len(x)
    return rows


def run(task: str, mib: int, room: int, folder: Path) -> None:
    (folder / "data").mkdir()
    rows = make(task, folder / "data", mib)
    size = sum(path.stat().st_size for path in (folder / "data").iterdir())
    settings, batch = DATA[task]
    print(f"{size / 2**20:.0f} MiB, {rows} rows; room for the dataset in memory: {room} MiB", flush=True)
    peak = _Peak()
    began = time.monotonic()
    training.Scratch = lambda parent, memory_bytes=None: Scratch(parent, room * 2**20)  # type: ignore[misc,assignment]
    result = training.train(
        RunInputs(
            config=parse_config(CONFIG.format(task=task, data=settings, rows=batch).encode()),
            data=folder / "data",
            output=folder / "out",
            run_id="benchmark",
            run_key="benchmark",
            dataset_fingerprint="0" * 64,
            device="cpu",
            limits=Limits(),
            stop=threading.Event(),
            progress=peak.tell,
        )
    )
    peak.tell(None)
    print(f"trained {result.steps} steps, {time.monotonic() - began:.0f} s in all; {dict(result.metrics)}")


class _Peak:
    """Samples this process's anonymous memory; says the highest of a phase when the next one begins."""

    def __init__(self) -> None:
        self._before = self._highest = _anonymous()
        self._phase = "begin"
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._highest = max(self._highest, _anonymous())
            time.sleep(0.01)

    def tell(self, progress: object) -> None:
        phase = str(getattr(progress, "message", "end")).split(",")[0]
        phase = re.sub(r"^Epoch .*", "training", phase)
        if phase != self._phase:
            print(f"{self._phase}: at most {(self._highest - self._before) / 2**20:.0f} MiB more", flush=True)
            self._phase, self._highest = phase, _anonymous()


def _anonymous() -> int:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.larger_than_memory", description=__doc__)
    parser.add_argument("--task", choices=list(DATA), default="tabular", help="what is trained (tabular)")
    parser.add_argument("--mib", type=int, default=2048, help="size of the dataset (2048)")
    parser.add_argument("--room", type=int, default=64, help="MiB of it that may lie in memory (64)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options.task, options.mib, options.room, Path(folder))


if __name__ == "__main__":
    main()
