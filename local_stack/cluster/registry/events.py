"""Events about objects, written as each component of Kubernetes writes its own, repeated ones counted."""

from __future__ import annotations

import time
import uuid

from local_stack.cluster.registry.objects import Obj, micro_stamp, now_stamp
from local_stack.cluster.registry.store import Store


class Recorder:
    """Writes Events for one component, such as "job-controller" or "kubelet"; `host` is the kubelet's node."""

    def __init__(self, store: Store, component: str, host: str = "") -> None:
        self._store = store
        self._component = component
        self._host = host
        self._last: dict[tuple[str, ...], str] = {}

    def record(self, about: Obj, kind: str, reason: str, message: str, *, part: str = "") -> None:
        """`kind` is Normal or Warning; `part` names a container of the pod."""
        meta = about["metadata"]
        key = (meta["uid"], part, reason, message)
        namespace = meta.get("namespace") or "default"
        earlier = self._last.get(key)
        found = self._store.get("events", namespace, earlier) if earlier else None
        if found is not None:
            again = {**found, "metadata": dict(found["metadata"])}
            again |= {"count": found["count"] + 1, "lastTimestamp": now_stamp()}
            self._store.put("events", again)
            return
        if len(self._last) > 20_000:
            self._last.clear()
        event = self._event(about, kind, reason, message)
        if part:
            init = any(container["name"] == part for container in about["spec"].get("initContainers") or ())
            event["involvedObject"]["fieldPath"] = f"spec.{'initContainers' if init else 'containers'}{{{part}}}"
        source = {"component": self._component, **({"host": self._host} if self._host else {})}
        stamp = now_stamp()
        event |= {"source": source, "firstTimestamp": stamp, "lastTimestamp": stamp, "count": 1}
        event |= {"eventTime": None, "reportingInstance": self._host}
        self._last[key] = event["metadata"]["name"]
        self._store.put("events", event)

    def scheduling(self, about: Obj, kind: str, reason: str, message: str, action: str) -> None:
        """An Event of the newer form, as the scheduler writes them."""
        event = self._event(about, kind, reason, message)
        event |= {"source": {}, "firstTimestamp": None, "lastTimestamp": None, "eventTime": micro_stamp()}
        event |= {"action": action, "reportingInstance": f"{self._component}-stand-in"}
        self._store.put("events", event)

    def _event(self, about: Obj, kind: str, reason: str, message: str) -> Obj:
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {
                "name": f"{meta['name']}.{time.time_ns():x}",
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": now_stamp(),
            },
            "involvedObject": {
                "kind": about["kind"],
                "namespace": meta.get("namespace", ""),
                "name": meta["name"],
                "uid": meta["uid"],
                "apiVersion": about["apiVersion"],
                "resourceVersion": meta["resourceVersion"],
            },
            "reason": reason,
            "message": message,
            "type": kind,
            "reportingComponent": self._component,
        }
