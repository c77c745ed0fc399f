"""The quality table: our models beside scikit-learn's best on the same folds. Exits 1 when a gate is missed.

python -m benchmarks.quality              15 folds of each set (5 folds, shuffled 3 times)
python -m benchmarks.quality --quick      3 folds of each
python -m benchmarks.quality --development    the sets that presets are chosen on; no gates
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

from benchmarks.quality_sets import Array, QualitySet, development, gated, write_split
from trainer_image.config import parse_config
from trainer_image.contract import Limits, RunInputs
from trainer_image.training import train


def folds(data: QualitySet, quick: bool) -> list[tuple[Array, Array]]:
    """(training rows, test rows) of each fold."""
    splitter = RepeatedKFold if data.regression else RepeatedStratifiedKFold
    every = list(splitter(n_splits=5, n_repeats=3, random_state=0).split(data.inputs, data.targets))
    return every[::6] if quick else every


def ours(data: QualitySet, train_rows: Array, test_rows: Array, preset: str, seed: int) -> float:
    """The test figure of a model trained by the trainer itself, from files, as a user's would be."""
    place = Path(tempfile.mkdtemp(prefix="quality-"))
    try:
        write_split(place / "data", "train", data, train_rows)
        write_split(place / "data", "test", data, test_rows)
        target = "data: {target: target}\n" if data.task == "tabular" else ""
        text = f"task: {data.task}\n{target}model: {{preset: {preset}}}\ntrain: {{seed: {seed}}}\n"
        inputs = RunInputs(
            config=parse_config(text.encode()),
            data=place / "data",
            output=place / "out",
            run_id="quality",
            run_key="quality",
            dataset_fingerprint="quality",
            device="auto",
            limits=Limits(),
            stop=threading.Event(),
            progress=lambda progress: None,
        )
        return train(inputs).metrics[data.metric]
    finally:
        shutil.rmtree(place)


def theirs(data: QualitySet, train_rows: Array, test_rows: Array) -> float:
    """The same figure of scikit-learn's model."""
    flat = data.inputs.reshape(len(data.inputs), -1).astype(float)
    if data.task == "image_classification":
        flat = flat * 16 / 255
    model = data.rival().fit(flat[train_rows], data.targets[train_rows])
    score = r2_score if data.regression else accuracy_score
    return float(score(data.targets[test_rows], model.predict(flat[test_rows])))


def measure(sets: Sequence[QualitySet], quick: bool, preset: str) -> bool:
    """Prints one line a set; True when no gate was missed."""
    print(
        f"{'data':16} {'figure':9} {'folds':>5} {'ours':>7} {'± se':>6} {'theirs':>7} {'gate':>6} {'s a fold':>9}",
        end="",
    )
    print("  rival")
    passed = True
    for data in sets:
        own, other = [], []
        began = time.monotonic()
        for train_rows, test_rows in folds(data, quick):
            other.append(theirs(data, train_rows, test_rows))
            own.append(ours(data, train_rows, test_rows, preset, seed=0))
        seconds = (time.monotonic() - began) / len(own)
        mean, error = float(np.mean(own)), float(np.std(own) / len(own) ** 0.5)
        below = data.gate is not None and mean < data.gate
        passed &= not below
        gate = "" if data.gate is None else f"{data.gate:.3f}"
        print(
            f"{data.name:16} {data.metric:9} {len(own):5} {mean:7.4f} {error:6.4f} {np.mean(other):7.4f} {gate:>6} "
            f"{seconds:9.1f}  {data.rival_name}{'  BELOW THE GATE' if below else ''}",
            flush=True,
        )
    return passed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 folds instead of 15")
    parser.add_argument("--development", action="store_true", help="the sets that presets are chosen on")
    parser.add_argument("--preset", default="auto", choices=("auto", "fast", "best"))
    parser.add_argument("--only", action="append", default=[], metavar="SET", help="only this set; may be repeated")
    options = parser.parse_args(arguments)
    sets = [
        s for s in (development() if options.development else gated()) if not options.only or s.name in options.only
    ]
    if not sets:
        parser.error(f"no set is named {', '.join(options.only)}")
    return 0 if measure(sets, options.quick, options.preset) else 1


if __name__ == "__main__":
    sys.exit(main())
