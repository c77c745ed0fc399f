"""What a container's process gets: environment, command line and folders in place of mounts.

There is no mount namespace: every volume is a folder under the pod's own, and each environment value or argument
that is a mount path, or lies under one, is rewritten to it.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_stack.cluster.node.network import resolved
from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.quantities import quantity
from local_stack.cluster.registry.store import Store

_REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")
_ANNOTATION = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class MissingError(Exception):
    """A Secret, ConfigMap or key that the container needs does not exist; the text is the kubelet's."""


@dataclass
class Folders:
    """Where a pod's things lie: `root` is the working folder, `mounts` maps mount paths to folders."""

    root: Path
    termination: Path
    termination_path: str
    mounts: dict[str, Path] = field(default_factory=dict)

    def localized(self, text: str) -> str:
        """`text` with a leading mount path replaced by its folder."""
        if not text.startswith("/"):
            return text
        if text == self.termination_path:
            return str(self.termination)
        for path in sorted(self.mounts, key=len, reverse=True):
            if text == path or text.startswith(path.rstrip("/") + "/"):
                rest = text[len(path) :].lstrip("/")
                return str(self.mounts[path] / rest) if rest else str(self.mounts[path])
        return text


def container_environment(store: Store, pod: Obj, container: Obj, folders: Folders) -> dict[str, str]:
    """The whole environment: what an image sets, then envFrom, then env, then the termination message's path."""
    namespace = pod["metadata"]["namespace"]
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folders.root),
        "LANG": "C.UTF-8",
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        "OMP_WAIT_POLICY": "passive",  # as the trainer's image: pods share this machine's cores
    }
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for kind in ("configMapRef", "secretRef"):
            reference = source.get(kind)
            if reference:
                plural = "secrets" if kind == "secretRef" else "configmaps"
                data = data_of(store, plural, namespace, reference)
                env |= {prefix + key: content.decode() for key, content in data.items()}
    declared: dict[str, str] = {}
    for entry in container.get("env") or ():
        value = _value(store, pod, container, entry, {**env, **declared})
        if value is not None:
            declared[entry["name"]] = resolved(pod, value)
    env |= {name: folders.localized(value) for name, value in declared.items()}
    env["TERMINATION_MESSAGE_PATH"] = str(folders.termination)
    return env


def _value(store: Store, pod: Obj, container: Obj, entry: Obj, env: dict[str, str]) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(entry.get("value") or "", env)
    namespace = pod["metadata"]["namespace"]
    for kind, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        reference = source.get(kind)
        if not reference:
            continue
        data = data_of(store, plural, namespace, reference)
        if reference["key"] not in data:
            if reference.get("optional"):
                return None
            word = "Secret" if plural == "secrets" else "ConfigMap"
            raise MissingError(f"couldn't find key {reference['key']} in {word} {namespace}/{reference['name']}")
        return data[reference["key"]].decode()
    if source.get("fieldRef"):
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if source.get("resourceFieldRef"):
        return _resource_value(container, source["resourceFieldRef"])
    return ""


def data_of(store: Store, plural: str, namespace: str, reference: Obj) -> dict[str, bytes]:
    """What a Secret or ConfigMap holds; MissingError where it is not there and is not optional."""
    found = store.get(plural, namespace, reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        word = "secret" if plural == "secrets" else "configmap"
        raise MissingError(f'{word} "{reference["name"]}" not found')
    if plural == "secrets":
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in (found.get("data") or {}).items()} | binary


def field_value(pod: Obj, path: str) -> str:
    """The downward API's fields."""
    found = _ANNOTATION.fullmatch(path)
    if found:
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    value: Any = pod
    for key in path.split("."):
        value = value.get(key, "") if isinstance(value, dict) else ""
    return "" if isinstance(value, dict) else str(value)


def _resource_value(container: Obj, reference: Obj) -> str:
    group, _, name = reference["resource"].partition(".")
    amount = ((container.get("resources") or {}).get(group) or {}).get(name, "0")
    divisor = quantity(str(reference.get("divisor") or "1")) or 1.0
    return str(-int(-quantity(str(amount)) // divisor))


def expand(text: str, env: dict[str, str]) -> str:
    """`$(NAME)` becomes the value if there is one; `$$` stands for a dollar sign."""

    def replaced(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return env.get(found[1], found[0])

    return _REFERENCE.sub(replaced, text)


def command_line(container: Obj, entrypoint: list[str] | None, env: dict[str, str], folders: Folders) -> list[str]:
    """`command` stands in for the image's entry point, `args` follow. Only they can name mounts of the pod."""
    command, args = container.get("command") or (), container.get("args") or ()
    words = [folders.localized(expand(word, env)) for word in (*command, *args)]
    return words if command else [*(entrypoint or ()), *words]


def make_folders(container: Obj, volumes: dict[str, Path], home: Path) -> Folders:
    """The folders of one container under the pod's folder `home`."""
    root = home / "work"
    (home / "logs").mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    name = container["name"]
    path = container.get("terminationMessagePath") or "/dev/termination-log"
    folders = Folders(root, home / f"termination-{name}", path)
    folders.termination.write_bytes(b"")
    for mount in container.get("volumeMounts") or ():
        local = volumes[mount["name"]]
        if mount.get("subPath"):
            local = local / mount["subPath"]
            if not local.exists():
                local.mkdir(parents=True)
        folders.mounts[os.path.normpath(mount["mountPath"])] = local
    return folders
