"""The forms in which one object or a list is answered: whole, as a table, or its metadata alone (`Accept`)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from local_stack.cluster.api.tables import table
from local_stack.cluster.registry.errors import ApiError
from local_stack.cluster.registry.objects import Obj, to_json
from local_stack.cluster.registry.resources import Resource
from local_stack.cluster.registry.store import Stored

_META = "meta.k8s.io/v1"
_PARTIAL = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":'


class Form(Enum):
    """What `as=` names in an Accept header; WHOLE is without it."""

    WHOLE = ""
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"
    METADATA_LIST = "PartialObjectMetadataList"


_FORMS = {form.value: form for form in Form}


def form_of(accept: str) -> Form:
    """The first form of the header that can be given; 406 when none can. Without a header: whole."""
    for clause in accept.split(",") if accept.strip() else ["*/*"]:
        media, *words = (word.strip() for word in clause.split(";"))
        options = dict(word.partition("=")[::2] for word in words)
        wanted = _FORMS.get(options.get("as", ""))
        if media not in ("application/json", "application/*", "*/*"):
            continue
        if wanted is Form.WHOLE or (wanted and (options.get("g"), options.get("v")) == ("meta.k8s.io", "v1")):
            return wanted
    raise _not_acceptable("only the following media types are accepted: application/json")


def one(resource: Resource, stored: Stored, form: Form) -> bytes:
    """One object as JSON."""
    if form is Form.WHOLE:
        return stored.json()
    if form is Form.TABLE:
        return to_json(table(resource, [stored.obj], str(stored.version)))
    if form is Form.METADATA_LIST:
        text = f"you requested {form.value}, but the requested object is not a list ({_go_type(resource)})"
        raise _not_acceptable(text)
    return _PARTIAL + stored.metadata() + b"}"


def many(resource: Resource, found: Sequence[Stored], meta: Obj, form: Form) -> bytes:
    """A list, or a page of it, as JSON. meta: the list's metadata."""
    if form is Form.TABLE:
        return to_json(
            table(resource, [stored.obj for stored in found], meta["resourceVersion"], meta.get("continue", ""))
        )
    if form is Form.METADATA:
        text = f"you requested {form.value}, but the requested object is a list ({_go_type(resource)}List)"
        raise _not_acceptable(text)
    if form is Form.METADATA_LIST:
        head: Obj = {"kind": form.value, "apiVersion": _META, "metadata": meta}
        # Without items the API server writes null here, where a list of whole objects has [].
        items = b"[" + b",".join(one(resource, each, Form.METADATA) for each in found) + b"]" if found else b"null"
    else:
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta}
        # Items of a list carry no kind and apiVersion of their own, as the API server writes built-in types.
        prefix = len(to_json({"kind": resource.kind, "apiVersion": resource.api_version}))
        items = b"[" + b",".join(b"{" + stored.json()[prefix:] for stored in found) + b"]"
    return to_json(head)[:-1] + b',"items":' + items + b"}"


def bookmark(resource: Resource, version: int, annotations: dict[str, str], form: Form) -> bytes:
    """A bookmark's object: nothing but a version, in an otherwise empty object of the kind."""
    meta: Obj = {"resourceVersion": str(version), **({"annotations": annotations} if annotations else {})}
    if form is Form.METADATA:
        return _PARTIAL + to_json(meta) + b"}"
    obj: Obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    return to_json({**obj, **_EMPTY.get(resource.plural, {})})


# What of an empty object the API server writes all the same.
_EMPTY: dict[str, Obj] = {
    "jobs": {"spec": {"template": {"metadata": {}, "spec": {"containers": None}}}, "status": {}},
    "pods": {"spec": {"containers": None}, "status": {}},
}


def _go_type(resource: Resource) -> str:
    return f"*{resource.group.partition('.')[0] or 'core'}.{resource.kind}"


def _not_acceptable(text: str) -> ApiError:
    return ApiError(406, "NotAcceptable", text)
