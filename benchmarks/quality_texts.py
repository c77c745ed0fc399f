"""Texts for the quality table: the Python standard library's own sources; to develop on, those of installed packages.

Code that ships with every Python, in files that differ a little between its versions: the rivals' figures are computed
on the very same text.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from benchmarks.quality_sets import Array

PACKAGES, LINES, LEAST_FILES = 20, 8, 3
MOST_CHUNKS, MOST_DEVELOPED_ON = 600, 400
# Tests, what is generated, and what newer versions lack: they would be most of the text, or most of its repetitions.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
GENERATED = {"encodings", "pydoc_data", "idlelib", "lib2to3", "turtledemo", "distutils"}
DEVELOPED_ON = (
    *("networkx", "rich", "click", "jinja2", "aiohttp", "packaging", "urllib3", "joblib", "requests", "yaml", "attr"),
    *("hypothesis", "mypy", "pydantic", "jsonschema", "oauthlib", "idna", "markdown_it", "cffi", "websocket"),
)
DEVELOPED_ON_WHOLE = ("networkx", "rich", "click", "jinja2", "aiohttp", "packaging", "urllib3")


@dataclass(frozen=True)
class Chunks:
    """Pieces of source text, the package that each is of, and its file: all of equal length."""

    texts: list[str]
    packages: Array
    files: Array

    def folds(self, quick: bool) -> list[tuple[Array, Array]]:
        """(training rows, test rows) of 5 folds; no file is in both."""
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        return list(splitter.split(self.texts, self.packages, self.files))[: 2 if quick else None]

    def write(self, path: Path, rows: Array) -> None:
        """The rows as JSON Lines with text, label and file."""
        records = ({"text": self.texts[r], "label": str(self.packages[r]), "file": str(self.files[r])} for r in rows)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")

    def rival(self, train: Array, test: Array) -> float:
        """The accuracy of a linear support vector machine on character n-grams."""
        model = make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(1, 5), min_df=2, sublinear_tf=True), LinearSVC()
        )
        model.fit([self.texts[r] for r in train], self.packages[train])
        return float(accuracy_score(self.packages[test], model.predict([self.texts[r] for r in test])))


@dataclass(frozen=True)
class Sources:
    """Whole files: to train on, to choose weights by, and to test on, disjoint."""

    train: list[Path]
    validation: list[Path]
    test: list[Path]

    def write(self, folder: Path) -> None:
        """One text file for each, in a folder for each split."""
        for split, files in vars(self).items():
            (folder / split).mkdir(parents=True)
            for number, file in enumerate(files):
                (folder / split / f"{number:05}-{file.name}.txt").write_bytes(file.read_bytes())

    def rivals(self) -> tuple[float, float]:
        """Bits per byte of the test text by xz: alone, and after the training and validation text."""
        test, before = _joined(self.test), _joined(self.train) + _joined(self.validation)
        alone = _compressed(test)
        return 8 * alone / len(test), 8 * (_compressed(before + test) - _compressed(before)) / len(test)


def standard_library_chunks() -> Chunks:
    """The 20 packages with the most chunks, at least three files each; of each at most 600 chunks.

    The gate was set where the rival's accuracy was 0.7245. How many chunks of a package count was not written down
    with it, so it was chosen by the rival's figure alone, over the five folds on Python 3.11: at most 300 of a package
    0.693, at most 400 0.705, at most 600 0.723, all of them 0.806 (four packages are then half of the text). Of at most
    400: without generated packages 0.674, with blank lines kept 0.693. The standard error over folds is 0.02.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, list[tuple[str, str]]] = {}
    for path in _python_files(root, LEFT_OUT):
        inside = path.relative_to(root)
        if len(inside.parts) > 1:
            found.setdefault(inside.parts[0], []).extend((chunk, inside.as_posix()) for chunk in _chunks(path))
    enough = {name: chunks for name, chunks in found.items() if len({file for _, file in chunks}) >= LEAST_FILES}
    largest = sorted(enough, key=lambda n: (-len(enough[n]), n))[:PACKAGES]
    return _sampled({name: enough[name] for name in largest}, MOST_CHUNKS)


def development_chunks() -> Chunks:
    """The same of installed packages, of each at most 400 chunks."""
    root = Path(sysconfig.get_path("purelib"))
    return _sampled(
        {
            name: [
                (chunk, path.relative_to(root).as_posix())
                for path in _python_files(root / name, {"__pycache__"})
                for chunk in _chunks(path)
            ]
            for name in DEVELOPED_ON
        },
        MOST_DEVELOPED_ON,
    )


def standard_library() -> Sources:
    """All modules but tests and generated ones; a tenth of the files is the test, a twentieth the validation."""
    root = Path(sysconfig.get_path("stdlib"))
    return _divided(root, _python_files(root, LEFT_OUT | GENERATED))


def development_sources() -> Sources:
    """The same of installed packages."""
    root = Path(sysconfig.get_path("purelib"))
    return _divided(root, [path for name in DEVELOPED_ON_WHOLE for path in _python_files(root / name, {"__pycache__"})])


def _python_files(folder: Path, left_out: set[str]) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if not left_out & set(path.relative_to(folder).parts)]


def _chunks(path: Path) -> list[str]:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return ["\n".join(lines[at : at + LINES]) for at in range(0, len(lines) - LINES + 1, LINES)]


def _sampled(packages: dict[str, list[tuple[str, str]]], most: int) -> Chunks:
    rows: list[tuple[str, str, str]] = []
    for name in sorted(packages):
        chunks = packages[name]
        chosen = np.sort(np.random.default_rng(0).permutation(len(chunks))[:most])
        rows += [(chunks[number][0], name, chunks[number][1]) for number in chosen]
    texts, names, files = zip(*rows, strict=True)
    return Chunks(list(texts), np.array(names), np.array(files))


def _divided(root: Path, files: Sequence[Path]) -> Sources:
    parts = Sources([], [], [])
    for path in files:
        drawn = int(hashlib.sha256(path.relative_to(root).as_posix().encode()).hexdigest(), 16) % 100
        part = parts.test if drawn < 10 else parts.validation if drawn < 15 else parts.train
        if path.stat().st_size:
            part.append(path)
    return parts


def _joined(files: Sequence[Path]) -> bytes:
    return b"".join(path.read_bytes() for path in files)


def _compressed(content: bytes) -> int:
    """Bytes that xz makes of it at its strongest, with a dictionary as large as the content."""
    size = max(2**16, 2 ** math.ceil(math.log2(len(content) + 1)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}]
    return len(lzma.compress(content, lzma.FORMAT_XZ, filters=filters))
