"""What a run knew of its rows: written, read, bounded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trainer_image.data.rows import known as known_rows
from trainer_image.data.rows.hashes import Hashes
from trainer_image.data.rows.known import Known, known, read, seen, write


def some(*numbers: int) -> Hashes:
    return np.array(numbers, np.uint64)


def test_what_was_written_is_read_and_rows_that_were_trained_on_are_seen(tmp_path: Path) -> None:
    write(tmp_path, known(("a", "b"), some(9, 2**64 - 1, 9), some(4)))
    found = read(tmp_path)
    assert found is not None
    assert found.content == ("a", "b")
    assert seen(some(4, 9, 5, 2**64 - 1), found).tolist() == [False, True, False, True]
    assert found.had(some(4, 9)).tolist() == [True, False]


def test_what_the_weights_were_trained_on_before_is_known_as_well_and_no_row_is_both() -> None:
    first = known(("a",), some(1, 2), some(3, 4))
    second = known(("a",), some(3, 5), some(6), first)
    assert second.trained.tolist() == [1, 2, 3, 5]
    assert second.tested.tolist() == [4, 6]
    assert known(("b",), some(3), some(6), first).trained.tolist() == [3]


def test_of_too_many_rows_a_part_is_kept_and_all_others_count_as_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_rows, "MOST", 100)
    trained, tested = np.arange(0, 400, 2, dtype=np.uint64), np.arange(1, 101, 2, dtype=np.uint64)
    write(tmp_path, known(("a",), trained, tested))
    found = read(tmp_path)
    assert found is not None
    assert len(found.trained) + len(found.tested) == 100
    assert seen(trained, found).all()
    fresh = np.array([1, 99, 1001], np.uint64)
    assert seen(fresh, found).tolist() == [False, False, True]
    again = known(("a",), some(7), some(11), found)
    assert seen(some(7, 1001), again).all()


def _file(path: Path, said: dict[str, str] | None = None, **parts: np.ndarray) -> None:  # type: ignore[type-arg]
    whole = {"format": "1", "content": json.dumps(["a"]), "below": str(2**64)}
    save_file({"trained": some(1), "tested": some(2), **parts}, path / known_rows.NAME, whole | (said or {}))


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        ({"format": "2"}, {}), ({"content": "7"}, {}), ({"content": "["}, {}), ({"below": "x"}, {}),
        ({"below": str(2**65)}, {}), ({}, {"trained": np.ones(2)}), ({}, {"tested": np.ones((1, 1), np.uint64)}),
        ({"content": "[" * 100_000}, {}),
    ],
)  # fmt: skip
def test_a_file_that_is_none_of_ours_tells_nothing(
    said: dict[str, str], parts: dict[str, object], tmp_path: Path
) -> None:
    _file(tmp_path)
    assert isinstance(read(tmp_path), Known)
    _file(tmp_path, said, **parts)  # type: ignore[arg-type]
    assert read(tmp_path) is None
    (tmp_path / known_rows.NAME).write_bytes(b"no tensors")
    assert read(tmp_path) is None
    (tmp_path / known_rows.NAME).unlink()
    assert read(tmp_path) is None


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _file(tmp_path)
    monkeypatch.setattr(known_rows, "_BYTES", 8)
    assert read(tmp_path) is None
