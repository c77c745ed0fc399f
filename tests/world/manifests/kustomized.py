"""Renders manifests with `kubectl kustomize`, as an operator's `kubectl apply -k` would."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.world.repository import MANIFESTS, ROOT

COMPONENTS = sorted(path.parent.name for path in (MANIFESTS / "components").glob("*/kustomization.yaml"))
# What production lists by itself.
STANDARD = tuple(
    path.rsplit("/", 1)[1]
    for path in yaml.safe_load((MANIFESTS / "overlays" / "production" / "kustomization.yaml").read_text())["components"]
)
# An operator's own overlay of 0.1, which lies among the tests.
_ONE_NAMESPACE = ROOT / "tests" / "manifests" / "one_namespace"
# Overlay → the components that can be added to it. In one namespace the policy would refuse the dispatcher's own pods,
# and trainings share their credentials; in two a training has no identity.
_ADDED: dict[str, tuple[str, ...]] = {
    "production": tuple(c for c in COMPONENTS if c not in {*STANDARD, "workload-identity-trainings"}),
    "one_namespace": tuple(c for c in COMPONENTS if c not in {"admission-policy", "scoped-credentials"}),
}
# Name → (overlay, components on top of it).
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "production": ("production", ()),
    "local": ("local", ()),
    "one_namespace": ("one_namespace", ()),
    **{f"production+{name}": ("production", (name,)) for name in _ADDED["production"]},
    **{f"{overlay}+all": (overlay, added) for overlay, added in _ADDED.items()},
}

Object = dict[str, Any]

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@functools.cache
def rendered(variant: str) -> tuple[Object, ...]:
    """All objects of one of VARIANTS. Do not change them: they are shared."""
    overlay, components = VARIANTS[variant]
    if not components and overlay != _ONE_NAMESPACE.name:
        return kustomize(MANIFESTS / "overlays" / overlay)
    with tempfile.TemporaryDirectory() as folder:
        # As an operator opts in: in the overlay's own list.
        copy = shutil.copytree(MANIFESTS, Path(folder) / "manifests")
        shutil.copytree(_ONE_NAMESPACE, copy / "overlays" / _ONE_NAMESPACE.name)
        kustomization = copy / "overlays" / overlay / "kustomization.yaml"
        content = yaml.safe_load(kustomization.read_text(encoding="utf-8"))
        listed = [f"../../components/{name}" for name in components]
        content["components"] = [*(content.get("components") or ()), *listed]
        kustomization.write_text(yaml.safe_dump(content), encoding="utf-8")
        return kustomize(kustomization.parent)


def kustomize(folder: Path) -> tuple[Object, ...]:
    """The objects of one kustomization; an AssertionError with kubectl's words where it does not render."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document is not None)


def of_kind(variant: str, kind: str) -> dict[str, Object]:
    """The variant's objects of a kind, by name."""
    return {thing["metadata"]["name"]: thing for thing in rendered(variant) if thing["kind"] == kind}


def config_map(variant: str, name: str) -> Object:
    """The generated ConfigMap `name`, whatever the hash at its end."""
    (found,) = (
        thing
        for key, thing in of_kind(variant, "ConfigMap").items()
        if re.fullmatch(rf"{re.escape(name)}(-[a-z0-9]{{10}})?", key)
    )
    return found


def settings_of(variant: str) -> dict[str, str]:
    """What config.env and the literals of a variant come to."""
    data: dict[str, str] = config_map(variant, "training-dispatcher")["data"]
    return data


def has_two_namespaces(variant: str) -> bool:
    """Whether the dispatcher has a namespace of its own, and each training credentials of its own."""
    return len(of_kind(variant, "Namespace")) == 2


def template_of(variant: str) -> str:
    """The Job template's text."""
    text: str = config_map(variant, "training-job-template")["data"]["job-template.yaml"]
    return text


def template_pod(variant: str) -> Object:
    """The pod template of the Job template: {metadata, spec}."""
    pod: Object = yaml.safe_load(template_of(variant))["spec"]["template"]
    return pod


def pods(variant: str) -> dict[str, Object]:
    """Every pod template that runs in the cluster, by a name for people: Deployments and the Job template."""
    found = {f"Deployment {name}": thing["spec"]["template"] for name, thing in of_kind(variant, "Deployment").items()}
    return {**found, "Job template": template_pod(variant)}


def containers(pod: Object) -> Iterator[Object]:
    """Init containers and containers of a pod template."""
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]
