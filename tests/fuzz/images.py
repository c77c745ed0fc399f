"""Images and archives: sound samples, damage that keeps checksums right, and what reads them."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import damage
from tests.fuzz.damage import LIMITS
from trainer_image.limits import Limits


def _pixels(mode: str = "RGB") -> Any:
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)).convert(mode)


def pictures(kind: str) -> Callable[[], Sequence[bytes]]:
    ways: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "PNG": [("RGB", {}), ("P", {}), ("LA", {}), ("I;16", {}), ("1", {})],
        "JPEG": [("RGB", {}), ("L", {"progressive": True}), ("CMYK", {})],
        "BMP": [("RGB", {}), ("P", {}), ("1", {})],
        "GIF": [("P", {}), ("P", {"save_all": True})],
        "WEBP": [("RGB", {}), ("RGBA", {"lossless": True}), ("RGB", {"save_all": True})],
    }

    def made() -> Sequence[bytes]:
        written = []
        for mode, options in ways[kind]:
            out = io.BytesIO()
            more = {"append_images": [_pixels(mode).rotate(90)]} if "save_all" in options else {}
            image = _pixels("L").convert("I;16") if mode == "I;16" else _pixels(mode)
            image.save(out, kind, **options, **more)
            written.append(out.getvalue())
        return written

    return cache(made)


def png_damage(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    """Half of them with checksums that fit: else hardly any damage gets past them."""
    content = damage.binary(content, samples, random)
    if random.random() < 0.5:
        return content
    fixed = bytearray(content)
    at = 8
    while at + 12 <= len(fixed):
        length = int.from_bytes(fixed[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def picture(suffix: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.data.spill import Scratch
        from trainer_image.tasks.image.files import read_headers, read_pixels
        from trainer_image.tasks.image.labels import list_samples
        from trainer_image.tasks.image.sources import find_images

        (folder / "a").mkdir(exist_ok=True)
        (folder / "a" / f"x{suffix}").write_bytes(content)
        scratch = Scratch(memory_bytes=64 * 1024**2)
        limits = Limits(image_pixels=1_000_000)
        samples = list_samples(find_images(folder, limits, scratch)["train"], limits, scratch)
        read_headers(samples, limits)
        return [read_pixels(samples, (16, 16), channels, limits, scratch) for channels in (1, 3)]

    return read


def _members() -> list[tuple[str, bytes]]:
    png = pictures("PNG")()[0]
    return [
        ("a/1.png", png),
        ("b/2.png", png),
        ("b/" + "long" * 40 + ".png", png),
        ("metadata.txt", b"x" * 3000),
        ("ä.png", png),
    ]


@cache
def zips() -> Sequence[bytes]:
    written = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.mkdir("empty")
            for name, content in _members():
                archive.writestr(name, content)
            archive.comment = b"a comment"
        written.append(out.getvalue())
    return written


@cache
def tars() -> Sequence[bytes]:
    written = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for name, content in _members():
                info = tarfile.TarInfo(name if form != tarfile.USTAR_FORMAT else name[-90:].lstrip("/"))
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        written.append(out.getvalue()[: -8 * 1024])
    return written


def tar_damage(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    """Half of them with checksums that fit."""
    content = damage.binary(content, samples, random)
    if random.random() < 0.5:
        return content
    fixed = bytearray(content)
    for at in range(0, len(fixed) - 511, 512):
        header = fixed[at : at + 512]
        if header[257:262] == b"ustar":
            total = sum(header[:148]) + 8 * 32 + sum(header[156:])
            fixed[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(fixed)


def archive(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.data.archives import members
        from trainer_image.data.spill import Scratch

        (folder / name).write_bytes(content)
        scratch = Scratch(folder)
        return [member.read() for member in members(name, folder / name, LIMITS, scratch)]

    return read


def metadata(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        from trainer_image.data.spill import Scratch
        from trainer_image.tasks.image.labels import list_samples
        from trainer_image.tasks.image.sources import find_images

        (folder / name).write_bytes(content)
        for number in range(3):
            (folder / f"{number}.png").write_bytes(pictures("PNG")()[0])
        scratch = Scratch(memory_bytes=64 * 1024**2)
        return list_samples(find_images(folder, LIMITS, scratch)["train"], LIMITS, scratch, group="group")

    return read


@cache
def metadata_lines() -> Sequence[bytes]:
    lines = [{"file_name": f"{n}.png", "label": "ab"[n % 2], "group": f"g{n}", "n": n} for n in range(3)]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


@cache
def metadata_tables() -> Sequence[bytes]:
    return [b"file_name,label,group\n0.png,a,g\n./1.png,b,h\n2.png,a,g\n"]
