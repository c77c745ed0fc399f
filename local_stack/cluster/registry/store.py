"""Every object of the stand-in cluster, its versions and its watchers: what etcd and the watch cache are.

One counter numbers every write. Stored objects are never changed in place: a write puts a new dictionary, so that
a version can be handed out, compared and sent to many watchers without copies. Each version becomes JSON once.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from local_stack.cluster.registry.objects import Key, Obj, key_of, to_json
from local_stack.cluster.registry.resources import RESOURCES

_HISTORY = 10_000
_EVENTS_KEPT = 20_000
# The kinds that a Job can own.
OWNED = ("pods", "secrets", "networkpolicies")


class Stored:
    """One version of one object."""

    __slots__ = ("_json", "_metadata", "_obj", "version")

    def __init__(self, obj: Obj, version: int) -> None:
        self.version = version
        self._obj = obj
        self._json: bytes | None = None
        self._metadata: bytes | None = None

    @property
    def obj(self) -> Obj:
        """The object. Never change it in place."""
        return self._obj

    @property
    def selectable(self) -> Obj:
        """Of the object at least what selectors look at, and whose it is."""
        return self._obj

    def json(self) -> bytes:
        """This version as JSON, made on first use."""
        if self._json is None:
            self._json = to_json(self.obj)
        return self._json

    def metadata(self) -> bytes:
        """Its metadata as JSON, made on first use."""
        if self._metadata is None:
            self._metadata = to_json(self.obj["metadata"])
        return self._metadata


class Parked(Stored):
    """One version as bytes alone: a tenth of the memory, for the many that are listed and seldom written."""

    __slots__ = ("_selectable", "_span")

    def __init__(self, obj: Obj, version: int) -> None:
        """Takes `obj` as a client sent it; it is not kept."""
        meta = {**obj["metadata"], "resourceVersion": str(version)}
        kept = {key: meta[key] for key in ("name", "namespace", "labels", "ownerReferences") if key in meta}
        super().__init__({}, version)
        self._selectable = {**obj, "spec": _plain(obj, "spec"), "status": _plain(obj, "status"), "metadata": kept}
        metadata = to_json(meta)
        head = to_json({"kind": obj["kind"], "apiVersion": obj["apiVersion"]})[:-1] + b',"metadata":'
        rest = to_json({key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")})
        self._span = slice(len(head), len(head) + len(metadata))
        self._json = head + metadata + (b"," + rest[1:] if len(rest) > 2 else rest[1:])

    @property
    def obj(self) -> Obj:
        """Made anew for each caller."""
        made: Obj = json.loads(self.json())
        return made

    @property
    def selectable(self) -> Obj:
        return self._selectable

    def metadata(self) -> bytes:
        return self.json()[self._span]


def _plain(obj: Obj, part: str) -> Obj:
    """Its values that are neither lists nor objects: what field selectors look at."""
    values = obj.get(part) or {}
    return {key: value for key, value in values.items() if not isinstance(value, list | dict)}


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One write: ADDED, MODIFIED or DELETED, with the version before it (None for ADDED)."""

    kind: str
    stored: Stored
    previous: Stored | None


Listener = Callable[[Change], None]


class Store:
    """Objects by resource (plural name), then by (namespace, name); namespace is "" where there is none."""

    def __init__(self) -> None:
        self.version = 1
        self.objects: dict[str, dict[Key, Stored]] = {plural: {} for plural in RESOURCES}
        self.history: dict[str, deque[Change]] = {plural: deque(maxlen=_HISTORY) for plural in RESOURCES}
        self.compacted: dict[str, int] = dict.fromkeys(RESOURCES, 0)
        self._listeners: dict[str, list[Listener]] = {plural: [] for plural in RESOURCES}
        self._owned: dict[str, dict[str, dict[Key, None]]] = {plural: {} for plural in OWNED}

    def find(self, plural: str, namespace: str, name: str) -> Stored | None:
        """The current version, or None."""
        return self.objects[plural].get((namespace, name))

    def get(self, plural: str, namespace: str, name: str) -> Obj | None:
        """The current object, or None. Never change it in place."""
        stored = self.objects[plural].get((namespace, name))
        return stored.obj if stored else None

    def all(self, plural: str, namespace: str = "") -> list[Stored]:
        """Every current version (of one namespace), in the order of its keys, as etcd lists them."""
        objects = self.objects[plural]
        if namespace:
            return [objects[key] for key in sorted(key for key in objects if key[0] == namespace)]
        return [objects[key] for key in sorted(objects)]

    def owned(self, plural: str, uid: str) -> list[Obj]:
        """The objects of this kind (of OWNED) with an owner reference to this uid."""
        objects = self.objects[plural]
        return [objects[key].obj for key in self._owned[plural].get(uid, {}) if key in objects]

    def put(self, plural: str, obj: Obj) -> Obj:
        """Store a new version. `obj` and its `metadata` must be new dictionaries; both become the store's."""
        meta = obj["metadata"]
        key = key_of(obj)
        previous = self.objects[plural].get(key)
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        self._keep(plural, key, Stored(obj, self.version), previous)
        if plural == "events" and len(self.objects[plural]) > _EVENTS_KEPT:
            oldest = next(iter(self.objects[plural]))
            del self.objects[plural][oldest]
        return obj

    def park(self, plural: str, obj: Obj) -> None:
        """Store an object as it is, whole with uid and status, as bytes alone."""
        key = key_of(obj)
        self.version += 1
        self._keep(plural, key, Parked(obj, self.version), self.objects[plural].get(key))

    def _keep(self, plural: str, key: Key, stored: Stored, previous: Stored | None) -> None:
        self.objects[plural][key] = stored
        if plural in OWNED:
            self._index(plural, key, previous.selectable if previous else None, stored.selectable)
        self._announce(plural, Change("MODIFIED" if previous else "ADDED", stored, previous))

    def remove(self, plural: str, namespace: str, name: str) -> Obj:
        """Delete for good; the DELETED event carries the last state under a new version."""
        previous = self.objects[plural].pop((namespace, name))
        self.version += 1
        obj = {**previous.obj, "metadata": {**previous.obj["metadata"], "resourceVersion": str(self.version)}}
        if plural in OWNED:
            self._index(plural, (namespace, name), previous.selectable, None)
        self._announce(plural, Change("DELETED", Stored(obj, self.version), previous))
        return obj

    def compact(self) -> None:
        """Forget all history: the next watch from an older version gets 410 Expired."""
        for plural, history in self.history.items():
            history.clear()
            self.compacted[plural] = self.version

    def listen(self, plural: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every write, in order; the answer ends it."""
        listeners = self._listeners[plural]
        listeners.append(listener)

        def stop() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return stop

    def _announce(self, plural: str, change: Change) -> None:
        history = self.history[plural]
        if len(history) == history.maxlen:
            self.compacted[plural] = history[0].stored.version
        history.append(change)
        for listener in list(self._listeners[plural]):
            listener(change)

    def _index(self, plural: str, key: Key, before: Obj | None, after: Obj | None) -> None:
        old, new, owned = _owners(before), _owners(after), self._owned[plural]
        if old == new:
            return
        for uid in old:
            owned[uid].pop(key)
            if not owned[uid]:
                del owned[uid]
        for uid in new:
            owned.setdefault(uid, {})[key] = None


def _owners(obj: Obj | None) -> list[str]:
    return [reference["uid"] for reference in (obj or {}).get("metadata", {}).get("ownerReferences") or ()]
