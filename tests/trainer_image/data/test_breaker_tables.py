"""Tables as users have them: more columns than a sample holds, few rows, numbers too large to compute with."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.world.training_data import TABULAR, run_inputs, write_csv
from trainer_image.data import cells
from trainer_image.data import table as tables
from trainer_image.data.splits import assign
from trainer_image.engine.training import validate_dataset
from trainer_image.errors import DatasetInvalid, LimitExceeded
from trainer_image.limits import Limits

GENES = [f"ENSG{number:011d}" for number in range(6000)]


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz", "train.tsv"])
def test_a_header_longer_than_the_sample_is_read_whole(tmp_path: Path, name: str) -> None:
    """6000 genes are 96 KB of names; the first 64 KiB end in the middle of one."""
    delimiter = "\t" if ".tsv" in name else ","
    text = "".join(delimiter.join(row) + "\n" for row in [GENES, ["1"] * len(GENES), ["2"] * len(GENES)])
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    table = tables.read_table([(name, tmp_path / name)], Limits())
    assert list(table.columns) == GENES
    assert table.rows == 2


def test_a_file_without_a_line_end_is_refused_by_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "BLOCK_BYTES", 100_000)
    (tmp_path / "train.csv").write_text(",".join(f"c{number}" for number in range(30_000)))
    with pytest.raises(LimitExceeded, match="a row is longer than 100000 bytes"):
        tables.read_table([("train.csv", tmp_path / "train.csv")], Limits())


@pytest.mark.filterwarnings("error")
def test_a_label_too_large_to_compute_with_is_not_called_infinite(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["a", "y"], [[number, f"{number + 0.5}e306"] for number in range(30)])
    with pytest.raises(DatasetInvalid, match=r"row 2: the target column 'y' holds '0\.5e306', which is .*too large"):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TABULAR))


def test_the_rows_that_are_asked_for_are_enough() -> None:
    def split(rows: int) -> None:
        assign(np.zeros(rows, np.int64), has_validation=False, has_test=False, seed=0)

    with pytest.raises(DatasetInvalid, match="bring at least 4"):
        split(3)
    split(4)
