"""From a container to a verified folder: what is refused, what is pinned, what is told."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContentSettings

from trainer_image.errors import (
    ConfigInvalid,
    DatasetInvalid,
    DatasetMissing,
    LimitExceeded,
    PermissionDenied,
    StorageUnavailable,
    Terminated,
)
from trainer_image.limits import Limits
from trainer_image.storage.azure import open_container
from trainer_image.storage.container import AccessDenied, BlobInfo, StorageFault, Unavailable
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer.download import DatasetLock, Download, lock_dataset, share_of
from trainer_image.units import format_bytes


class Shelf:
    """A container in memory whose listing says what a test wants."""

    name = "dataset-xyz"

    def __init__(self, *blobs: BlobInfo, content: bytes = b"", fault: StorageFault | None = None) -> None:
        self.blobs = blobs
        self.content = content
        self.fault = fault
        self.asked: list[tuple[str, int, int]] = []

    def list(self, prefix: str = "") -> Iterator[BlobInfo]:
        if self.fault:
            raise self.fault
        yield from self.blobs

    def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
        self.asked.append((blob.name, offset, length))
        yield self.content[offset : offset + length]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not needed to read a dataset")


def fetch(container: Any, folder: Path, **options: Any) -> DatasetLock:
    lock = lock_dataset(container, Limits())
    Download(container, lock, folder, options.pop("stopped", lambda: False), **options).run()
    return lock


@pytest.fixture
def blobs(azurite: Any) -> Any:
    client = BlobServiceClient.from_connection_string(azurite.connection_string)
    return client.create_container(f"dataset-{secrets.token_hex(6)}")


@pytest.fixture
def container(azurite: Any, blobs: Any) -> Any:
    return open_container(azurite.connection_string, None, blobs.container_name)


def test_a_container_becomes_a_folder_of_the_same_content(container: Any, blobs: Any, tmp_path: Path) -> None:
    contents = {
        "train.csv": secrets.token_bytes(50_000),
        "train/cat/1.png": secrets.token_bytes(1024),
        "train/dog/ü 2.png": b"x",
        "empty.txt": b"",
    }
    for name, content in contents.items():
        blobs.upload_blob(name, content)
    told: list[tuple[int, int]] = []
    lock = fetch(
        container,
        tmp_path / "d",
        range_bytes=1000,
        connections=4,
        progress=lambda done, total: told.append((done, total)),
    )
    found = {
        p.relative_to(tmp_path / "d").as_posix(): p.read_bytes() for p in (tmp_path / "d").rglob("*") if p.is_file()
    }
    assert found == contents
    assert lock.size == sum(map(len, contents.values()))
    assert max(told) == (lock.size, lock.size)
    assert [entry["name"] for entry in lock.as_json()["blobs"]] == sorted(contents)


def test_the_fingerprint_follows_the_etags(container: Any, blobs: Any) -> None:
    blobs.upload_blob("train.csv", b"a,b\n1,2\n")
    first = lock_dataset(container, Limits()).fingerprint
    assert lock_dataset(container, Limits()).fingerprint == first
    blobs.upload_blob("train.csv", b"a,b\n1,2\n", overwrite=True)
    assert lock_dataset(container, Limits()).fingerprint != first


def test_a_blob_that_changes_on_the_way_is_named(container: Any, blobs: Any, tmp_path: Path) -> None:
    blobs.upload_blob("train.csv", b"x" * 5000)
    lock = lock_dataset(container, Limits())
    blobs.upload_blob("train.csv", b"y" * 5000, overwrite=True)
    with pytest.raises(
        DatasetInvalid, match=r"^Invalid dataset: train.csv: it was changed while it was being downloaded"
    ):
        Download(container, lock, tmp_path, lambda: False).run()


def test_a_blob_that_disappears_on_the_way_is_named(container: Any, blobs: Any, tmp_path: Path) -> None:
    blobs.upload_blob("train.csv", b"x" * 5000)
    lock = lock_dataset(container, Limits())
    blobs.delete_blob("train.csv")
    with pytest.raises(DatasetInvalid, match=r"train.csv"):
        Download(container, lock, tmp_path, lambda: False).run()


def test_a_content_that_is_not_its_md5_is_refused(container: Any, blobs: Any, tmp_path: Path) -> None:
    wrong = ContentSettings(content_md5=bytearray(hashlib.md5(b"something else").digest()))
    blobs.upload_blob("good.csv", b"good")
    blobs.upload_blob("train.csv", b"x" * 5000)
    blobs.get_blob_client("train.csv").set_http_headers(wrong)
    with pytest.raises(DatasetInvalid, match=r"train.csv: its content does not match the MD5"):
        fetch(container, tmp_path)


def test_an_md5_that_differs_once_is_fetched_again(tmp_path: Path) -> None:
    content = b"0123456789"

    class Flaky(Shelf):
        def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
            (read,) = super().pieces(blob, offset, length)
            yield read if len(self.asked) > 1 else b"x" * length

    shelf = Flaky(BlobInfo("a", 10, "e", hashlib.md5(content).digest()), content=content)
    fetch(shelf, tmp_path)
    assert (tmp_path / "a").read_bytes() == content
    assert len(shelf.asked) == 2


def test_a_range_that_comes_short_is_not_taken_for_the_blob(tmp_path: Path) -> None:
    class Short(Shelf):
        def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
            return super().pieces(blob, offset, length - 1)

    shelf = Short(BlobInfo("train.csv", 10, "e"), content=b"0123456789")
    with pytest.raises(StorageUnavailable, match=r"train\.csv"):
        fetch(shelf, tmp_path, range_bytes=4)


def test_the_largest_file_is_fetched_first(tmp_path: Path) -> None:
    shelf = Shelf(BlobInfo("small", 1, "e"), BlobInfo("large", 10, "e"), BlobInfo("none", 0, "e"), content=b"x" * 10)
    fetch(shelf, tmp_path, connections=1, range_bytes=4)
    assert shelf.asked == [("large", 0, 4), ("large", 4, 4), ("large", 8, 2), ("small", 0, 1)]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (AccessDenied("storage refuses access"), PermissionDenied),
        (Unavailable("storage answers 503"), StorageUnavailable),
    ],
)
def test_storage_s_faults_say_who_must_act(fault: StorageFault, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^Failed to download dataset from container: dataset-xyz \(storage"):
        lock_dataset(Shelf(fault=fault), Limits())


def test_a_missing_container_is_told_in_the_documented_sentence(azurite: Any, tmp_path: Path) -> None:
    container = open_container(azurite.connection_string, None, "dataset-none")
    with pytest.raises(
        DatasetMissing, match=r"^Failed to download dataset from container: dataset-none \(the container"
    ):
        lock_dataset(container, Limits())
    with pytest.raises(DatasetMissing, match="no such folder"):
        lock_dataset(LocalContainer(tmp_path / "none"), Limits())


def test_an_empty_container_is_missing_its_dataset(container: Any) -> None:
    with pytest.raises(
        DatasetMissing, match=r"^Failed to download dataset from container: dataset-\w+ \(it is empty\)"
    ):
        lock_dataset(container, Limits())


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "a\\b", "a\nb", "train//x"])
def test_a_name_that_leaves_the_folder_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"^Invalid dataset: ") as refused:
        fetch(Shelf(BlobInfo("ok", 1, "e"), BlobInfo(name, 1, "e"), content=b"x"), tmp_path / "d")
    assert "\n" not in refused.value.sentence
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("names", [("/abs",), ("a\nb",), ("x//y",), ("A.csv", "a.csv"), ("train", "train/x")])
def test_real_blobs_with_dangerous_names_are_refused(
    names: tuple[str, ...], container: Any, blobs: Any, tmp_path: Path
) -> None:
    for name in names:
        blobs.upload_blob(name, b"x")
    with pytest.raises(DatasetInvalid):
        fetch(container, tmp_path / "deep" / "d")
    assert list(tmp_path.iterdir()) == []


def test_limits_of_files_and_bytes_are_kept() -> None:
    shelf = Shelf(*(BlobInfo(f"f{n}", 100, "e") for n in range(5)))
    with pytest.raises(LimitExceeded, match=r"more than 4 files \(MAX_DATASET_FILES\)"):
        lock_dataset(shelf, Limits(dataset_files=4))
    with pytest.raises(LimitExceeded, match=r"larger than 499 bytes \(MAX_DATASET_BYTES\)"):
        lock_dataset(shelf, Limits(dataset_bytes=499))
    assert lock_dataset(shelf, Limits(dataset_files=0, dataset_bytes=0)).size == 500


def test_a_disk_that_is_too_small_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))  # type: ignore[attr-defined]
    shelf = Shelf(BlobInfo("a", 5 * 1024**3, "e"))
    with pytest.raises(LimitExceeded, match=r"needs 5.2 GiB of disk and 976.6 KiB are free"):
        fetch(shelf, tmp_path)
    assert shelf.asked == []


def test_a_stop_ends_the_download(tmp_path: Path) -> None:
    shelf = Shelf(BlobInfo("a", 100, "e"), content=b"x" * 100)
    with pytest.raises(Terminated):
        fetch(shelf, tmp_path, range_bytes=1, connections=1, stopped=lambda: len(shelf.asked) > 5)
    assert len(shelf.asked) < 20


def test_one_failing_connection_ends_the_others(tmp_path: Path) -> None:
    class Broken(Shelf):
        def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
            yield from super().pieces(blob, offset, 0)
            raise Unavailable("storage does not answer")

    shelf = Broken(BlobInfo("a", 1000, "e"))
    with pytest.raises(StorageUnavailable, match="storage does not answer"):
        fetch(shelf, tmp_path, range_bytes=1, connections=4)
    assert len(shelf.asked) <= 8


def test_sizes_in_readable_units() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1536, 5 * 1024**3, 2 * 1024**4)] == [
        "0 bytes", "1023 bytes", "1.5 KiB", "5.0 GiB", "2.0 TiB",
    ]  # fmt: skip


def test_nodes_share_the_files_that_a_pattern_names_and_have_all_others_each() -> None:
    names = ["labels.json", *(f"train/{number:02}.tar" for number in range(7)), "val/0.tar"]
    lock = lock_dataset(Shelf(*(BlobInfo(name, 1, "e") for name in reversed(names))), Limits())
    parts = [[blob.name for blob in share_of(lock, ["train/*.tar"], node, 3).blobs] for node in range(3)]
    shared = [[name for name in part if name.startswith("train/")] for part in parts]
    assert shared[0] == ["train/00.tar", "train/03.tar", "train/06.tar"]
    assert sorted(name for part in shared for name in part) == names[1:8], "each of them once"
    assert all({"labels.json", "val/0.tar"} <= set(part) for part in parts)
    assert share_of(lock, ["train/*.tar"], 0, 1) is lock
    assert share_of(lock, [], 1, 3) is lock
    with pytest.raises(ConfigInvalid, match=r"command\.shares: 1 of the dataset's files match, which 3 nodes cannot"):
        share_of(lock, ["val/*", "nothing"], 0, 3)
