"""How long a training takes from its start to its first epoch, and what memory its processes have then.

python -m benchmarks.first_step               ten trainings of a small table, one after the other
python -m benchmarks.first_step --root DIR    the same of another checkout of this project

A table is trained in a folder, without storage and portal: what counts is the start of processes and their imports.
Times are wall-clock seconds, the shortest and the median; memory is PSS, which counts what is shared by its share.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = "task: tabular\ndata: {target: kind}\nmodel: {preset: fast}\ntrain: {epochs: 100000}\n"


def write_table(folder: Path) -> None:
    (folder / "data").mkdir()
    rows = [f"{n % 7},{n % 5},{'high' if n % 7 > 3 else 'low'}" for n in range(200)]
    (folder / "data" / "train.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")
    (folder / "config.yaml").write_text(CONFIG)


def tree(pid: int) -> list[int]:
    """A process and all below it, the first one first."""
    below = [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]
    return [pid, *(found for child in below for found in tree(child))]


def pss(pid: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def measure(root: Path) -> tuple[float, list[int]]:
    """(seconds until the first epoch was reported, bytes of each process then)"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder)
        flags = ["--data=data", "--config=config.yaml", "--out=out", "--device=cpu"]
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "trainer_image", "train", *flags],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
            stderr=subprocess.PIPE,
            text=True,
        ) as trainer:
            assert trainer.stderr is not None
            for line in trainer.stderr:
                if " Epoch " in line:
                    break
            seconds = time.monotonic() - began
            memory = [pss(pid) for pid in tree(trainer.pid)]
            trainer.kill()
    return seconds, memory


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    options.add_argument("--times", type=int, default=10)
    given = options.parse_args()
    found = [measure(given.root) for _ in range(given.times)]
    seconds = [each for each, _ in found]
    print(f"first epoch after {min(seconds):.2f} s at best, {statistics.median(seconds):.2f} s in the median")
    print("memory: " + " + ".join(f"{size / 2**20:.0f}" for size in found[-1][1]) + " MiB")


if __name__ == "__main__":
    main()
