"""The quality table: our models beside scikit-learn's best on the same folds. Exits 1 when a gate is missed, or where
ours is not first among the rivals on tables, images and texts (benchmarks/ranking).

make quality                             15 folds of each table and image set, 5 of the chunks, sources once
make quality ARGS=--quick                3 folds of each, 2 of the chunks
make quality ARGS=--development          the sets that presets are chosen on; no gates
make quality ARGS="--only wine"          one set, or one set of a ranking
make quality ARGS="--rank --seconds 60"  the rankings alone, ours with so many seconds a set; `--resume FILE`: in parts
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

from benchmarks.quality_sets import Array, QualitySet, development, gated, write_split
from benchmarks.quality_texts import (
    Chunks,
    Sources,
    development_chunks,
    development_sources,
    standard_library,
    standard_library_chunks,
)
from benchmarks.ranking.__main__ import every, options, ranking
from trainer_image.config.model_config import parse_config
from trainer_image.contract import RunInputs
from trainer_image.engine.training import train
from trainer_image.limits import Limits

LOWER = "bits_per_byte"
# What xz made of the standard library when the gate was set; a newer library's own figure counts where it is lower.
XZ_GATE = 1.603


def folds(data: QualitySet, quick: bool) -> list[tuple[Array, Array]]:
    """(training rows, test rows) of each fold."""
    splitter = RepeatedKFold if data.regression else RepeatedStratifiedKFold
    every = list(splitter(n_splits=5, n_repeats=3, random_state=0).split(data.inputs, data.targets))
    return every[::6] if quick else every


def trained(write: Callable[[Path], object], config: str, metric: str) -> float:
    """The test figure of a model that the trainer itself trains, from files as a user's would be."""
    place = Path(tempfile.mkdtemp(prefix="quality-"))
    try:
        (place / "data").mkdir()
        write(place / "data")
        inputs = RunInputs(
            config=parse_config(config.encode()),
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
        return train(inputs).metrics[metric]
    finally:
        shutil.rmtree(place)


def ours(data: QualitySet, train_rows: Array, test_rows: Array, preset: str, seed: int) -> float:
    """The test figure of our model."""

    def write(folder: Path) -> None:
        write_split(folder, "train", data, train_rows)
        write_split(folder, "test", data, test_rows)

    target = "data: {target: target}\n" if data.task == "tabular" else ""
    text = f"task: {data.task}\n{target}model: {{preset: {preset}}}\ntrain: {{seed: {seed}}}\n"
    return trained(write, text, data.metric)


def theirs(data: QualitySet, train_rows: Array, test_rows: Array) -> float:
    """The same figure of scikit-learn's model."""
    flat = data.inputs.reshape(len(data.inputs), -1).astype(float)
    if data.task == "image_classification":
        flat = flat * 16 / 255
    model = data.rival().fit(flat[train_rows], data.targets[train_rows])
    score = r2_score if data.regression else accuracy_score
    return float(score(data.targets[test_rows], model.predict(flat[test_rows])))


@dataclass(frozen=True)
class Line:
    """One line of the table: figures of each fold, seconds altogether; bits per byte are better lower."""

    name: str
    metric: str
    own: list[float]
    other: list[float]
    rival: str
    gate: float | None
    seconds: float

    @property
    def missed(self) -> bool:
        mean = float(np.mean(self.own))
        return self.gate is not None and (mean >= self.gate if self.metric == LOWER else mean < self.gate)

    def __str__(self) -> str:
        mean, error = float(np.mean(self.own)), float(np.std(self.own) / len(self.own) ** 0.5)
        gate = "" if self.gate is None else f"{self.gate:.3f}"
        return (
            f"{self.name:16} {self.metric:13} {len(self.own):5} {mean:7.4f} {error:6.4f} {np.mean(self.other):7.4f} "
            f"{gate:>6} {self.seconds / len(self.own):9.1f}  {self.rival}{'  GATE MISSED' if self.missed else ''}"
        )


def of_set(data: QualitySet, quick: bool, preset: str) -> Line:
    own, other = [], []
    began = time.monotonic()
    for train_rows, test_rows in folds(data, quick):
        other.append(theirs(data, train_rows, test_rows))
        own.append(ours(data, train_rows, test_rows, preset, seed=0))
    return Line(data.name, data.metric, own, other, data.rival_name, data.gate, time.monotonic() - began)


def of_chunks(name: str, chunks: Chunks, gate: float | None, quick: bool, preset: str) -> Line:
    """From which package eight lines of code are: files of the test are not in the training."""
    own, other = [], []
    began = time.monotonic()
    for train_rows, test_rows in chunks.folds(quick):

        def write(folder: Path, train_rows: Array = train_rows, test_rows: Array = test_rows) -> None:
            chunks.write(folder / "train.jsonl", train_rows)
            chunks.write(folder / "test.jsonl", test_rows)

        other.append(chunks.rival(train_rows, test_rows))
        config = f"task: text_classification\ndata: {{group: file}}\nmodel: {{preset: {preset}}}\n"
        own.append(trained(write, config, "accuracy"))
    return Line(name, "accuracy", own, other, "LinearSVC, characters", gate, time.monotonic() - began)


def of_sources(name: str, sources: Sources, gated: bool, preset: str, budget: str) -> Line:
    """Bits per byte of source files, against what xz makes of the same ones."""
    began = time.monotonic()
    alone, after = sources.rivals()
    config = f"task: language_model\nmodel: {{preset: {preset}}}\ntrain: {{time_budget: {budget}}}\n"
    own = trained(sources.write, config, LOWER)
    gate = min(XZ_GATE, alone) if gated else None
    goal = "met" if own < after else "not met"
    rival = f"xz; given the training text {after:.4f}: goal {goal}; time budget {budget}"
    return Line(name, LOWER, [own], [alone], rival, gate, time.monotonic() - began)


def measure(lines: Iterable[Callable[[], Line]]) -> bool:
    """Prints one line a set; True when no gate was missed."""
    print(
        f"{'data':16} {'figure':13} {'folds':>5} {'ours':>7} {'± se':>6} {'theirs':>7} {'gate':>6} {'s a fold':>9}",
        end="",
    )
    print("  rival", flush=True)
    passed = True
    for line in lines:
        found = line()
        passed &= not found.missed
        print(found, flush=True)
    return passed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 folds instead of 15")
    parser.add_argument("--development", action="store_true", help="the sets that presets are chosen on")
    parser.add_argument("--preset", default="auto", choices=("auto", "fast", "best"))
    parser.add_argument("--budget", default="15m", metavar="TIME", help="the language model's train.time_budget (15m)")
    parser.add_argument("--rank", action="store_true", help="the rankings alone")
    options(parser)
    given = parser.parse_args(arguments)
    quick, preset = given.quick, given.preset
    kind = development if given.development else gated
    lines = {data.name: partial(of_set, data, quick, preset) for data in kind()}
    if given.development:
        lines["package chunks"] = lambda: of_chunks("package chunks", development_chunks(), None, quick, preset)
        lines["package sources"] = lambda: of_sources(
            "package sources", development_sources(), False, preset, given.budget
        )
    else:
        lines["stdlib chunks"] = lambda: of_chunks("stdlib chunks", standard_library_chunks(), 0.73, quick, preset)
        lines["stdlib bytes"] = lambda: of_sources("stdlib bytes", standard_library(), True, preset, given.budget)
    known = list(lines)
    if not given.development:
        known += dict.fromkeys(name for each in every() for name in (each.name, each.group))
    if unknown := set(given.only) - set(known):
        parser.error(f"no set is named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [] if given.rank else [line for name, line in lines.items() if not given.only or name in given.only]
    passed = measure(chosen) if chosen else True
    if not given.development:
        passed &= ranking(given.only, given.seconds, given.resume)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
