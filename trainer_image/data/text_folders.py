"""Texts as one file each, in a folder for each class: `train/pos/1.txt`, or `pos/1.txt` where no split is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trainer_image.data.splits import NAMES, Found, visible

# Folders beside those of the classes that say of themselves that nobody has labelled what is in them.
UNLABELLED = frozenset({"unsup", "unsupervised", "unlabeled", "unlabelled", "unlab"})


@dataclass(frozen=True)
class ClassFolders:
    """Files of each split, the class of each, and what is to be said about them."""

    found: Found
    classes: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_class_folders(data: Path) -> ClassFolders | None:
    """None where there are not at least two folders of training texts."""
    inside = _folders(data)
    while len(inside) == 1 and inside[0].name.lower() not in NAMES:  # what an archive was packed as
        inside = _folders(inside[0])
    splits = {NAMES[folder.name.lower()]: _folders(folder) for folder in inside if folder.name.lower() in NAMES}
    if not splits:
        splits["train"] = inside
    classes: dict[Path, str] = {}
    files: dict[str, tuple[Path, ...]] = {}
    left_out: list[str] = []
    for split, folders in splits.items():
        for folder in folders:
            texts = files_below(folder)
            if folder.name.lower() in UNLABELLED:
                left_out.append(f"{folder.relative_to(data).as_posix()} ({len(texts)} files)")
                continue
            classes |= dict.fromkeys(texts, folder.name)
            files[split] = (*files.get(split, ()), *texts)
    if len({classes[path] for path in files.get("train", ())}) < 2:
        return None
    notes = [f"Texts without a label were not used: {', '.join(left_out)}."] if left_out else []
    return ClassFolders(Found(**files), classes, notes)


def files_below(folder: Path) -> list[Path]:
    """All files below the folder, by path, without hidden ones and what programs leave behind."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts[:-1])
        and not path.name.startswith(".")
    ]


def _folders(data: Path) -> list[Path]:
    return [path for path in visible(data) if path.is_dir()]
