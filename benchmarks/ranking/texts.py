"""Ours among plain rivals on texts: three sets to classify and a text to learn from, all shipped with Python packages.

Presets and candidates are chosen on other texts (`benchmarks.quality --development`).
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import pydoc_data.topics
import sysconfig
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

from benchmarks.quality_texts import Sources
from benchmarks.ranking.places import OURS, Lacking, Placed, Ranked, judged, timed
from benchmarks.ranking.trained import trained
from trainer_image.predict import predict
from trainer_image.tasks.language import kneser_ney
from trainer_image.tasks.language.windows import MARK

Array = np.ndarray[Any, Any]
CLASSES, LANGUAGE = "texts, accuracy", "language, bits"
# Bytes that are drawn together where it is asked what is chance.
PIECE = 1000
MOST_OF_A_CLASS, LEAST_OF_A_CLASS = 600, 20
SUFFIXES = (".py", ".js", ".h", ".pyx", ".md", ".json")
PACKAGES = ("numpy", "scipy", "sklearn", "networkx", "sympy", "torch", "kubernetes", "hypothesis")
# Of characters that have a name of their own: others are numbered.
NUMBERED = ("CJK", "HANGUL SYLLABLE", "TANGUT", "EGYPTIAN", "CUNEIFORM", "KHITAN", "NUSHU", "ANATOLIAN", "YI SYLLABLE")


@dataclass(frozen=True)
class Labelled:
    """Texts and classes, and which of them are the test: those of a quarter of the sources."""

    texts: list[str]
    labels: Array
    test: Array


def drawn(key: str) -> float:
    """From 0 to 1, always the same for the same key."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 16**8


def labelled(rows: Iterator[tuple[str, str, str]], wanted: Sequence[str] = ()) -> Labelled:
    """rows: text, class, source. At most so many of a class, drawn, and no smaller classes; no text twice.

    Raises Lacking where one of the `wanted` classes has too few texts.
    """
    unique = {text: (label, source) for text, label, source in rows}
    of: dict[str, list[tuple[float, str, str]]] = {}
    for text, (label, source) in unique.items():
        of.setdefault(label, []).append((drawn(text), text, source))
    if few := [label for label in wanted if len(of.get(label, [])) < LEAST_OF_A_CLASS]:
        raise Lacking(
            f"{LEAST_OF_A_CLASS} texts of a class are needed, and installed packages have fewer of {', '.join(few)};"
            " requirements/quality.txt and develop.txt bring them"
        )
    chosen = [
        (text, label, source)
        for label in sorted(of)
        if len(of[label]) >= LEAST_OF_A_CLASS
        for _, text, source in sorted(of[label])[:MOST_OF_A_CLASS]
    ]
    texts, labels, sources = zip(*chosen, strict=True)
    return Labelled(list(texts), np.array(labels), np.array([drawn(f"test {source}") < 0.25 for source in sources]))


def code_lines() -> Iterator[tuple[str, str, str]]:
    """Lines of installed files, and the language they are written in."""
    root = Path(sysconfig.get_path("purelib"))
    for suffix in SUFFIXES:
        files = sorted(path for path in root.rglob(f"*{suffix}") if path.stat().st_size > 2000)
        for path in sorted(files, key=lambda path: drawn(path.name))[:120]:
            lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[:2000]]
            for line in sorted((line for line in lines if 20 <= len(line) <= 200), key=drawn)[:8]:
                yield line, suffix, str(path)


def docstrings() -> Iterator[tuple[str, str, str]]:
    """First paragraphs of docstrings, and the package that they are of."""
    root = Path(sysconfig.get_path("purelib"))
    for package in PACKAGES:
        for path in sorted(root.joinpath(package).rglob("*.py"), key=lambda path: drawn(path.as_posix()))[:120]:
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
                    paragraph = " ".join(text.split("\n\n")[0].split())
                    if len(paragraph) >= 20:
                        yield paragraph[:400], package, path.relative_to(root).as_posix()


def character_names() -> Iterator[tuple[str, str, str]]:
    """Names of Unicode's characters, and their general category."""
    for number in range(0x110000):
        name = unicodedata.name(chr(number), "")
        if name and not name.startswith(NUMBERED):
            yield name, unicodedata.category(chr(number)), name


def documentation() -> tuple[list[bytes], list[bytes]]:
    """(to train on, to test on): the topics of Python's own help."""
    topics = pydoc_data.topics.topics
    parts: tuple[list[bytes], list[bytes]] = [], []
    for name in sorted(topics):
        parts[drawn(name) < 0.25].append(topics[name].encode())
    return parts


def _our_classes(given: Labelled, seconds: float) -> Array:
    with tempfile.TemporaryDirectory(prefix="ranking-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        for split, which in (("train", ~given.test), ("test", given.test)):
            rows = ({"text": given.texts[row], "label": str(given.labels[row])} for row in np.flatnonzero(which))
            (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        out = trained(data, f"task: text_classification\ntrain: {{time_budget: {seconds:g}s, metric: accuracy}}\n")
        return np.array([row["label"] for row in predict(out, data / "test.jsonl", None)["predictions"]])


def _their_classes(given: Labelled, model: Any) -> Array:
    texts = np.array(given.texts, object)
    model.fit(texts[~given.test], given.labels[~given.test])
    return np.asarray(model.predict(texts[given.test]))


def _classes(
    name: str, rows: Callable[[], Iterator[tuple[str, str, str]]], wanted: Sequence[str], seconds: float, _: int
) -> Placed:
    """The share of the test's texts whose class each model says. wanted: classes that have to be there"""
    given = labelled(rows(), wanted)
    characters = partial(TfidfVectorizer, analyzer="char_wb", sublinear_tf=True)
    both = make_union(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), characters(ngram_range=(2, 5)))
    regression = make_pipeline(both, LogisticRegression(C=10, max_iter=300))
    vectors = make_pipeline(characters(ngram_range=(1, 5)), LinearSVC())
    outputs, took = timed(
        {
            OURS: lambda: _our_classes(given, seconds),
            "words and characters, LogisticRegression": lambda: _their_classes(given, regression),
            "characters, LinearSVC": lambda: _their_classes(given, vectors),
        }
    )
    return judged(name, CLASSES, outputs, took, given.labels[given.test], lambda y, found: float((y == found).mean()))


def _language(name: str, texts: Callable[[], tuple[list[bytes], list[bytes]]], seconds: float, _: int) -> Placed:
    """Minus the bits that each model needs for a byte of the test; drawn anew are pieces of some thousand bytes."""
    seen, asked = texts()
    sizes = np.array([len(text) for text in asked])

    def ours() -> Array:
        with tempfile.TemporaryDirectory(prefix="ranking-") as folder:
            data = Path(folder) / "data"
            for split, parts in (("train", seen), ("test", asked)):
                (data / split).mkdir(parents=True)
                for number, text in enumerate(parts):
                    (data / split / f"{number:04}.txt").write_bytes(text)
            out = trained(data, f"task: language_model\ntrain: {{time_budget: {seconds:g}s}}\n")
            rows = predict(out, data / "test", None)["predictions"]
        return np.repeat([-float(row["bits_per_byte"]) for row in rows], sizes)

    def kneser() -> Array:
        following, chance = kneser_ney.chances(kneser_ney.counted(seen, None, 6, lambda: True), asked)
        return np.asarray(np.log2(chance[following != MARK]))

    def xz() -> Array:
        with tempfile.TemporaryDirectory(prefix="ranking-") as folder:
            files: list[list[Path]] = [[], []]
            for number, text in enumerate([*seen, *asked]):
                path = Path(folder) / f"{number:04}"
                path.write_bytes(text)
                files[number >= len(seen)].append(path)
            return np.full(int(sizes.sum()), -Sources(files[0], [], files[1]).rivals()[1])

    outputs, took = timed({OURS: ours, "Kneser-Ney of order 7": kneser, "xz, given the training text": xz})
    pieces = math.ceil(sizes.sum() / PIECE)
    bits = {model: np.array([part.mean() for part in np.array_split(each, pieces)]) for model, each in outputs.items()}
    return judged(name, LANGUAGE, bits, took, np.arange(pieces), lambda _, found: float(found.mean()))


def ranked() -> list[Ranked]:
    """What texts are ranked on."""
    return [
        Ranked("code lines", CLASSES, partial(_classes, "code lines", code_lines, SUFFIXES)),
        Ranked("docstrings", CLASSES, partial(_classes, "docstrings", docstrings, PACKAGES)),
        Ranked("character names", CLASSES, partial(_classes, "character names", character_names, ())),
        Ranked("documentation", LANGUAGE, partial(_language, "documentation", documentation)),
    ]
