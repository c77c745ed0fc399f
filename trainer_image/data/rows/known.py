"""What a run knew of its rows, beside its model: which it was trained on, and which it was tested on.

`rows.safetensors` holds hashes of the rows' content, sorted: "trained", with those of the validation split, which chose
among the models, and of all runs before from whose weights this one began; and "tested". At most MOST of them are kept,
32 MiB: of more rows only those whose hash is below `below`. The others are unknown for good, and nobody may take an
unknown row for a new one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from trainer_image.data.rows.hashes import Hashes

NAME = "rows.safetensors"
MOST = 4_000_000
_ALL = 2**64
_BYTES = 8 * MOST + 1024**2


@dataclass(frozen=True, eq=False)
class Known:
    """content: what was hashed: a table's columns, or one word for texts, images and the like; trained, tested: sorted
    and different; below: hashes from here on were not kept"""

    content: tuple[str, ...]
    trained: Hashes
    tested: Hashes
    below: int = _ALL

    def had(self, hashes: Hashes) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of these rows were tested on, as far as is known: bool (rows,)."""
        return np.isin(hashes, self.tested)


def seen(hashes: Hashes, known: Known) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of these rows were trained on, or may have been: bool (rows,). The hashes are of `known.content`."""
    beyond = np.zeros(len(hashes), bool) if known.below >= _ALL else hashes >= np.uint64(known.below)
    return np.isin(hashes, known.trained) | beyond


def known(content: Sequence[str], trained: Hashes, tested: Hashes, earlier: Known | None = None) -> Known:
    """Of this run's rows; what it began with knew those of `earlier`, if that was of the same content."""
    below = _ALL
    if earlier is not None and earlier.content == tuple(content):
        trained, tested = np.union1d(trained, earlier.trained), np.union1d(tested, earlier.tested)
        below = earlier.below
    trained = np.unique(trained)
    tested = np.setdiff1d(tested, trained)
    found = np.sort(np.concatenate([trained, tested]))
    if len(found) > MOST:
        below = min(below, int(found[MOST]))
    if below < _ALL:
        trained, tested = (part[part < np.uint64(below)] for part in (trained, tested))
    return Known(tuple(content), trained, tested, below)


def write(folder: Path, rows: Known) -> None:
    """Beside the model in the folder."""
    said = {"format": "1", "content": json.dumps(rows.content), "below": str(rows.below)}
    save_file({"trained": rows.trained, "tested": rows.tested}, folder / NAME, said)


def read(folder: Path) -> Known | None:
    """What the run of the model in this folder knew; None where that is not told, or by a file that is none of ours."""
    path = folder / NAME
    try:
        if path.stat().st_size > _BYTES:
            return None
        with safe_open(path, "np") as file:
            said = file.metadata() or {}
            content, below = json.loads(said["content"]), int(said["below"])
            parts = [file.get_tensor(name) for name in ("trained", "tested")]
        sound = said["format"] == "1" and isinstance(content, list) and all(isinstance(name, str) for name in content)
        if not sound or not 0 <= below <= _ALL or any(part.dtype != np.uint64 or part.ndim != 1 for part in parts):
            return None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        return None
    trained, tested = map(np.unique, parts)
    return Known(tuple(content), trained, tested, below)
