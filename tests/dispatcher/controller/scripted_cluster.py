"""A cluster for a watcher: its lists are what the test has put in, its watches what the test wrote down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dispatcher.cluster.errors import Listing, ObjectUnreadable, WatchEvent
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import KubeObject, Metadata
from dispatcher.cluster.pods import Pod

Step = WatchEvent | Exception | Callable[[], object]
"""Of a watch: an event, how it breaks off, or what happens meanwhile."""
Item = TypeVar("Item", bound=KubeObject)


def bookmark(version: str) -> WatchEvent:
    return WatchEvent("BOOKMARK", KubeObject(Metadata(resource_version=version)))


class ScriptedCluster:
    """It asks the watcher to stop when its last watch has ended.

    version: of the next list; versions: where each watch began; lists: "list" or "metadata" for each list. left_out:
    names that no list can read, unreadable: such that cannot be read by their names.
    """

    def __init__(self, stopping: threading.Event, *watches: Sequence[Step]) -> None:
        self.stopping = stopping
        self.watches = list(watches)
        self.jobs: list[Job] = []
        self.pods: list[Pod] = []
        self.version = "1"
        self.versions: list[str] = []
        self.lists: list[str] = []
        self.fetched: list[str] = []
        self.left_out: list[str] = []
        self.unreadable: list[str] = []

    def have(self, *items: Job | Pod, version: str = "1") -> None:
        self.jobs = [item for item in items if isinstance(item, Job)]
        self.pods = [item for item in items if isinstance(item, Pod)]
        self.version = version

    def list_jobs(self, selector: str) -> Listing[Job]:
        self.lists.append("list")
        return self._listing(self.jobs)

    def list_pods(self, selector: str, fields: str = "") -> Listing[Pod]:
        """By phases one of the three lists of all, or one pod by its name."""
        field, _, name = fields.partition("=")
        if field == "metadata.name":
            self.fetched.append(name)
            if name in self.unreadable:
                return Listing(iter([((), self.version)]), left_out=[name])
            return self._listing([pod for pod in self.pods if pod.name == name])
        self.lists.append(fields)
        return self._listing([pod for pod in self.pods if _has_phase(pod, fields)])

    def list_metadata(self, kind: str, selector: str, fields: str = "") -> Listing[KubeObject]:
        self.lists.append("metadata")
        items: Sequence[KubeObject] = self.jobs
        if kind == "pods":
            items = [pod for pod in self.pods if not fields or _has_phase(pod, fields)]
        return self._listing([KubeObject(item.metadata) for item in items])

    def get_job(self, name: str) -> Job | None:
        self.fetched.append(name)
        if name in self.unreadable:
            raise ObjectUnreadable(name)
        return next((job for job in self.jobs if job.name == name), None)

    def watch(self, kind: str, selector: str, resource_version: str, seconds: float) -> Iterator[WatchEvent]:
        self.versions.append(resource_version)
        steps = self.watches.pop(0)
        if not self.watches:
            self.stopping.set()
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, WatchEvent):
                yield step
            else:
                step()

    def _listing(self, items: Sequence[Item]) -> Listing[Item]:
        """Nothing is known of it before its first page is read, as with the real one."""
        return Listing(iter([(tuple(items), self.version)]), left_out=self.left_out)


def _has_phase(pod: Pod, fields: str) -> bool:
    terms = (term.removeprefix("status.phase").partition("=") for term in fields.split(","))
    return all((pod.phase == phase) is not unequal.endswith("!") for unequal, _, phase in terms)
