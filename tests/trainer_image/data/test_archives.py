"""Images in tar and zip archives: the same training as from folders, and a sentence for every archive made to harm."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.world.training_data import image_folder
from trainer_image.data import archives, gzip_stream
from trainer_image.data.archives import members
from trainer_image.data.spill import Scratch
from trainer_image.errors import DatasetInvalid, LimitExceeded
from trainer_image.limits import Limits
from trainer_image.tasks.base import TaskSettings
from trainer_image.tasks.image.task import ImageClassification

PNG = b"".join((b"\x89PNG\r\n\x1a\n", b"picture" * 20))


def tar(path: Path, *entries: tuple[tarfile.TarInfo | str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for entry, content in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            if isinstance(entry, str):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def found(path: Path, limits: Limits | None = None) -> list[archives.Member]:
    return members(path.name, path, limits or Limits(), Scratch(path.parent / "scratch"))


def packed(kind: str, folder: Path, into: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if kind == "zip":
        with zipfile.ZipFile(into / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
        return
    shards = {"tar": "w", "tgz": "w:gz"}
    for number in range(2):
        name = into / ("train" if kind == "tar" else ".") / f"train-{number:03}.{'tar' if kind == 'tar' else 'tar.gz'}"
        name.parent.mkdir(exist_ok=True)
        with tarfile.open(name, shards[kind]) as archive:  # type: ignore[call-overload]
            for file in files[number::2]:
                archive.add(file, f"./{file.relative_to(folder)}")


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_archives_are_the_same_images_as_folders(tmp_path: Path, kind: str) -> None:
    image_folder(tmp_path / "plain", 24)
    (tmp_path / kind).mkdir()
    packed(kind, tmp_path / "plain" / "train", tmp_path / kind)
    problems = [ImageClassification().prepare(tmp_path / name, TaskSettings()) for name in ("plain", kind)]
    pixels = [torch.cat([p.splits[s]["pixels"] for s in ("train", "validation", "test")]) for p in problems]
    assert sorted(map(bytes, pixels[0].numpy())) == sorted(map(bytes, pixels[1].numpy()))
    assert "2 classes (left, right)" in problems[1].description


def test_metadata_and_labels_beside_the_image_are_read_in_archives(tmp_path: Path) -> None:
    def picture(number: int) -> bytes:
        made = io.BytesIO()
        Image.new("L", (8, 8), number).save(made, "PNG")
        return made.getvalue()

    rows = "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(12))
    images = [(f"{n}.png", picture(n)) for n in range(12)]
    tar(tmp_path / "train.tar", ("metadata.csv", f"file_name,label\n{rows}".encode()), *images)
    labels = [(f"{n}.cls", b"ab"[n % 2 : n % 2 + 1]) for n in range(12)]
    tar(tmp_path / "test.tar", *images, *labels)
    problem = ImageClassification().prepare(tmp_path, TaskSettings())
    assert "2 classes (a, b)" in problem.description
    assert sorted(problem.splits["test"]["target"].tolist()) == [0] * 6 + [1] * 6


def test_a_broken_image_in_an_archive_is_named(tmp_path: Path) -> None:
    image_folder(tmp_path)
    tar(tmp_path / "train" / "more.tar", ("left/bad.png", b"no image"))
    with pytest.raises(DatasetInvalid, match=r"train/more\.tar/left/bad\.png: is no image that can be decoded"):
        ImageClassification().prepare(tmp_path, TaskSettings())


LONG = "a/" * 40 + "x" * 90 + ".png"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_foreign_names_are_read_in_every_format_of_tar(tmp_path: Path, form: int) -> None:
    names = [LONG, "cat/ü.png", "./cat/1.png"]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            archive.addfile(info, io.BytesIO(PNG))
    listed = found(tmp_path / "a.tar")
    assert [member.name for member in listed] == [LONG, "cat/ü.png", "cat/1.png"]
    assert {member.read() for member in listed} == {PNG}


HOSTILE_TARS: dict[str, tuple[list[tuple[tarfile.TarInfo | str, bytes]], str]] = {
    "climbs out": ([("../../etc/x.png", PNG)], r"the name contains a \. or \.\. folder"),
    "absolute": ([("/etc/x.png", PNG)], "the name is an absolute path"),
    "symbolic link": ([(special("a/x.png", tarfile.SYMTYPE, "/etc/passwd"), b"")], "is a symbolic link"),
    "hard link": ([(special("a/x.png", tarfile.LNKTYPE, "../../x"), b"")], "is a hard link"),
    "device": ([(special("a/x.png", tarfile.BLKTYPE), b"")], "is a device"),
    "pipe": ([(special("a/x.png", tarfile.FIFOTYPE), b"")], "is a named pipe"),
    "sparse": ([(special("a/x.png", tarfile.GNUTYPE_SPARSE), b"")], "is a sparse file"),
    "case": ([("a/X.png", PNG), ("a/x.png", PNG)], "differs from a/X.png only in letter case"),
    "control characters": ([("a/\x1b[2Jx.png", PNG)], "the name contains a control character"),
    "file and folder": ([("a", PNG), ("a/x.png", PNG)], "is that of a file and of a folder"),
}


@pytest.mark.parametrize("case", HOSTILE_TARS)
def test_a_hostile_tar_is_refused_by_member(tmp_path: Path, case: str) -> None:
    entries, why = HOSTILE_TARS[case]
    with pytest.raises(DatasetInvalid, match=rf"^Invalid dataset: a\.tar: .*{why}") as caught:
        found(tar(tmp_path / "a.tar", *entries))
    assert caught.value.sentence.isprintable()


def test_a_tar_that_promises_more_than_it_has_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a/x.png")
    info.size = 1 << 50
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(DatasetInvalid, match="is cut off"):
        found(tmp_path / "a.tar")
    header = special("x", tarfile.XHDTYPE)
    header.size = 1 << 20
    (tmp_path / "b.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * (1 << 20))
    with pytest.raises(DatasetInvalid, match="has 1048576 bytes, more than 65536"):
        found(tmp_path / "b.tar")


def test_a_tar_that_breaks_off_in_a_header_is_refused_and_not_read_in_part(tmp_path: Path) -> None:
    whole = bytearray(tar(tmp_path / "a.tar", ("a/x.png", PNG), ("a/y.png", PNG)).read_bytes())
    whole[1024 + 100] ^= 1
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(DatasetInvalid, match=r"is no readable tar archive \(at byte 1024\)"):
        found(tmp_path / "a.tar")


def endless(kind: bytes, records: bytes = b"") -> bytes:
    """An archive that begins with a header of this kind, and has a million bytes of digits where others have files."""
    header = special("a/x.png", kind)
    header.size = len(records)
    sparse = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    if kind == tarfile.GNUTYPE_SPARSE:
        sparse[482] = 1  # its map goes on in the next block
        sparse[148:156] = b"%06o\0 " % (sum(sparse[:148]) + 8 * 32 + sum(sparse[156:]))
        return bytes(sparse) + (b"1" * 504 + b"\1" + bytes(7)) * 2000
    file = tarfile.TarInfo("a/x.png")
    file.size = 1_000_000
    return bytes(sparse) + records.ljust(512, b"\0") + file.tobuf(tarfile.GNU_FORMAT) + b"99999999\n" + b"1" * 1_000_000


@pytest.mark.parametrize(
    "content",
    [endless(tarfile.GNUTYPE_SPARSE), endless(tarfile.XHDTYPE, b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")],
    ids=["a sparse map", "a sparse map in pax"],
)
def test_sparse_maps_that_never_end_take_no_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DatasetInvalid, match="is a sparse file"):
        found(tmp_path / "a.tar")


def believed(size: bytes) -> bytes:
    """A file whose header has this size field, after a global header by which every file has three bytes."""
    record = b"10 size=3\n"
    everywhere = special("global", tarfile.XGLTYPE)
    everywhere.size = len(record)
    file = bytearray(special("a/x.png", tarfile.REGTYPE).tobuf(tarfile.GNU_FORMAT))
    file[124:136] = size
    file[148:156] = b"%06o\0 " % (sum(file[:148]) + 8 * 32 + sum(file[156:]))
    return everywhere.tobuf(tarfile.GNU_FORMAT) + record.ljust(512, b"\0") + bytes(file) + bytes(1024)


@pytest.mark.parametrize(
    "size",
    [b"\x80" + (2**70).to_bytes(11, "big"), b"\xff" + (-(2**20)).to_bytes(11, "big", signed=True), b"-0000001000\0"],
    ids=["beyond any disk", "back before the archive", "back into the archive"],
)
def test_a_size_that_leads_out_of_the_archive_is_refused_whatever_a_global_header_says(
    tmp_path: Path, size: bytes
) -> None:
    (tmp_path / "a.tar").write_bytes(believed(size))
    with pytest.raises(DatasetInvalid, match=r"is cut off|is no readable tar archive"):
        found(tmp_path / "a.tar")


def test_a_packed_tar_that_never_ends_is_stopped_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "FREE_BYTES", 1024**2)
    tar(tmp_path / "a.tar.gz", ("a/x.png", b"\0" * 20_000_000), mode="w:gz")
    with pytest.raises(LimitExceeded, match="unpacks to more than 500 times its"):
        found(tmp_path / "a.tar.gz")
    with pytest.raises(LimitExceeded, match=r"unpacks to more than 2\.0 MiB \(MAX_DATASET_BYTES\)"):
        found(tmp_path / "a.tar.gz", Limits(dataset_bytes=2 * 1024**2))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 1024**2


def zipped(path: Path, change: Callable[[zipfile.ZipInfo], None] = lambda info: None, content: bytes = PNG) -> Path:
    info = zipfile.ZipInfo("a/x.png")
    info.compress_type = zipfile.ZIP_DEFLATED
    change(info)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, content)
    return path


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def named(name: str) -> Callable[[zipfile.ZipInfo], None]:
    def rename(info: zipfile.ZipInfo) -> None:
        info.filename = info.orig_filename = name

    return rename


def by_lzma(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_LZMA


HOSTILE_ZIPS: dict[str, tuple[Callable[[zipfile.ZipInfo], None], str]] = {
    "climbs out": (named("../x.png"), r"the name contains a \. or \.\. folder"),
    "backslash": (named("..\\x.png"), "the name contains a backslash"),
    "drive": (named("C:/x.png"), "the name is an absolute path"),
    "link": (link, "is a symbolic link"),
    "method": (by_lzma, "is packed by another method than deflate"),
    "no name": (named(""), "the name is empty"),
    "a name with an end": (named("a/x.png\0.txt"), "the name contains a control character"),
    "absolute": (named("/x.png"), "the name is an absolute path"),
    "a folder with content": (named("a/"), "is a folder that has content"),
    "a file that is a folder": (named("a/x.png/y.png"), "the name is that of a file and of a folder"),
}


@pytest.mark.parametrize("case", HOSTILE_ZIPS)
def test_a_hostile_zip_is_refused_by_member(tmp_path: Path, case: str) -> None:
    change, why = HOSTILE_ZIPS[case]
    path = zipped(tmp_path / "a.zip", change)
    if case == "a file that is a folder":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a/x.png", PNG)
    with pytest.raises(DatasetInvalid, match=rf"^Invalid dataset: a\.zip: .*{why}"):
        found(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_a_file_that_stands_in_an_archive_twice_is_refused(tmp_path: Path, name: str) -> None:
    if name == "a.tar":
        tar(tmp_path / name, ("a/x.png", PNG), ("./a/x.png", PNG))
    else:
        with zipfile.ZipFile(zipped(tmp_path / name), "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/x.png", PNG)
    with pytest.raises(DatasetInvalid, match=rf"^Invalid dataset: {name}: 'a/x\.png' stands there twice"):
        found(tmp_path / name)


# Where they stand in an entry of a zip's list.
FLAGS, PACKED, OFFSET = 8, 20, 42


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (FLAGS, b"\1\0", "is encrypted"),
        (PACKED, (10**9).to_bytes(4, "little"), "has far more bytes packed than unpacked"),
        (PACKED, b"\xff" * 4, "the size of a file in it is missing"),
        (OFFSET, (10**9).to_bytes(4, "little"), "is not where the archive's list says"),
        (0, b"PK\1\3", "its list of files is broken"),
        (28, b"\xff\xff", "its list of files is cut off"),
    ],
)
def test_a_zip_whose_list_is_wrong_is_refused(tmp_path: Path, at: int, value: bytes, why: str) -> None:
    whole = bytearray(zipped(tmp_path / "a.zip").read_bytes())
    entry = whole.index(b"PK\1\2")
    whole[entry + at : entry + at + len(value)] = value
    (tmp_path / "a.zip").write_bytes(whole)
    with pytest.raises(DatasetInvalid, match=rf"^Invalid dataset: a\.zip: .*{why}"):
        found(tmp_path / "a.zip")


def test_zips_as_other_programs_write_them_are_read(tmp_path: Path) -> None:
    """Streamed, with a zip64 part and end, names in the encoding of DOS, a comment, a program before the archive."""
    stream = io.BytesIO()
    stream.seekable = lambda: False  # type: ignore[method-assign]
    with zipfile.ZipFile(stream, "w") as archive:
        with archive.open("a/x.png", "w", force_zip64=True) as file:
            file.write(PNG)
        archive.writestr("b/y.png", PNG, zipfile.ZIP_DEFLATED)
        archive.writestr("c/z.png", PNG)
        archive.comment = b"PK\5\6 is how an archive ends"
    content = stream.getvalue().replace(b"c/z.png", "c/\xfc.png".encode("cp437"))
    (tmp_path / "a.zip").write_bytes(b"#!/bin/unzip\n" + content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            for name in ("a/x.png", "b/y.png"):
                archive.writestr(name, PNG)
    assert [member.read() for member in found(tmp_path / "b.zip")] == [PNG] * 2
    members = found(tmp_path / "a.zip")
    assert [member.read() for member in members] == [PNG] * 3
    assert [member.name for member in members] == ["a/x.png", "b/y.png", "c/\xfc.png"]


def test_the_list_of_a_zip_is_counted_while_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.png", PNG)
    with pytest.raises(LimitExceeded, match=r"a\.zip holds more than 3 files"):
        found(tmp_path / "a.zip", Limits(dataset_files=3))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    zipped(tmp_path / "flat.zip", content=b"\0" * 20_000_000)
    with pytest.raises(LimitExceeded, match=r"flat\.zip: 'a/x\.png' unpacks to more than 500 times its size"):
        found(tmp_path / "flat.zip")
    with pytest.raises(LimitExceeded, match=r"MAX_DATASET_BYTES"):
        found(zipped(tmp_path / "small.zip", content=bytes(range(256)) * 100), Limits(dataset_bytes=1000))


def test_members_of_a_zip_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """The flat bomb of many files over one compressed kernel (Fifield, WOOT 2019)."""
    whole = bytearray(zipped(tmp_path / "a.zip").read_bytes())
    at = whole.index(b"PK\1\2")
    end = whole.index(b"PK\5\6")
    entry = bytes(whole[at:end])
    second = entry.replace(b"a/x.png", b"a/y.png")
    tail = bytearray(whole[end:])
    tail[8:12] = (2).to_bytes(2, "little") * 2
    tail[12:16] = len(entry + second).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(bytes(whole[:at]) + entry + second + bytes(tail))
    with pytest.raises(DatasetInvalid, match="overlaps"):
        found(tmp_path / "b.zip")


def test_a_zip_whose_list_lies_about_a_size_is_refused_when_it_is_read(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", content=b"0123456789" * 30).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole.replace((300).to_bytes(4, "little"), (20).to_bytes(4, "little")))
    (member,) = found(tmp_path / "a.zip")
    with pytest.raises(DatasetInvalid, match=r"a\.zip/a/x\.png: does not unpack to the size"):
        member.read()


def test_an_archive_within_an_archive_is_not_followed(tmp_path: Path) -> None:
    image_folder(tmp_path, 24)
    tar(tmp_path / "inner.tar", ("left/x.png", PNG))
    tar(tmp_path / "train" / "outer.tar", ("left/inner.tar", (tmp_path / "inner.tar").read_bytes()))
    (tmp_path / "inner.tar").unlink()
    problem = ImageClassification().prepare(tmp_path, TaskSettings())
    assert sum(len(split["pixels"]) for split in problem.splits.values()) == 24


@pytest.mark.parametrize("name", ["a.tar", "a.zip", "a.tar.gz"])
def test_what_is_no_archive_is_no_traceback(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"just some text" * 100)
    with pytest.raises(DatasetInvalid, match=rf"^Invalid dataset: {name}: "):
        found(tmp_path / name)


def test_more_files_in_an_archive_than_the_limit_are_refused(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", *((f"a/{number}.png", b"") for number in range(12)))
    with pytest.raises(LimitExceeded, match="more than 10 files"):
        found(tmp_path / "a.tar", Limits(dataset_files=10))
