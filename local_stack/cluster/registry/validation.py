"""What the API server refuses with 422 on metadata, Jobs and pods, in its own words (pure).

Source of the rules: Kubernetes' pkg/apis/{core,batch}/validation, as far as a Job orchestrator can get them wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from local_stack.cluster.registry.errors import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_field,
    required,
    unsupported,
)
from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.quantities import quantity
from local_stack.cluster.registry.resources import Resource

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ENV_NAME = re.compile(r"[!-<>-~ ]+")
_LABEL_HELP = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_HELP = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_HELP = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_HELP = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_FINALIZERS = ("foregroundDeletion", "orphan", "kubernetes")
_ANNOTATIONS_LIMIT = 256 * 1024


def metadata_causes(resource: Resource, meta: Obj) -> list[Cause]:
    """Name, labels, annotations and finalizers."""
    causes = []
    name = meta.get("name") or ""
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif resource.plural == "namespaces":
        if len(name) > 63:
            causes.append(invalid_value("metadata.name", name, "must be no more than 63 characters"))
        elif not _DNS_LABEL.fullmatch(name):
            causes.append(invalid_value("metadata.name", name, _LABEL_HELP))
    elif len(name) > 253:
        causes.append(invalid_value("metadata.name", name, "must be no more than 253 characters"))
    elif not _SUBDOMAIN.fullmatch(name):
        causes.append(invalid_value("metadata.name", name, _SUBDOMAIN_HELP))
    causes += label_causes("metadata.labels", meta.get("labels") or {})
    annotations = meta.get("annotations") or {}
    causes += [cause for key in annotations for cause in _key_causes("metadata.annotations", key.lower())]
    if sum(len(key) + len(value) for key, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        causes.append(
            Cause(
                "metadata.annotations",
                "FieldValueTooLong",
                f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes",
            )
        )
    for finalizer in meta.get("finalizers") or ():
        if "/" not in finalizer and finalizer not in _FINALIZERS:
            causes.append(
                invalid_value(
                    "metadata.finalizers",
                    finalizer,
                    "name is neither a standard finalizer name nor is it fully qualified",
                )
            )
    return causes


def label_causes(field: str, labels: Obj) -> list[Cause]:
    """Keys and values of a label map."""
    causes = []
    for key, value in labels.items():
        causes += _key_causes(field, key)
        if len(value) > 63:
            causes.append(invalid_value(field, value, "must be no more than 63 characters"))
        elif value and not _NAME_PART.fullmatch(value):
            causes.append(invalid_value(field, value, _VALUE_HELP))
    return causes


def _key_causes(field: str, key: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or not _SUBDOMAIN.fullmatch(prefix)):
        return [invalid_value(field, key, f"prefix part {_SUBDOMAIN_HELP}")]
    if not name:
        return [invalid_value(field, key, "name part must be non-empty")]
    if len(name) > 63:
        return [invalid_value(field, key, "name part must be no more than 63 characters")]
    if not _NAME_PART.fullmatch(name):
        return [invalid_value(field, key, _KEY_HELP)]
    return []


def pod_spec_causes(path: str, spec: Obj) -> list[Cause]:
    """Containers, their environment, resources and mounts, and the spec's own scalars."""
    causes: list[Cause] = []
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    for at, volume in enumerate(spec.get("volumes") or ()):
        if not volume.get("name"):
            causes.append(required(f"{path}.volumes[{at}].name"))
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for at, container in enumerate(spec.get(group) or ()):
            here = f"{path}.{group}[{at}]"
            name = container.get("name") or ""
            if not name:
                causes.append(required(f"{here}.name"))
            elif len(name) > 63 or not _DNS_LABEL.fullmatch(name):
                causes.append(invalid_value(f"{here}.name", name, _LABEL_HELP))
            elif name in names:
                causes.append(duplicate(f"{here}.name", name))
            names.add(name)
            causes += _container_causes(here, container, volumes)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        causes.append(unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never")))
    causes += _not_negative(path, spec, ("terminationGracePeriodSeconds",))
    if spec.get("activeDeadlineSeconds") is not None and spec["activeDeadlineSeconds"] < 1:
        causes.append(
            invalid_value(
                f"{path}.activeDeadlineSeconds",
                spec["activeDeadlineSeconds"],
                "must be between 1 and 2147483647, inclusive",
            )
        )
    causes += label_causes(f"{path}.nodeSelector", spec.get("nodeSelector") or {})
    return causes


def _container_causes(here: str, container: Obj, volumes: set[Any]) -> list[Cause]:
    causes: list[Cause] = []
    image = container.get("image") or ""
    if not image:
        causes.append(required(f"{here}.image"))
    elif image != image.strip():
        causes.append(invalid_value(f"{here}.image", image, "must not have leading or trailing whitespace"))
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        causes.append(
            unsupported(f"{here}.imagePullPolicy", container["imagePullPolicy"], ("Always", "IfNotPresent", "Never"))
        )
    if container.get("terminationMessagePolicy") not in ("File", "FallbackToLogsOnError"):
        causes.append(
            unsupported(
                f"{here}.terminationMessagePolicy",
                container["terminationMessagePolicy"],
                ("FallbackToLogsOnError", "File"),
            )
        )
    for at, env in enumerate(container.get("env") or ()):
        where = f"{here}.env[{at}]"
        name = env.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name"))
        elif not _ENV_NAME.fullmatch(name):
            causes.append(
                invalid_value(
                    f"{where}.name",
                    name,
                    "a valid environment variable name must consist only of printable ASCII characters other than '='",
                )
            )
        source = env.get("valueFrom")
        if source is not None:
            if env.get("value"):
                causes.append(invalid_value(f"{where}.valueFrom", "", "may not be specified when `value` is not empty"))
            elif not source:
                causes.append(
                    invalid_value(
                        f"{where}.valueFrom",
                        "",
                        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
                        "`secretKeyRef` or `fileKeyRef`",
                    )
                )
            for kind in ("secretKeyRef", "configMapKeyRef"):
                if source.get(kind) is not None:
                    causes += [
                        required(f"{where}.valueFrom.{kind}.{key}")
                        for key in ("name", "key")
                        if not source[kind].get(key)
                    ]
    causes += _mount_causes(here, container, volumes)
    causes += _resource_causes(f"{here}.resources", container.get("resources") or {})
    return causes


def _mount_causes(here: str, container: Obj, volumes: set[Any]) -> list[Cause]:
    causes = []
    seen: set[str] = set()
    for at, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{here}.volumeMounts[{at}]"
        if not mount.get("name"):
            causes.append(required(f"{where}.name"))
        elif mount["name"] not in volumes:
            causes.append(not_found_field(f"{where}.name", mount["name"]))
        if not mount.get("mountPath"):
            causes.append(required(f"{where}.mountPath"))
        elif mount["mountPath"] in seen:
            causes.append(invalid_value(f"{where}.mountPath", mount["mountPath"], "must be unique"))
        seen.add(mount.get("mountPath") or "")
    return causes


def _resource_causes(path: str, resources: Obj) -> list[Cause]:
    causes = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    amounts: dict[tuple[str, str], float] = {}
    for group, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            where = f"{path}.{group}[{name}]"
            try:
                amounts[group, name] = amount = quantity(str(value))
            except ValueError:
                causes.append(
                    invalid_value(
                        where,
                        value,
                        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                    )
                )
                continue
            if amount < 0:
                causes.append(invalid_value(where, value, "must be greater than or equal to 0"))
            elif "/" in name and amount != int(amount):
                causes.append(invalid_value(where, value, "must be an integer"))
    for name, value in requests.items():
        request, limit = amounts.get(("requests", name)), amounts.get(("limits", name))
        where = f"{path}.requests"
        if request is None:
            continue
        if "/" in name and name not in limits:
            causes.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
        elif limit is not None and "/" in name and request != limit:
            causes.append(invalid_value(where, value, f"must be equal to {name} limit of {limits[name]}"))
        elif limit is not None and request > limit:
            causes.append(invalid_value(where, value, f"must be less than or equal to {name} limit of {limits[name]}"))
    return causes


def _not_negative(path: str, spec: Obj, names: Iterable[str]) -> list[Cause]:
    return [
        invalid_value(f"{path}.{name}", spec[name], "must be greater than or equal to 0")
        for name in names
        if spec.get(name) is not None and spec[name] < 0
    ]


def finalizer_causes(old: Obj, new: Obj) -> list[Cause]:
    """An object that is being deleted takes no new finalizers."""
    if not old.get("deletionTimestamp"):
        return []
    added = [name for name in new.get("finalizers") or () if name not in (old.get("finalizers") or ())]
    if not added:
        return []
    listed = ", ".join(f'"{name}"' for name in added)
    return [
        forbidden_field(
            "metadata.finalizers",
            f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}",
        )
    ]
