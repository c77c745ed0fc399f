"""What a format is, and how bytes of it are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.mutations import damaged, lying
from trainer_image.errors import ConfigInvalid, DatasetInvalid, LimitExceeded, TrainerError, UsageError
from trainer_image.limits import Limits

LIMITS = Limits(dataset_bytes=64 * 1024**2, dataset_files=1000, table_columns=200, field_bytes=64 * 1024)
OF_DATA = (DatasetInvalid, LimitExceeded)
OF_MODELS = (UsageError, ConfigInvalid)

Damage = Callable[[bytes, Sequence[bytes], Random], bytes]


@dataclass(frozen=True)
class Format:
    """read: (folder, damaged bytes); named: what the sentence of an error has to contain; rows: the same for errors of
    the dataset, where that is not what is damaged"""

    samples: Callable[[], Sequence[bytes]]
    damage: Damage
    read: Callable[[Path, bytes], object]
    errors: tuple[type[TrainerError], ...] = OF_DATA
    named: str = ""
    rows: str = ""


def binary(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    return damaged(content, samples, random, text=False)


def text(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    return damaged(content, samples, random, text=random.random() < 0.7)


def json_text(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    if random.random() < 0.2:
        return text(content, samples, random)
    return lying(json.loads(content), random).encode("utf-8", "surrogatepass")


def lines(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    """JSON Lines: some of them lying."""
    if random.random() < 0.5:
        return text(content, samples, random)
    lines = content.splitlines()
    lines[random.randrange(len(lines))] = lying(json.loads(random.choice(lines)), random).encode()
    return b"\n".join(lines) + b"\n"
