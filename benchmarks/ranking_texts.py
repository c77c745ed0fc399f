"""Ours among plain rivals on texts: three sets to classify and a text to learn from, all shipped with Python packages.

python -m benchmarks.ranking_texts                     each once; ours has 60 seconds for each (`--seconds`)
python -m benchmarks.ranking_texts --only "code lines" one set

Presets and candidates are chosen on other texts (`benchmarks.quality --development`). Exits 1 where ours is not first
in mean rank, or where a rival that takes at most three seconds is better in 97.5 % of resamples of the test rows.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import pydoc_data.topics
import sysconfig
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

from benchmarks.quality_texts import Sources
from benchmarks.trained import trained
from trainer_image.predict import predict
from trainer_image.tasks.language import kneser_ney
from trainer_image.tasks.language.windows import MARK, VOCABULARY

Array = np.ndarray[Any, Any]
OURS = "ours"
QUICK_SECONDS, RESAMPLES = 3.0, 500
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


@dataclass(frozen=True)
class Found:
    """What one model made of the test: right or wrong of each text, or bits of each byte; and in how many seconds."""

    name: str
    each: Array
    seconds: float
    more: str = ""


def drawn(key: str) -> float:
    """From 0 to 1, always the same for the same key."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 16**8


def labelled(rows: Iterator[tuple[str, str, str]]) -> Labelled:
    """rows: text, class, source. At most so many of a class, drawn, and no smaller classes; no text twice."""
    unique = {text: (label, source) for text, label, source in rows}
    of: dict[str, list[tuple[float, str, str]]] = {}
    for text, (label, source) in unique.items():
        of.setdefault(label, []).append((drawn(text), text, source))
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


def timed(name: str, run: Callable[[], Found]) -> Found:
    began = time.monotonic()
    return replace(run(), name=name, seconds=time.monotonic() - began)


def our_classes(given: Labelled, seconds: float) -> Found:
    with tempfile.TemporaryDirectory(prefix="ranking-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        for split, which in (("train", ~given.test), ("test", given.test)):
            rows = ({"text": given.texts[row], "label": str(given.labels[row])} for row in np.flatnonzero(which))
            (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        out = trained(data, f"task: text_classification\ntrain: {{time_budget: {seconds:g}s, metric: accuracy}}\n")
        found = predict(out, data / "test.jsonl", None)
    answers = np.array([row["label"] for row in found["predictions"]])
    return Found(OURS, answers == given.labels[given.test], 0.0, f"log loss {found['metrics']['log_loss']:.3f}")


def their_classes(given: Labelled, model: Any) -> Found:
    texts = np.array(given.texts, object)
    model.fit(texts[~given.test], given.labels[~given.test])
    return Found("", model.predict(texts[given.test]) == given.labels[given.test], 0.0)


def classes(given: Labelled, seconds: float) -> list[Found]:
    characters = partial(TfidfVectorizer, analyzer="char_wb", sublinear_tf=True)
    both = make_union(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), characters(ngram_range=(2, 5)))
    return [
        timed(OURS, lambda: our_classes(given, seconds)),
        timed(
            "words and characters, LogisticRegression",
            lambda: their_classes(given, make_pipeline(both, LogisticRegression(C=10, max_iter=300))),
        ),
        timed(
            "characters, LinearSVC",
            lambda: their_classes(given, make_pipeline(characters(ngram_range=(1, 5)), LinearSVC())),
        ),
    ]


def language(parts: tuple[list[bytes], list[bytes]], seconds: float) -> list[Found]:
    """Figures are minus bits for each document's bytes, so that more is better."""
    seen, asked = parts
    sizes = np.array([len(text) for text in asked])

    def ours() -> Found:
        with tempfile.TemporaryDirectory(prefix="ranking-") as folder:
            data = Path(folder) / "data"
            for split, texts in (("train", seen), ("test", asked)):
                (data / split).mkdir(parents=True)
                for number, text in enumerate(texts):
                    (data / split / f"{number:04}.txt").write_bytes(text)
            out = trained(data, f"task: language_model\ntrain: {{time_budget: {seconds:g}s}}\n")
            rows = predict(out, data / "test", None)["predictions"]
        return Found("", np.repeat([-float(row["bits_per_byte"]) for row in rows], sizes), 0.0)

    def kneser() -> Found:
        text = kneser_ney.Text(asked)
        chance = np.full(len(text.following), 1 / VOCABULARY)
        for order in kneser_ney.counted(seen, None, 6, lambda: True):
            chance = kneser_ney.refined(order, text.pairs(), chance)
            text.longer()
        return Found("", np.log2(chance[text.following != MARK]), 0.0)

    def xz() -> Found:
        with tempfile.TemporaryDirectory(prefix="ranking-") as folder:
            files: list[list[Path]] = [[], []]
            for number, text in enumerate([*seen, *asked]):
                path = Path(folder) / f"{number:04}"
                path.write_bytes(text)
                files[number >= len(seen)].append(path)
            return Found("", np.full(int(sizes.sum()), -Sources(files[0], [], files[1]).rivals()[1]), 0.0)

    return [timed(OURS, ours), timed("Kneser-Ney of order 7", kneser), timed("xz, given the training text", xz)]


def beaten(found: Sequence[Found]) -> list[str]:
    """Rivals of a few seconds that are better than ours beyond chance; bytes are resampled by pieces of 1000."""
    random = np.random.default_rng(0)
    names = []
    for rival in found[1:]:
        ahead = rival.each.astype(float) - found[0].each.astype(float)
        if len(ahead) > 20_000:
            ahead = np.array([part.mean() for part in np.array_split(ahead, math.ceil(len(ahead) / 1000))])
        drawn_rows = random.integers(0, len(ahead), (RESAMPLES, len(ahead)))
        if rival.seconds <= QUICK_SECONDS and (ahead[drawn_rows].mean(1) > 0).mean() >= 0.975:
            names.append(rival.name)
    return names


def rank(sets: dict[str, Callable[[float], list[Found]]], seconds: float) -> bool:
    """Prints a line a model and what comes of them; True where ours is first in mean rank and never beaten."""
    places: dict[str, list[float]] = {}
    never = True
    for name, run in sets.items():
        found = run(seconds)
        figures = np.array([float(each.each.mean()) for each in found])
        for each, figure in zip(found, figures, strict=True):
            places.setdefault(OURS if each.name == OURS else "best rival", [])
            print(f"{name:16} {abs(figure):7.4f}  {each.seconds:6.1f} s  {each.name}  {each.more}", flush=True)
        places[OURS].append(1 + float((figures[1:] > figures[0]).sum()))
        places["best rival"].append(float(1 + (figures[0] >= figures[1:].max())))
        if names := beaten(found):
            never = False
            print(f"{name:16} BEATEN BEYOND CHANCE by {', '.join(names)}")
    means = {name: float(np.mean(ranks)) for name, ranks in places.items()}
    wins = sum(place == 1 for place in places[OURS])
    print(f"{wins} of {len(sets)} won; mean rank: ours {means[OURS]:.2f}, best rival {means['best rival']:.2f}")
    return never and means[OURS] <= means["best rival"]


def sets() -> dict[str, Callable[[float], list[Found]]]:
    """What texts are ranked on."""
    return {
        "code lines": lambda seconds: classes(labelled(code_lines()), seconds),
        "docstrings": lambda seconds: classes(labelled(docstrings()), seconds),
        "character names": lambda seconds: classes(labelled(character_names()), seconds),
        "documentation": lambda seconds: language(documentation(), seconds),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="time budget of ours for each set (60)")
    parser.add_argument("--only", action="append", default=[], choices=tuple(sets()), help="only this set")
    options = parser.parse_args(arguments)
    return (
        0
        if rank({n: run for n, run in sets().items() if n in options.only or not options.only}, options.seconds)
        else 1
    )


if __name__ == "__main__":
    raise SystemExit(main())
