"""Queries read and answers written: what the API's verbs have in common."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from local_stack.cluster.registry import errors
from local_stack.cluster.registry.objects import Obj, to_json
from local_stack.cluster.registry.resources import RESOURCES, Resource
from local_stack.cluster.registry.rules import DeleteOptions
from local_stack.cluster.registry.selectors import Matcher, field_matcher, label_matcher


def matcher(resource: Resource, query: Mapping[str, str]) -> Matcher | None:
    """Both selectors of a query as one test; None when everything matches."""
    labels = label_matcher(query.get("labelSelector") or "")
    fields = field_matcher(resource, query.get("fieldSelector") or "")
    if labels and fields:
        return both(labels, fields)
    return labels or fields


def both(first: Matcher | None, second: Matcher | None) -> Matcher:
    """A test that holds where these two hold."""
    return lambda obj: (first is None or first(obj)) and (second is None or second(obj))


def delete_options(query: Mapping[str, str], body: Obj) -> DeleteOptions:
    """From the query and the DeleteOptions in the body, which wins."""
    conditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    policy = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents")
    if policy not in ("", "Background", "Foreground", "Orphan"):
        raise errors.ApiError(
            422,
            "Invalid",
            f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{policy}": '
            'supported values: "Foreground", "Background", "Orphan", "nil"',
        )
    if orphan is not None and not policy:
        policy = "Orphan" if orphan else "Background"
    return DeleteOptions(
        grace=None if grace is None else int(grace),
        policy=policy,
        uid=conditions.get("uid") or "",
        version=conditions.get("resourceVersion") or "",
        dry_run="All" in (body.get("dryRun") or ()) or query.get("dryRun") == "All",
    )


def respond(obj: object, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    """An object as JSON."""
    return respond_bytes(to_json(obj), status, warnings)


def respond_bytes(body: bytes, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    """JSON that is ready; each warning becomes a header, as the API server sends them."""
    response = web.Response(body=body, status=status, content_type="application/json")
    for warning in warnings or ():
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')
    return response


def known_resource(plural: str, group: str) -> Resource | None:
    """The resource of a path."""
    found = RESOURCES.get(plural)
    return found if found is not None and found.group == group else None
