"""Which categories of a column the model knows, from what its training rows hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from trainer_image.data.formats.cells import NULL_WORDS
from trainer_image.data.formats.numbers import MARKERS
from trainer_image.tasks.tabular.columns import ONE_HOT_CATEGORIES, words

MOST_CATEGORIES = 10_000
MOST_COUNTED = 1_000_000
# Words of MAYBE_VALUES and what they are among: countries, states or regions, elements, names; and how many different
# others there have to be.
KINDS = {
    "NA": (re.compile("[A-Z]{2,5}"), 2),
    "na": (re.compile("[a-z]{2}"), 5),
    "Na": (re.compile("[A-Z][a-z]?"), 3),
    **dict.fromkeys(("Null", "Nan"), (re.compile(r"[A-Z][\w'\u2019.-]+( [A-Z][\w'\u2019.-]*)*"), 20)),
}
KIND_SHARE = 0.9
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


def is_value(word: str, counts: Counter[str]) -> bool:
    """Whether a word that elsewhere says that there is no value is one of this column's: among words of its kind only,
    and a few different ones at least. counts: of all words, those that say so among them"""
    if word not in KINDS:
        return False
    kind, least = KINDS[word]
    others = {other: count for other, count in counts.items() if other.lower() not in NULL_WORDS | MARKERS}
    alike = {other: count for other, count in others.items() if kind.fullmatch(other)}
    answers = {other.lower() for other in others}
    return (
        len(alike) >= least
        and sum(alike.values()) >= KIND_SHARE * sum(others.values())
        and not any(answers <= pair for pair in BOOLEANS)
    )


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
    said = alike.keys() - MARKERS - NULL_WORDS
    return alike if said and any(said <= pair for pair in BOOLEANS) else None
