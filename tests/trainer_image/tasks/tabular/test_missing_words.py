"""Words that say that there is no value, and the columns in which they are values."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.world.training_data import write_csv
from trainer_image.data.rows.hashes import of_table
from trainer_image.data.spill import Scratch
from trainer_image.data.table import read_table
from trainer_image.limits import Limits
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.tabular.task import TabularProblem

NAMES = [
    f"{first}{last}"
    for first in ("Mc", "O'", "Van ")
    for last in ("Brien", "Adams", "Dyke", "Gogh", "Hall", "Lee", "Roy")
]
KINDS = {
    "countries": ("NA", ["DE", "FR", "US", "GB", "ZA"], True),
    "regions": ("NA", ["EMEA", "APAC"], True),
    "small codes": ("na", ["de", "fr", "us", "gb", "za"], True),
    "elements": ("Na", ["K", "Cl", "Ca", "H"], True),
    "names": ("Null", NAMES, True),
    "grades": ("NA", ["good", "fair", "bad"], False),
    "answers": ("NA", ["YES", "NO"], False),
    "two codes of small letters": ("na", ["de", "fr"], False),
    "numbers": ("NA", ["1", "2", "3.5"], False),
    "null of a program": ("null", ["DE", "FR", "US"], False),
    "NaN of a program": ("NaN", ["DE", "FR", "US"], False),
    "few names": ("Null", NAMES[:4], False),
}  # fmt: skip


def cells(word: str, others: list[str]) -> list[tuple[str, int, str]]:
    """(word, x, y): each of the words again and again, and no word"""
    found = [*others, word, ""] * (120 // (len(others) + 2) + 1)
    return [(cell, n, ("no", "yes")[n % 2]) for n, cell in enumerate(found)]


def save(path: Path, rows: list[tuple[str, int, str]]) -> None:
    if path.suffix == ".csv":
        write_csv(path, ["word", "x", "y"], rows)
    else:
        pq.write_table(pa.table(dict(zip(["word", "x", "y"], map(list, zip(*rows, strict=True)), strict=True))), path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("word", "others", "value"), [*KINDS.values()], ids=list(KINDS))
def test_a_word_for_no_value_is_one_only_among_words_of_its_kind_in_every_format(
    word: str, others: list[str], value: bool, kind: str, tmp_path: Path
) -> None:
    save(tmp_path / f"train.{kind}", cells(word, others))
    made = TabularProblem(tmp_path, TaskSettings(target="y"))
    said = f"Column 'word' holds '{word}' in "
    assert any(note.startswith(said) for note in made.notes) is value
    known = [category for column in made.predictor.preprocessing.categories for category in column.categories]
    assert (word in known) is value


def test_a_table_in_a_file_says_the_same_and_a_row_keeps_its_hash(tmp_path: Path) -> None:
    rows = cells("NA", ["DE", "FR"])
    save(tmp_path / "train.csv", rows)
    files = [("train.csv", tmp_path / "train.csv")]
    within = read_table(files, Limits(), Scratch(tmp_path))
    beyond = read_table(files, Limits(), Scratch(tmp_path, 0))
    for written in (False, True):
        found = [next(each.cells("word", written=written))[1].to_pylist()[:4] for each in (within, beyond)]
        assert found == [["DE", "FR", "NA" if written else None, None]] * 2
    assert (of_table(within, ["word", "y"]) == of_table(beyond, ["word", "y"])).all()
    save(tmp_path / "train.csv", [(word.replace("NA", ""), *rest) for word, *rest in rows])
    assert (of_table(within, ["word", "y"]) == of_table(read_table(files, Limits()), ["word", "y"])).all()


def test_a_row_whose_class_may_be_such_a_word_is_left_out_and_the_word_is_told(tmp_path: Path) -> None:
    save(tmp_path / "train.csv", cells("NA", ["DE", "FR"]))
    made = TabularProblem(tmp_path, TaskSettings(target="word"))
    assert any("row 4 of train.csv, which holds 'NA': should that be a class, write" in note for note in made.notes)
