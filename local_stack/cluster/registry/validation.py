"""What the API server refuses with 422 on metadata, Jobs and pods, in its own words (pure).

Source of the rules: Kubernetes' pkg/apis/{core,batch}/validation, as far as a Job orchestrator can get them wrong.
"""

from __future__ import annotations

import re
from typing import Any

from local_stack.cluster.registry.causes import Cause, Causes
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
_QUANTITY = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_FINALIZERS = ("foregroundDeletion", "orphan", "kubernetes")
_ANNOTATIONS_LIMIT = 256 * 1024


def metadata_causes(resource: Resource, meta: Obj) -> Causes:
    """Name, labels, annotations and finalizers."""
    causes = Causes()
    name = meta.get("name") or ""
    of_namespace = resource.plural == "namespaces"
    longest = 63 if of_namespace else 253
    if not name:
        causes.required("metadata.name", "name or generateName is required")
    elif len(name) > longest:
        causes.invalid("metadata.name", name, f"must be no more than {longest} characters")
    elif of_namespace and not _DNS_LABEL.fullmatch(name):
        causes.invalid("metadata.name", name, _LABEL_HELP)
    elif not _SUBDOMAIN.fullmatch(name):
        causes.invalid("metadata.name", name, _SUBDOMAIN_HELP)
    causes += label_causes("metadata.labels", meta.get("labels") or {})
    annotations = meta.get("annotations") or {}
    for key in annotations:
        _check_key(causes, "metadata.annotations", key.lower())
    if sum(len(key) + len(value) for key, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        text = f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes"
        causes.append(Cause("metadata.annotations", "FieldValueTooLong", text))
    for number, finalizer in enumerate(meta.get("finalizers") or ()):
        if "/" not in finalizer and finalizer not in _FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            causes.invalid(f"metadata.finalizers[{number}]", finalizer, text)
    return causes


def label_causes(field: str, labels: Obj) -> Causes:
    """Keys and values of a label map."""
    causes = Causes()
    for key, value in labels.items():
        _check_key(causes, field, key)
        if len(value) > 63:
            causes.invalid(field, value, "must be no more than 63 characters")
        elif value and not _NAME_PART.fullmatch(value):
            causes.invalid(field, value, _VALUE_HELP)
    return causes


def _check_key(causes: Causes, field: str, key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or not _SUBDOMAIN.fullmatch(prefix)):
        causes.invalid(field, key, f"prefix part {_SUBDOMAIN_HELP}")
    elif not name:
        causes.invalid(field, key, "name part must be non-empty")
    elif len(name) > 63:
        causes.invalid(field, key, "name part must be no more than 63 characters")
    elif not _NAME_PART.fullmatch(name):
        causes.invalid(field, key, _KEY_HELP)


def pod_spec_causes(path: str, spec: Obj) -> Causes:
    """Containers, their environment, resources and mounts, and the spec's own scalars."""
    causes = Causes()
    for at, volume in enumerate(spec.get("volumes") or ()):
        if not volume.get("name"):
            causes.required(f"{path}.volumes[{at}].name")
    _check_containers(causes, path, spec)
    causes.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never"))
    causes.not_negative(path, spec, ("terminationGracePeriodSeconds",))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        causes.invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    causes += label_causes(f"{path}.nodeSelector", spec.get("nodeSelector") or {})
    return causes


def _check_containers(causes: Causes, path: str, spec: Obj) -> None:
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    if not spec.get("containers"):
        causes.required(f"{path}.containers")
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for at, container in enumerate(spec.get(group) or ()):
            here = f"{path}.{group}[{at}]"
            name = container.get("name") or ""
            if not name:
                causes.required(f"{here}.name")
            elif len(name) > 63 or not _DNS_LABEL.fullmatch(name):
                causes.invalid(f"{here}.name", name, _LABEL_HELP)
            elif name in names:
                causes.duplicate(f"{here}.name", name)
            names.add(name)
            _check_container(causes, here, container, volumes)


def _check_container(causes: Causes, here: str, container: Obj, volumes: set[Any]) -> None:
    image = container.get("image") or ""
    if not image:
        causes.required(f"{here}.image")
    elif image != image.strip():
        causes.invalid(f"{here}.image", image, "must not have leading or trailing whitespace")
    for name, supported in (
        ("imagePullPolicy", ("Always", "IfNotPresent", "Never")),
        ("terminationMessagePolicy", ("FallbackToLogsOnError", "File")),
    ):
        causes.one_of(f"{here}.{name}", container.get(name), supported)
    for at, env in enumerate(container.get("env") or ()):
        _check_variable(causes, f"{here}.env[{at}]", env)
    _check_mounts(causes, here, container, volumes)
    _check_resources(causes, f"{here}.resources", container.get("resources") or {})


def _check_variable(causes: Causes, where: str, env: Obj) -> None:
    name, source = env.get("name") or "", env.get("valueFrom")
    if not name:
        causes.required(f"{where}.name")
    elif not _ENV_NAME.fullmatch(name):
        text = "a valid environment variable name must consist only of printable ASCII characters other than '='"
        causes.invalid(f"{where}.name", name, text)
    if source is None:
        return
    if env.get("value"):
        causes.invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty")
    elif not source:
        known = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        causes.invalid(f"{where}.valueFrom", "", f"must specify one of: {known}")
    for kind in ("secretKeyRef", "configMapKeyRef"):
        for key in ("name", "key"):
            if source.get(kind) is not None and not source[kind].get(key):
                causes.required(f"{where}.valueFrom.{kind}.{key}")


def _check_mounts(causes: Causes, here: str, container: Obj, volumes: set[Any]) -> None:
    seen: set[str] = set()
    for at, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{here}.volumeMounts[{at}]"
        if not mount.get("name"):
            causes.required(f"{where}.name")
        elif mount["name"] not in volumes:
            causes.not_found(f"{where}.name", mount["name"])
        if not mount.get("mountPath"):
            causes.required(f"{where}.mountPath")
        elif mount["mountPath"] in seen:
            causes.invalid(f"{where}.mountPath", mount["mountPath"], "must be unique")
        seen.add(mount.get("mountPath") or "")


def _check_resources(causes: Causes, path: str, resources: Obj) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    amounts: dict[tuple[str, str], float] = {}
    for group, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            where = f"{path}.{group}[{name}]"
            try:
                amounts[group, name] = amount = quantity(str(value))
            except ValueError:
                causes.invalid(where, value, f"quantities must match the regular expression '{_QUANTITY}'")
                continue
            if amount < 0:
                causes.invalid(where, value, "must be greater than or equal to 0")
            elif "/" in name and amount != int(amount):
                causes.invalid(where, value, "must be an integer")
    for name, value in requests.items():
        request, limit = amounts.get(("requests", name)), amounts.get(("limits", name))
        if request is None:
            continue
        if "/" in name and name not in limits:
            causes.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
        elif limit is not None and (request != limit if "/" in name else request > limit):
            relation = "equal to" if "/" in name else "less than or equal to"
            causes.invalid(f"{path}.requests", value, f"must be {relation} {name} limit of {limits[name]}")


def finalizer_causes(old: Obj, new: Obj) -> Causes:
    """An object that is being deleted takes no new finalizers."""
    causes = Causes()
    added = [name for name in new.get("finalizers") or () if name not in (old.get("finalizers") or ())]
    if added and old.get("deletionTimestamp"):
        found = ", ".join(f'"{name}"' for name in added)
        text = "no new finalizers can be added if the object is being deleted, found new finalizers"
        causes.forbidden("metadata.finalizers", f"{text} []string{{{found}}}")
    return causes
