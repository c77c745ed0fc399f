"""What a call to the API server returns or raises.

ClusterError
├── ClusterUnavailable   no answer, 429, 5xx: temporary
├── ClusterForbidden     401, 403: names the verb and the resource that the Role lacks; an operator must fix it
├── QuotaExceeded        403 by a ResourceQuota: until there is room
├── ObjectInvalid        400, 413, 422: the object itself is refused
├── ObjectNotFound       404
├── ObjectConflict       409: a taken name, a stale resource version, another uid
└── WatchExpired         410: list anew
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.cluster.objects import KubeObject


class ClusterError(Exception):
    """The API server did not do what was asked; the text is a sentence without secrets."""


class ClusterUnavailable(ClusterError):
    """Out of reach, throttled or failing. ambiguous: a write may have been applied all the same."""

    def __init__(self, sentence: str, *, retry_after: float | None = None, ambiguous: bool = True) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        self.ambiguous = ambiguous


class ClusterForbidden(ClusterError):
    """Not allowed, or not known to the API server."""


class QuotaExceeded(ClusterError):
    """A ResourceQuota has no room for the Job itself."""


class ObjectInvalid(ClusterError):
    """The API server refuses the object."""


class ObjectNotFound(ClusterError):
    """No such object."""


class ObjectConflict(ClusterError):
    """The name is taken, or the object has been replaced or changed."""


class WatchExpired(ClusterError):
    """The resource version is too old to continue from."""


@dataclass(frozen=True)
class Listing:
    """All objects of one kind, and the resource version to watch from."""

    items: list[KubeObject]
    resource_version: str
