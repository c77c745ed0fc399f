"""A pod's volumes as folders: emptyDirs, claims, and the files of Secrets, ConfigMaps and the downward API.

As the kubelet writes those (its AtomicWriter): the files lie in a folder of their own, ..data is a link to it, and each
name a link through ..data. A new version is a new folder, and one rename of ..data shows all of it at once.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_stack.cluster.node.container_env import MissingError, data_of, field_value
from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.store import Store

_DATA = "..data"


@dataclass(frozen=True)
class _File:
    content: bytes
    mode: int


def prepare_volumes(store: Store, pod: Obj, volumes: Path, claims: Path) -> dict[str, Path]:
    """A folder for each volume, filled; MissingError when a Secret or ConfigMap is not there."""
    folders: dict[str, Path] = {}
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or ():
        folder = volumes / volume["name"]
        claim = volume.get("persistentVolumeClaim")
        if claim:
            folder = claims / namespace / claim["claimName"]
        folder.mkdir(parents=True, exist_ok=True)
        folders[volume["name"]] = folder
        _refresh(store, pod, volume, folder)
    return folders


def refresh_volumes(store: Store, pod: Obj, volumes: Path) -> None:
    """Show what Secrets and ConfigMaps hold now; what is gone meanwhile stays as it was."""
    for volume in pod["spec"].get("volumes") or ():
        with contextlib.suppress(MissingError):
            _refresh(store, pod, volume, volumes / volume["name"])


def sources_of(pod: Obj) -> set[tuple[str, str]]:
    """(plural, name) of the Secrets and ConfigMaps that its volumes show."""
    return {
        (plural, name)
        for volume in pod["spec"].get("volumes") or ()
        for _, plural, name in map(_reference, _parts(volume))
        if name
    }


def _refresh(store: Store, pod: Obj, volume: Obj, folder: Path) -> None:
    try:
        files = dict(file for part in _parts(volume) for file in _files(store, pod, part))
    except MissingError as why:
        raise MissingError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {why}') from None
    if any(kind in volume for kind in ("secret", "configMap", "projected", "downwardAPI")):
        _write(folder, files)


def _parts(volume: Obj) -> list[Obj]:
    """What it shows; the mode of a projected volume is each of its parts'."""
    projected = volume.get("projected")
    if projected is None:
        return [volume]
    mode = projected.get("defaultMode")
    return [
        {
            kind: {"defaultMode": mode, **part} if mode and isinstance(part, dict) else part
            for kind, part in source.items()
        }
        for source in projected.get("sources") or ()
    ]


def _reference(part: Obj) -> tuple[Obj, str, str]:
    """(its reference, the plural, the name); {} where it shows neither a Secret nor a ConfigMap."""
    for kind, plural in (("secret", "secrets"), ("configMap", "configmaps")):
        if (reference := part.get(kind)) is not None:
            return reference, plural, reference.get("secretName") or reference.get("name") or ""
    return {}, "", ""


def _files(store: Store, pod: Obj, part: Obj) -> Iterator[tuple[str, _File]]:
    reference, plural, name = _reference(part)
    if reference and name != "kube-root-ca.crt":
        mode = reference.get("defaultMode") or 0o644
        wanted = {"name": name, "optional": reference.get("optional")}
        data = data_of(store, plural, pod["metadata"]["namespace"], wanted)
        for item in reference.get("items") or [{"key": key, "path": key} for key in data]:
            if item["key"] not in data:
                raise MissingError(f"references non-existent {plural.removesuffix('s')} key: {item['key']}")
            yield item["path"], _File(data[item["key"]], item.get("mode") or mode)
    downward = part.get("downwardAPI") or {}
    for item in downward.get("items") or ():
        if item.get("fieldRef"):
            value = field_value(pod, item["fieldRef"]["fieldPath"]).encode()
            yield item["path"], _File(value, item.get("mode") or downward.get("defaultMode") or 0o644)


def _write(folder: Path, files: dict[str, _File]) -> None:
    """Replace what the volume shows, in one step."""
    data = folder / _DATA
    old = data.resolve() if data.is_symlink() else None
    if old is not None and _content(old) == {path: file.content for path, file in files.items()}:
        return
    new = folder / f"..{secrets.token_hex(6)}"
    new.mkdir()
    for path, file in files.items():
        target = new / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    link = folder / "..data_tmp"
    link.symlink_to(new.name)
    link.rename(data)
    names = {Path(path).parts[0] for path in files}
    for name in names:
        with contextlib.suppress(FileExistsError):
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for shown in folder.iterdir():
        if shown.is_symlink() and shown.name not in names | {_DATA}:
            shown.unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
