"""The API server's refusals, worded and shaped (kind Status) as Kubernetes words them.

Source of the wording: k8s.io/apimachinery/pkg/api/errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from local_stack.cluster.registry.causes import Cause
from local_stack.cluster.registry.resources import Resource


class ApiError(Exception):
    """One refusal: HTTP `code`, machine-readable `reason`, sentence `message`, optional `details`."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})

    def status(self) -> dict[str, Any]:
        """The Status object that stands in the answer's body."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body


def _details(resource: Resource, name: str) -> dict[str, Any]:
    return {"name": name, **({"group": resource.group} if resource.group else {}), "kind": resource.plural}


def not_found(resource: Resource, name: str) -> ApiError:
    """404 NotFound."""
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """409 AlreadyExists: the name is taken."""
    return ApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _details(resource, name))


def conflict(resource: Resource, name: str, why: str | None = None) -> ApiError:
    """409 Conflict: a stale resourceVersion, or a precondition that does not hold."""
    sentence = why or ("the object has been modified; please apply your changes to the latest version and try again")
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {sentence}',
        _details(resource, name),
    )


def conflict_of_kind(resource: Resource, name: str, why: str) -> ApiError:
    """409 Conflict of a deletion, which names the kind where other calls name the resource."""
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details = {**_details(resource, name), "kind": resource.kind}
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind} "{name}": {why}', details)


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 Invalid, with every cause."""
    sentences = [f"{cause.field}: {cause.message}" for cause in causes]
    why = sentences[0] if len(sentences) == 1 else "[" + ", ".join(sentences) + "]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    listed = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    details = {**_details(resource, name), "kind": resource.kind, "causes": listed}
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {why}', details)


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """403 Forbidden by admission (quota, service account, namespace)."""
    return ApiError(
        403,
        "Forbidden",
        f'{resource.qualified} "{name}" is forbidden: {why}',
        _details(resource, name),
    )


def denied(user: str, verb: str, resource: Resource, *, name: str, namespace: str, subresource: str) -> ApiError:
    """403 Forbidden by authorization, in RBAC's words."""
    what = resource.plural + (f"/{subresource}" if subresource else "")
    shown = f'"{name}" ' if name else ""
    qualified = resource.qualified
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    return ApiError(
        403,
        "Forbidden",
        f'{qualified} {shown}is forbidden: User "{user}" cannot {verb} resource "{what}" '
        f'in API group "{resource.group}" {where}',
        _details(resource, name) if name else {"group": resource.group, "kind": resource.plural},
    )


def bad_request(message: str) -> ApiError:
    """400 BadRequest."""
    return ApiError(400, "BadRequest", message)


def expired(message: str) -> ApiError:
    """410 Expired: the history asked for has been compacted."""
    return ApiError(410, "Expired", message)
