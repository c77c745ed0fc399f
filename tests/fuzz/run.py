"""Fuzzing, in a process of its own that may die of it."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TextIO

from tests.fuzz.damage import OF_DATA, Format
from tests.fuzz.formats import FORMATS
from tests.world.repository import ROOT
from trainer_image.errors import MOST_CHARACTERS, TrainerError
from trainer_image.host import memory
from training_common.text import one_line

# Each file is a few kilobytes.
MOST_SECONDS = 20
# A split may have many files.
OF_A_SPLIT = re.compile(r"Invalid dataset: \d+ rows are too few")
MOST_BYTES = 1536 * 1024**2
SAME = 3


@dataclass
class Done:
    """What became of the damaged files of a format; of findings of a kind, the first few."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    _kinds: Counter[str] = field(default_factory=Counter)

    def add(self, said: dict[str, Any]) -> None:
        self.counts[said["outcome"]] += 1
        if "finding" in said:
            self._kinds[said["kind"]] += 1
            if self._kinds[said["kind"]] <= SAME:
                repeat = ["-m", "tests.fuzz", said["format"], "--seed", str(said["seed"]), "--runs", "1"]
                self.findings.append(f"{said['finding']}\n    .venv/bin/python {shlex.join(repeat)}")

    @property
    def summary(self) -> str:
        counted = ", ".join(f"{count} {what}" for what, count in self.counts.most_common())
        return f"{self.counts.total()} tried: {counted}"


def fuzz(names: Sequence[str], seed: int, runs: int | None, seconds: float) -> dict[str, Done]:
    """Tries files of each format from this seed on: so many, or for so many seconds. Goes on behind one that the
    process dies of, and leaves a format that it dies of again and again."""
    done = {name: Done() for name in names}
    todo, first = list(names), seed
    while todo:
        command = [sys.executable, "-m", "tests.fuzz", "--here", "--seed", str(seed), "--first", str(first), *todo]
        command += ["--seconds", str(seconds)] if runs is None else ["--runs", str(runs)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        begun: dict[str, Any] = {}
        for line in ended.stdout.decode().splitlines():
            begun = json.loads(line)
            if "outcome" in begun:
                done[begun["format"]].add(begun)
        if ended.returncode == 0:
            break
        said = ended.stderr.decode()[-2000:]
        if not begun or "outcome" in begun:
            raise RuntimeError(f"{shlex.join(command)}: {said}")
        how = signal.Signals(-ended.returncode).name if ended.returncode < 0 else f"exit code {ended.returncode}"
        name = begun["format"]
        done[name].add(begun | {"outcome": "died", "finding": f"the process dies ({how}): {said[-300:]}", "kind": how})
        todo, first = todo[todo.index(name) :], begun["seed"] + 1
        if done[name].counts["died"] >= SAME or (runs is not None and first >= seed + runs):
            todo, first = todo[1:], seed
    return done


def trials(names: Sequence[str], seed: int, first: int, runs: int | None, seconds: float) -> None:
    """In the process that may die. A line of JSON before each file, and one with what became of it. first: seed of the
    first format's first file"""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        for number, name in enumerate(names):
            _tried(
                name,
                Path(place),
                first if number == 0 else seed,
                seed + runs if runs is not None else None,
                seconds,
                out,
            )
    out.flush()
    os._exit(0)


def _tried(name: str, place: Path, seed: int, end: int | None, seconds: float, out: TextIO) -> None:
    form = FORMATS[name]
    samples = form.samples()
    form.read(_empty(place, name), samples[0])  # so that all modules are imported
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory.in_use() + MOST_BYTES, hard))
    until = time.monotonic() + seconds
    while seed < end if end is not None else time.monotonic() < until:
        print(json.dumps({"format": name, "seed": seed}), file=out)
        random = Random(seed)
        content = form.damage(random.choice(samples), samples, random)
        folder = _empty(place, str(seed))
        signal.alarm(MOST_SECONDS)
        said = _trial(form, folder, content)
        signal.alarm(0)
        shutil.rmtree(folder)
        print(json.dumps({"format": name, "seed": seed, **said}), file=out)
        seed += 1


def _empty(place: Path, name: str) -> Path:
    folder = place / name
    folder.mkdir()
    return folder


class _TooSlow(BaseException):
    pass


def _too_slow(*_: object) -> None:
    raise _TooSlow


def _trial(form: Format, folder: Path, content: bytes) -> dict[str, str]:
    try:
        form.read(folder, content)
    except form.errors as error:
        return {
            "outcome": error.code,
            **_wrong(error, form.rows if form.rows and isinstance(error, OF_DATA) else form.named),
        }
    except (Exception, _TooSlow) as error:
        where = "".join(traceback.format_exception(error)[-3:])
        said = getattr(error, "sentence", "")
        why = f"{type(error).__name__}: {said}\n{where}" if said else where
        return {"outcome": "finding", "finding": why, "kind": where.split(", in ")[-1][:80] + type(error).__name__}
    return {"outcome": "read"}


def _wrong(error: TrainerError, named: str) -> dict[str, str]:
    sentence = error.sentence
    why = None
    if named not in sentence and not OF_A_SPLIT.match(sentence):
        why = f"names no {named}"
    elif one_line(sentence) != " ".join(sentence.split()):
        why = "is no line of printable text"
    elif len(sentence) > MOST_CHARACTERS:
        why = f"has {len(sentence)} characters"
    return {} if why is None else {"finding": f"{why}: {sentence[:500]!r}", "kind": why}
