"""Which categories of a column the model knows, from what its training rows hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.formats.numbers import MARKERS
from trainer_image.tasks.tabular.columns import ONE_HOT_CATEGORIES, words

MOST_CATEGORIES = 10_000
MOST_COUNTED = 1_000_000
BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})


def counted(parts: Iterable[pa.Array]) -> tuple[Counter[str], int]:
    """(rows of each category, the number of categories). Of very many, the first lacks those seen once."""
    counts: Counter[str] = Counter()
    dropped = 0
    for cells in parts:
        known = words(cells, folded=False).drop_null()
        for entry in pc.value_counts(known).to_pylist():
            counts[entry["values"]] += entry["counts"]
        if len(counts) > MOST_COUNTED:
            frequent = Counter({word: count for word, count in counts.items() if count > 1})
            dropped += len(counts) - len(frequent)
            counts = frequent
    return counts, len(counts) + dropped


def kept(counts: Counter[str]) -> tuple[str, ...]:
    """The categories that the model knows, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = [word for word, _ in ordered[:MOST_CATEGORIES]]
    if len(ordered) > ONE_HOT_CATEGORIES:
        # What was seen once has nothing to be learnt from; together such rows teach what an unknown one means.
        often = [word for word, count in ordered[:MOST_CATEGORIES] if count > 1]
        found = often if len(often) > ONE_HOT_CATEGORIES else found
    return tuple(found)


def folded(counts: Counter[str]) -> Counter[str] | None:
    """Counts without regard to case when these are words for yes and no, else None."""
    if len(counts) > 2 * ONE_HOT_CATEGORIES:
        return None
    alike: Counter[str] = Counter()
    for word, count in counts.items():
        alike[word.lower()] += count
    said = alike.keys() - MARKERS
    return alike if said and any(said <= pair for pair in BOOLEANS) else None
