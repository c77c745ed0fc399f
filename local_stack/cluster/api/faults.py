"""Scripted faults of the API, denied permissions and counted calls: what tests switch on through /_stub."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from local_stack.cluster.registry.errors import ApiError

_REASONS = {
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", "forbidden"),
    404: ("NotFound", "the server could not find the requested resource"),
    409: ("Conflict", "the object has been modified; please apply your changes to the latest version and try again"),
    410: ("Expired", "The resourceVersion for the provided watch is too old."),
    429: ("TooManyRequests", "too many requests, please try again later"),
    500: ("InternalError", "Internal error occurred: scripted fault"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}
_KINDS = ("status", "delay", "cut", "hang")


@dataclass(frozen=True)
class Call:
    """One request as faults and permissions see it. `resource` is "jobs", or "pods/log" for a subresource."""

    verb: str
    resource: str
    namespace: str
    name: str


@dataclass
class Fault:
    """What matching calls get. `count` None: for ever. `after`: the call is carried out first."""

    verb: str | None
    resource: str | None
    namespace: str | None
    name: str | None
    kind: str
    status: int
    message: str
    reason: str
    headers: dict[str, str]
    seconds: float
    after: bool
    count: int | None

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Fault:
        """From a request to /_stub/faults; ValueError with a sentence when it cannot be meant."""
        kind = body.get("kind", "status")
        if kind not in _KINDS:
            raise ValueError(f"kind is {kind!r}; it can be {', '.join(_KINDS)}")
        headers = {str(key): str(value) for key, value in (body.get("headers") or {}).items()}
        if body.get("retry_after") is not None:
            headers["Retry-After"] = str(body["retry_after"])
        return cls(
            verb=body.get("verb"),
            resource=body.get("resource"),
            namespace=body.get("namespace"),
            name=body.get("name"),
            kind=kind,
            status=int(body.get("status", 500)),
            message=body.get("message") or "",
            reason=body.get("reason") or "",
            headers=headers,
            seconds=float(body.get("seconds", 0)),
            after=bool(body.get("after", False)),
            count=body.get("count", 1),
        )

    def matches(self, call: Call) -> bool:
        """Whether it is meant for this call; what is not named matches everything."""
        pairs = (
            (self.verb, call.verb),
            (self.resource, call.resource),
            (self.namespace, call.namespace),
            (self.name, call.name),
        )
        return all(wanted is None or wanted == found for wanted, found in pairs)

    def error(self) -> ApiError:
        """The Status that a `status` fault answers with."""
        reason, message = _REASONS.get(self.status, ("", "scripted fault"))
        details: dict[str, Any] | None = None
        headers = dict(self.headers)
        if self.status == 429:
            headers.setdefault("Retry-After", "1")
            if headers["Retry-After"].isdigit():
                details = {"retryAfterSeconds": int(headers["Retry-After"])}
        return ApiError(self.status, self.reason or reason, self.message or message, details, headers)


@dataclass
class Faults:
    """Faults in the order they were asked for, denied permissions, and how often what was called and suffered."""

    scripted: dict[int, Fault] = field(default_factory=dict)
    denied: list[dict[str, str]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    suffered: Counter[str] = field(default_factory=Counter)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, fault: Fault) -> int:
        """Its number, for removal."""
        number = next(self._numbers)
        self.scripted[number] = fault
        return number

    def take(self, call: Call) -> Fault | None:
        """The first fault for this call; a counted one is used up by that."""
        for number, fault in self.scripted.items():
            if fault.matches(call):
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count <= 0:
                        del self.scripted[number]
                what = f"status {fault.status}" if fault.kind == "status" else fault.kind
                self.suffered[f"{what} (carried out)" if fault.after else what] += 1
                return fault
        return None

    def allows(self, call: Call, group: str) -> bool:
        """Whether no rule denies the call. A rule's verb, resource, namespace and group may be "*" or missing."""
        for rule in self.denied:
            pairs = (("verb", call.verb), ("resource", call.resource), ("namespace", call.namespace), ("group", group))
            if all(rule.get(key, "*") in ("*", None, found) for key, found in pairs):
                return False
        return True
