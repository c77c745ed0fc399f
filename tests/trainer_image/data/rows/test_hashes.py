"""Hashes of rows: of the content alone, the same from any file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer_image.data.rows.hashes import content_of, mixed, of_bytes, of_table
from trainer_image.data.table import read_table
from trainer_image.limits import Limits

ROWS = {"a": [1.0, -0.0, 2.5, 0.1], "b": ["x", "y", None, " X "], "n": [7, 8, 9, 7], "t": [True, False, True, True]}


def hashes(path: Path, columns: list[str] | None = None) -> list[int]:
    table = read_table([(path.name, path)], Limits())
    return of_table(table, columns or list(table.columns)).tolist()


def csv(folder: Path, text: str) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.csv"
    path.write_text(text)
    return path


def test_a_row_has_the_same_hash_in_csv_and_parquet_in_any_order_of_rows_and_columns(tmp_path: Path) -> None:
    single = {**ROWS, "a": pa.array(ROWS["a"], pa.float32())}
    for number, columns in enumerate((ROWS, single)):
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    written = csv(tmp_path, "t,b,n,a\nTrue,X,7.0,0.1\nTRUE,,9,2.50\nfalse,y,8,0\ntrue,x,7e0,1\n")
    found = hashes(tmp_path / "0.parquet")
    assert hashes(tmp_path / "1.parquet") == found
    assert hashes(written) == found[::-1]
    assert len(set(found)) == 4


def test_a_moment_a_truth_value_and_a_decimal_comma_have_one_hash_however_they_are_written(tmp_path: Path) -> None:
    moments = pa.array([0, 1_700_000_000_000, 1_700_000_000_250], pa.timestamp("ms"))
    table = pa.table({"at": moments, "day": moments.cast(pa.date32(), safe=False), "t": [True, False, True]})
    table = table.append_column("n", [[1234.5, 0.25, 7.125]])
    pq.write_table(table, tmp_path / "0.parquet")
    pq.write_table(table.set_column(0, "at", moments.cast(pa.timestamp("ns", "UTC"))), tmp_path / "1.parquet")
    found = hashes(tmp_path / "0.parquet")
    assert len(set(found)) == 3
    assert hashes(tmp_path / "1.parquet") == found
    for written in (
        "at,day,t,n\n1970-01-01,1970-01-01,1,1234.5\n2023-11-14T22:13:20Z,2023-11-14 00:00:00,0,.25\n"
        "2023-11-14 22:13:20.250000,2023-11-14T00:00,True,7.125\n",
        "at;day;t;n\n1970-01-01 00:00:00.000;1970-01-01;TRUE;1.234,5\n2023-11-14 22:13:20;2023-11-14;FALSE;0,25\n"
        "2023-11-14 22:13:20,25;2023-11-14;1;7,125\n",
        'at,day,t,n\n1970-01-01,1970-01-01,1,"1,234.50"\n2023-11-14 22:13:20.0,2023-11-14,0,0.25\n'
        "2023-11-14 22:13:20.25,2023-11-14,1,7.1250\n",
    ):
        assert hashes(csv(tmp_path, written)) == found
    doubtful = hashes(csv(tmp_path, 'n,c\n"1,234",x\n"2,345",x\n'))
    assert (
        doubtful != hashes(csv(tmp_path, "n,c\n1234,x\n2345,x\n")) != hashes(csv(tmp_path, "n,c\n1.234,x\n2.345,x\n"))
    )


def test_another_cell_is_another_row_and_so_are_cells_exchanged_between_columns(tmp_path: Path) -> None:
    found = hashes(csv(tmp_path, "a,b\n1,2\n2,1\n1,1\n,1\n1,\n,\n-1,2\nnone,2\nx,2\n"))
    assert len(set(found)) == 9


def test_an_empty_column_more_changes_no_hash(tmp_path: Path) -> None:
    assert hashes(csv(tmp_path, "a,b\n1,2\n3,4\n")) == hashes(csv(tmp_path, "a,c,b\n1,,2\n3,,4\n"))


@pytest.mark.parametrize("name", ["Unnamed: 0", "index", "id", "ID", "row_number", "__index_level_0__", "nr"])
def test_what_only_numbers_the_rows_is_no_content(name: str) -> None:
    assert content_of([name, "b", "y"], "y") == ("b", "y")
    assert content_of([name, "y"], "y") == tuple(sorted([name, "y"]))


def test_hashes_stay_what_they_are_from_one_version_to_the_next(tmp_path: Path) -> None:
    """Else every model's rows would be unknown to the next version."""
    assert of_bytes([b"", b"a text"]).tolist() == [13020603013274838756, 5830437876521264211]
    assert hashes(csv(tmp_path, "a,b\n1,x\n2.5,\n")) == [830833727729177911, 13779070590304356088]


def test_different_numbers_have_different_hashes() -> None:
    assert len(np.unique(mixed(np.arange(100_000, dtype=np.uint64)))) == 100_000
