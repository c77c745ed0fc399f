"""Datasets of tables in archives: what lies in them is laid out in the work folder as if it had been brought so.

`train.zip` or `train.csv.zip` is the training split, an archive of any other name is the dataset itself; a folder
around all that it holds is passed over. Only tables are unpacked, by our own reader of archives and under its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from trainer_image.data.archives import SUFFIXES, Member, is_archive, members
from trainer_image.data.file_kinds import unread
from trainer_image.data.spill import Scratch
from trainer_image.data.splits import HIDDEN, NAMES, alike, stem, taken_for, top_of, visible
from trainer_image.errors import DatasetInvalid, invalid
from trainer_image.limits import Limits

# Of a table that is packed; larger ones are brought as .csv.gz or as Parquet.
MEMBER_BYTES = 64 * 1024**3


def looked_into(data: Path, limits: Limits, scratch: Scratch, reads: Callable[[str], bool]) -> tuple[Path, list[str]]:
    """(the dataset without archives: a folder of `scratch` if it has any, which lives as long; what is to be said).

    reads: whether a file of this name is wanted. Raises DatasetInvalid, LimitExceeded.
    """
    data = top_of(data)
    found = [data] if data.is_file() else visible(data)
    packed = [path for path in found if path.is_file() and is_archive(path)]
    if not packed:
        return data, []
    plain = [path for path in found if path not in packed]
    there = {NAMES.get(stem(path.name)) for path in plain}
    notes = []
    laid_out = scratch.file()
    laid_out.mkdir()
    for path in plain:
        (laid_out / path.name).symlink_to(path.absolute())
    named = {_stem(path): NAMES[_stem(path)] for path in packed if _stem(path) in NAMES}
    for guessed, stems in alike([_stem(path) for path in packed]).items():
        if guessed not in named.values():
            named |= dict.fromkeys(stems, guessed)
            notes += taken_for(guessed, stems)
    for path in packed:
        split = named.get(_stem(path))
        if split in there if split else "train" in there:
            notes.append(f"{path.name} was not looked into: what it is named for lies beside it.")
            continue
        held = [m for m in members(path.name, path, limits, scratch, most=MEMBER_BYTES) if not _hidden(m.name)]
        inside = [member for member in held if reads(member.name)]
        for member, place in _places(inside, split):
            scratch.room_for(member.size)
            _lay(member, laid_out / place)
        if inside:
            notes.append(f"{path.name} was unpacked: {len(inside)} file{'s' * (len(inside) != 1)}.")
        elif len(packed) == 1 and not any(other.is_dir() or reads(other.name) for other in plain):
            raise _of_no_use(path, [member.name for member in held])
    return laid_out, notes


def _of_no_use(archive: Path, held: Sequence[str]) -> DatasetInvalid:
    """held: the names of what is in it"""
    if not held:
        return invalid(archive.name, "holds no files")
    shown = ", ".join(f"'{name}'" for name in held[:3]) + (", …" if len(held) > 3 else "")
    within = any(is_archive(Path(name)) for name in held)
    hint = "archives in archives are not looked into: unpack them" if within else unread(Path(held[0]), b"")
    return invalid(archive.name, f"holds nothing that is read here: it holds {shown}{'; ' * bool(hint)}{hint}")


def _stem(path: Path) -> str:
    name = path.name.lower()
    return stem(name[: -len(next(suffix for suffix in SUFFIXES if name.endswith(suffix)))])


def _hidden(name: str) -> bool:
    return any(segment.startswith(HIDDEN) for segment in name.split("/"))


def _places(inside: list[Member], split: str | None) -> list[tuple[Member, str]]:
    """Where each file goes: below its split, and without the folders that are around all of them."""
    places = [member.name.split("/") for member in inside]
    while places and all(len(place) > 1 and place[0] == places[0][0] for place in places):
        if split is None and places[0][0].lower() in NAMES:
            break
        places = [place[1:] for place in places]
    return [
        (member, "/".join([*([split] if split else []), *place])) for member, place in zip(inside, places, strict=True)
    ]


def _lay(member: Member, path: Path) -> None:
    if path.exists():
        raise invalid(
            f"{member.archive}/{member.name}",
            "is there a second time, beside the archive or in another one: unpack"
            " each archive into a folder of its own",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    member.write(path)
