"""Scripted faults of the API, denied permissions and counted calls: what tests switch on through /_stub."""

from __future__ import annotations

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


@dataclass(eq=False)
class Fault:
    """What matching calls get. `count` None: for ever. `after`: the call is carried out first."""

    verb: str | None
    resource: str | None
    name: str | None
    kind: str
    status: int
    retry_after: int | None
    seconds: float
    after: bool
    count: int | None

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Fault:
        """From a request to /_stub/faults; ValueError with a sentence when it cannot be meant."""
        kind = body.get("kind", "status")
        if kind not in _KINDS:
            raise ValueError(f"kind is {kind!r}; it can be {', '.join(_KINDS)}")
        return cls(
            verb=body.get("verb"),
            resource=body.get("resource"),
            name=body.get("name"),
            kind=kind,
            status=int(body.get("status", 500)),
            retry_after=body.get("retry_after"),
            seconds=float(body.get("seconds", 0)),
            after=bool(body.get("after", False)),
            count=body.get("count", 1),
        )

    def matches(self, call: Call) -> bool:
        """Whether it is meant for this call; what is not named matches everything."""
        pairs = ((self.verb, call.verb), (self.resource, call.resource), (self.name, call.name))
        return all(wanted is None or wanted == found for wanted, found in pairs)

    def error(self) -> ApiError:
        """The Status that a `status` fault answers with."""
        reason, message = _REASONS.get(self.status, ("", "scripted fault"))
        wait = 1 if self.retry_after is None and self.status == 429 else self.retry_after
        if wait is None:
            return ApiError(self.status, reason, message)
        return ApiError(self.status, reason, message, {"retryAfterSeconds": wait}, {"Retry-After": str(wait)})


@dataclass(frozen=True)
class Policy:
    """Denies the creation of Jobs with `name` in their name, as a webhook or a policy does: with these words."""

    name: str
    code: int
    message: str

    def check(self, body: Any) -> None:
        name = (body.get("metadata") or {}).get("name") if isinstance(body, dict) else None
        if self.name in str(name or ""):
            raise ApiError(self.code, _REASONS.get(self.code, ("Invalid", ""))[0], self.message)


@dataclass
class Faults:
    """Faults in the order they were asked for, policies, denied permissions, and what was called and suffered."""

    scripted: list[Fault] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    denied: list[dict[str, str]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    suffered: Counter[str] = field(default_factory=Counter)

    def take(self, call: Call) -> Fault | None:
        """The first fault for this call; a counted one is used up by that."""
        for fault in self.scripted:
            if fault.matches(call):
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count <= 0:
                        self.scripted.remove(fault)
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
