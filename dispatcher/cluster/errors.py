"""What a call to the API server returns or raises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dispatcher.cluster.objects import KubeObject


class ClusterError(Exception):
    """The API server did not do what was asked; the text is a sentence without secrets."""


class ClusterUnavailable(ClusterError):
    """No answer, 429 or 5xx: temporary. ambiguous: a write may have been applied all the same."""

    def __init__(self, sentence: str, *, retry_after: float | None = None, ambiguous: bool = True) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        self.ambiguous = ambiguous


class ObjectUnreadable(ClusterUnavailable):
    """What it answered cannot be read: cut off, no JSON, or an object with a field that is not what Kubernetes says."""


class ClusterForbidden(ClusterError):
    """401, or 403 by RBAC or a namespace that is being terminated: an operator must fix it."""


class QuotaExceeded(ClusterError):
    """403 by a ResourceQuota, which has no room for the Job itself: until there is room."""


class ObjectInvalid(ClusterError):
    """400, 413, 422: the object itself is refused."""


class RequestDenied(ObjectInvalid):
    """An admission webhook, policy or plug-in denies the object, whatever the status code; its words are the text's."""


class ObjectNotFound(ClusterError):
    """404."""


class ObjectConflict(ClusterError):
    """409: the name is taken, or the object has been replaced (another uid) or changed (a stale resource version)."""


class WatchExpired(ClusterError):
    """410: the resource version is too old to continue from; list anew."""


Item = TypeVar("Item", bound=KubeObject)


@dataclass
class Listing(Generic[Item]):
    """A list that is read page by page: iterate over it once, and keep what is needed. That raises ClusterError.

    pages: (objects, resource version). resource_version: to watch from; known from the first page on, the same in all.
    left_out: names of objects that exist and could not be read; known once they were passed.
    """

    pages: Iterator[tuple[Sequence[Item], str]]
    resource_version: str = ""
    left_out: Sequence[str] = ()

    def __iter__(self) -> Iterator[Item]:
        for items, version in self.pages:
            self.resource_version = version
            yield from items


@dataclass(frozen=True)
class WatchEvent:
    """type: ADDED, MODIFIED, DELETED, or BOOKMARK, whose object has a resource version and nothing else."""

    type: str
    object: KubeObject
