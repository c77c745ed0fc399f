"""Datasets larger than memory: the same model as from memory, and memory that stays bounded while it is made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.world.repository import ROOT
from tests.world.training_data import (
    IMAGES,
    LANGUAGE,
    TABULAR,
    TEXTS,
    FolderStore,
    StopAtStep,
    documents,
    image_folder,
    run_inputs,
    text_records,
    text_rows,
    write_csv,
    write_jsonl,
)
from trainer_image.data import spill, text_store
from trainer_image.data.formats import cells
from trainer_image.data.spill import Scratch
from trainer_image.data.table import read_table
from trainer_image.engine import preparing, training
from trainer_image.engine.steps import row_order
from trainer_image.errors import LimitExceeded, Terminated
from trainer_image.host import memory
from trainer_image.limits import Limits
from trainer_image.tasks.language import task as language_model

pytestmark = pytest.mark.long

SHOPS = TABULAR.replace("{target: y}", "{target: y, drop: [note]}")


def shops(folder: Path, rows: int = 1500) -> Path:
    random = np.random.default_rng(0)
    lines = []
    for n in range(rows):
        x, day = random.normal(), f"{n % 28 + 1}.{n % 12 + 1}.2025"
        cells = ["" if n % 9 == 0 else round(x, 4), f"s{n % 40}", day, ("Yes", "no")[n % 2], "text " * (n % 7)]
        lines.append([*cells, "up" if x + (n % 40) / 40 > 0.5 else "down"])
    write_csv(folder / "train.csv", ["x", "shop", "day", "paid", "note", "y"], lines)
    return folder


def trained(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, config: str, room: int) -> tuple[bytes, Any]:
    monkeypatch.setattr(preparing, "Scratch", lambda folder, memory_bytes=None: Scratch(folder, room))
    training.train(run_inputs(data, out, config))
    report = json.loads((out / "report.json").read_text())
    return (out / "model.safetensors").read_bytes(), report["metrics"]


@pytest.mark.parametrize(
    ("make", "config", "said"),
    [
        (shops, SHOPS, "The table does not fit into memory"),
        (image_folder, IMAGES, None),
        (text_rows, TEXTS, "The texts do not fit into memory"),
        (documents, LANGUAGE, "The text does not fit into memory"),
    ],
    ids=["table", "images", "texts", "documents"],
)
def test_files_give_the_same_model_as_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], config: str, said: str | None
) -> None:
    monkeypatch.setattr(cells, "BLOCK_BYTES", 16 * 1024)
    monkeypatch.setattr(text_store, "BLOCK_BYTES", 500)
    monkeypatch.setattr(language_model, "SAMPLE_BYTES", 10)
    data = make(tmp_path / "d")
    inside = trained(monkeypatch, data, tmp_path / "memory" / "out", config, 2**30)
    outside = trained(monkeypatch, data, tmp_path / "files" / "out", config, 0)
    assert inside == outside
    notes = json.loads((tmp_path / "files" / "out" / "report.json").read_text())["dataset"]["notes"]
    assert said is None or any(said in note for note in notes)


def test_a_run_that_reads_in_blocks_goes_on_so_where_memory_is_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "Scratch", lambda folder, memory_bytes=None: Scratch(folder, 0))
    monkeypatch.setattr(row_order, "BLOCK_BYTES", 500)
    monkeypatch.setattr(row_order, "BUFFERED_BLOCKS", 4)
    data = shops(tmp_path / "d", 400)

    def weights(name: str, free: int, store: FolderStore | None = None, stop: StopAtStep | None = None) -> bytes:
        monkeypatch.setattr(memory, "available", lambda: free)
        training.train(run_inputs(data, tmp_path / name / "out", SHOPS, store=store, stop=stop))
        return (tmp_path / name / "out" / "model.safetensors").read_bytes()

    in_blocks = weights("blocks", 0)
    notes = json.loads((tmp_path / "blocks" / "out" / "report.json").read_text())["training"]["notes"]
    assert any(note.startswith("The rows lie in files larger than memory") for note in notes)
    store = FolderStore(tmp_path / "store")
    with pytest.raises(Terminated):
        weights("stopped", 0, store, StopAtStep(3))
    assert weights("resumed", 2**40, store) == in_blocks
    assert weights("afresh", 2**40) != in_blocks


def test_a_table_in_a_file_is_the_table_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "BLOCK_BYTES", 16 * 1024)
    file = shops(tmp_path) / "train.csv"
    inside = read_table([("train.csv", file)], Limits())
    outside = read_table([("train.csv", file)], Limits(), Scratch(tmp_path / "s", 10_000))
    assert len(outside.lengths) > 2
    assert inside.lengths == outside.lengths
    for column, values in inside.columns.items():
        assert values.to_pylist() == outside.columns[column].to_pylist()
    assert outside.take([1400, 3], ["x", "y"]) == inside.take([1400, 3], ["x", "y"])
    assert list((tmp_path / "s").iterdir()) != []
    del outside
    assert list((tmp_path / "s").iterdir()) == [], "nothing is left when the table is gone"


# Each task is measured in a process of its own, forked when what all of them import is there.
CHILD = """
import json, os, re, sys, threading
from pathlib import Path
from trainer_image.data.formats import cells
from trainer_image.data.spill import Scratch
from trainer_image.tasks import task_named
from trainer_image.tasks.base import TaskSettings, rows_in
from trainer_image.tasks.language import windows

cells.BLOCK_BYTES, windows.BLOCK = 2**19, 2**16

folder, *names = sys.argv[1:]
tasks = {name: task_named(name) for name in names}

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def peak(task, data, room):
    before, highest, over = anonymous(), 0, threading.Event()

    def watch():
        nonlocal highest
        while not over.wait(0.002):
            highest = max(highest, anonymous() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    settings = TaskSettings(target="y" if task == "tabular" else None, scratch=Scratch(Path(folder, "work"), room))
    problem = tasks[task].prepare(data, settings)
    over.set()
    watcher.join()
    return highest, sum(rows_in(split) for split in problem.splits.values())

for task in names:
    if os.fork() == 0:
        small, large = (Path(folder, task, size) for size in ("small", "large"))
        peak(task, small, 0)  # what every reading needs once: libraries, their pools
        print(json.dumps([peak(task, large, 0), peak(task, large, 2**40)]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""

# What is freed goes back at once, so that memory in use is measured: allocators keep as much again for a while, and the
# more where the machine is busy.
AT_ONCE = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}

# The rows of a table of 15 MB, some 45 MB with what memory adds to it, and those of texts of 6 kB, of which a language
# model's tokens and matches are eight times as much. From files it is a few batches of half a megabyte.
ROWS = {"tabular": 50_000, "text_classification": 3_000, "language_model": 300}


@pytest.fixture(scope="module")
def memory_taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[int]]]:
    """By task: (bytes at most, rows) of reading its data from files, and with all room in memory."""
    folder = tmp_path_factory.mktemp("larger")
    for name, rows in (("small", 2_000), ("large", ROWS["tabular"])):
        x = np.random.default_rng(0).normal(size=(rows, 40)).round(4)
        table = pa.table({f"x{n}": x[:, n] for n in range(40)} | {"y": np.where(x[:, 0] > 0, "up", "down")})
        (folder / "tabular" / name).mkdir(parents=True)
        pyarrow.csv.write_csv(table, folder / "tabular" / name / "train.csv")
    for task in ("text_classification", "language_model"):
        for name, count in (("small", 100), ("large", ROWS[task])):
            records = enumerate(text_records(count))
            long_ones = ({**record, "text": f"{record['text']} {n} " * 150} for n, record in records)
            write_jsonl(folder / task / name / "train.jsonl", long_ones)
    command = [sys.executable, "-c", CHILD, str(folder), *ROWS]
    environment = {**os.environ, **AT_ONCE}
    answer = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(zip(ROWS, map(json.loads, answer.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("task", "least"), [("tabular", 30), ("text_classification", 15), ("language_model", 15)])
def test_memory_stays_bounded_while_a_larger_dataset_is_read(
    memory_taken: dict[str, list[list[int]]], task: str, least: int
) -> None:
    (files, rows), (inside, same) = memory_taken[task]
    assert rows == same
    assert rows == ROWS[task] or task == "language_model"
    assert inside > least * 2**20
    assert files < inside / 2, f"{files} bytes from files, {inside} in memory"


def kept(room: Scratch, records: Sequence[tuple[bytes, str | None]]) -> text_store.Texts:
    keeper = text_store.TextKeeper(room)
    keeper.begin(text_store.Source("a.jsonl", Path("a.jsonl")))
    for row, (content, label) in enumerate(records, 1):
        keeper.add(text_store.Text(content, row, label))
    return keeper.texts()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.binary(max_size=30), st.sampled_from([None, "a", "b"])), max_size=20))
def test_texts_in_a_file_are_the_texts_in_memory(tmp_path: Path, records: list[tuple[bytes, str | None]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_store, "BLOCK_BYTES", 16)
        for room in (Scratch(tmp_path, 2**30), Scratch(tmp_path, 64), Scratch(tmp_path, 0)):
            texts = kept(room, records)
            assert [content.tobytes() for content in texts.contents()] == [content for content, _ in records]
            assert [content.tobytes() for content in texts.contents(4)[::2]] == [c[:4] for c, _ in records[::2]]
            labels = [None if number < 0 else texts.labels[number] for number in texts.label.tolist()]
            assert labels == [label for _, label in records]
            assert texts.names() == [f"a.jsonl, row {row}" for row in range(1, len(records) + 1)]
    assert room.spilled_bytes == sum(len(content) for content, _ in records)


def test_arrays_are_files_beyond_the_room_in_memory(tmp_path: Path) -> None:
    room = Scratch(tmp_path / "s", 1000)
    small, large = room.array((10, 10), np.float32), room.array((100, 10), np.float32)
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    assert room.spilled_bytes == 4000
    tensor = torch.from_numpy(large)
    tensor[3] = 7
    assert large[3].tolist() == [7] * 10
    assert room.array((0, 5), np.float32).shape == (0, 5)
    room.release(400)
    assert not isinstance(room.array((100,), np.float32), np.memmap)


def test_a_full_disk_is_a_sentence_before_it_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Scratch(tmp_path, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30, 300 * 2**20))  # type: ignore[attr-defined]
    with pytest.raises(LimitExceeded, match=r"does not fit into memory, and needs 356\.0 MiB of disk"):
        room.array((100, 2**20), np.uint8)

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill.os, "posix_fallocate", full)
    with pytest.raises(LimitExceeded, match="a larger ephemeral-storage limit or volume is needed"):
        room.array((10, 2**20), np.uint8)


def test_the_container_s_limit_counts_without_its_cached_files(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:  4000000 kB\n")
    assert memory.available(tmp_path / "none", tmp_path / "meminfo") == 4000000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(tmp_path, tmp_path / "meminfo") == 4000000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\nactive_file 300000\ninactive_file 200000\n")
    assert memory.available(tmp_path, tmp_path / "meminfo") == 600000
