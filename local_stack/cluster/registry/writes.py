"""Create, update and delete with the API server's rules: identity, versions, finalizers, grace, propagation.

The HTTP side and the controllers both write through here; only here is a `Store` changed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from local_stack.cluster.registry import admission, errors, policies
from local_stack.cluster.registry.causes import Causes
from local_stack.cluster.registry.defaults import (
    default_job,
    default_job_spec,
    default_pod,
    default_pod_spec,
    random_suffix,
)
from local_stack.cluster.registry.job_validation import changed_job_causes, new_job_causes
from local_stack.cluster.registry.objects import Obj, has_ended, key_of, new_condition, now_stamp, with_condition
from local_stack.cluster.registry.resources import (
    ADMISSION_BINDINGS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    RESOURCES,
    SECRETS,
    Resource,
)
from local_stack.cluster.registry.rules import DeleteOptions, changed_pod_causes, fold_string_data
from local_stack.cluster.registry.store import Store
from local_stack.cluster.registry.validation import finalizer_causes, metadata_causes, pod_spec_causes

_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Registry:
    """The rules over one store.

    may: whether requests are permitted to do (verb, resource, namespace, name), which admission policies may ask.
    """

    may: Callable[[str, Resource, str, str], bool]

    def __init__(self, store: Store) -> None:
        self.store = store
        self.may = lambda verb, resource, namespace, name: True
        for name in ("default", "kube-system", "kube-public"):
            self.create(NAMESPACES, "", {"metadata": {"name": name}})

    def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        """The object; 404 when there is none."""
        found = self.store.get(resource.plural, namespace, name)
        if found is None:
            raise errors.not_found(resource, name)
        return found

    def create(self, resource: Resource, namespace: str, body: Obj, *, dry_run: bool = False) -> Obj:
        """A new object from a request's body, which it takes over."""
        meta = body["metadata"] = dict(body.get("metadata") or {})
        obj: Obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
        obj |= {key: value for key, value in body.items() if key not in obj}
        if meta.get("resourceVersion"):
            raise errors.ApiError(500, "", "resourceVersion should not be set on objects to be created")
        if resource.namespaced:
            self._check_namespace(resource, namespace, meta)
        for name in (*_SERVER_OWNED, "managedFields", "resourceVersion", "generation"):
            meta.pop(name, None)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"][:58] + random_suffix()
        meta["uid"] = str(uuid.uuid4())
        if resource.generation:
            meta["generation"] = 1
        meta["creationTimestamp"] = now_stamp()
        self._prepare(resource, obj)
        if self.store.find(resource.plural, namespace, meta["name"]):
            raise errors.already_exists(resource, meta["name"])
        if resource is PODS:
            admission.admit_pod(self.store, obj)
        elif resource is JOBS:
            admission.admit_job(self.store, obj)
        self._ask_policies(resource, obj, None)
        if dry_run:
            return obj
        created = self.store.put(resource.plural, obj)
        if resource is NAMESPACES:
            account = {"metadata": {"name": "default"}}
            self.create(RESOURCES["serviceaccounts"], meta["name"], account)
        return created

    def _ask_policies(self, resource: Resource, obj: Obj, old: Obj | None, subresource: str = "") -> None:
        if not resource.namespaced or not self.store.all(ADMISSION_BINDINGS.plural, ""):
            return
        namespace, name = obj["metadata"]["namespace"], obj["metadata"].get("name", "")
        labels = (self.store.get("namespaces", "", namespace) or {"metadata": {}})["metadata"].get("labels") or {}

        def may(verb: str) -> bool:
            return self.may(verb, resource, namespace, name)

        policies.admit(self.store, policies.Write(resource, obj, old, subresource, may, labels))

    def _check_namespace(self, resource: Resource, namespace: str, meta: Obj) -> None:
        if meta.get("namespace") not in (None, "", namespace):
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        meta["namespace"] = namespace
        found = self.store.get("namespaces", "", namespace)
        if found is None:
            raise errors.not_found(NAMESPACES, namespace)
        if found["metadata"].get("deletionTimestamp"):
            raise errors.forbidden(
                resource,
                meta.get("name") or "",
                f"unable to create new content in namespace {namespace} because it is being terminated",
            )

    def _prepare(self, resource: Resource, obj: Obj) -> None:
        meta = obj["metadata"]
        causes = metadata_causes(resource, meta)
        if resource is JOBS:
            obj["spec"] = obj.get("spec") or {}
            default_job(obj)
            causes += new_job_causes(obj)
        elif resource is PODS:
            obj["spec"] = obj.get("spec") or {}
            if obj["spec"].get("containers"):
                default_pod(obj, admission.pod_priority(self.store, obj))
            causes += pod_spec_causes("spec", obj["spec"])
        elif resource is SECRETS:
            fold_string_data(obj)
        elif resource is NAMESPACES:
            obj["spec"] = {"finalizers": ["kubernetes"]}
            obj["status"] = {"phase": "Active"}
            meta["labels"] = {
                "kubernetes.io/metadata.name": meta.get("name", ""),
                **(meta.get("labels") or {}),
            }
        if causes:
            raise errors.invalid(resource, meta.get("name", ""), causes)

    def update(self, resource: Resource, old: Obj, new: Obj, *, subresource: str = "", dry_run: bool = False) -> Obj:
        """Replace `old` by `new` (a fresh dictionary with fresh `metadata`), as PUT and PATCH do."""
        before = old["metadata"]
        name = before["name"]
        meta = new["metadata"] = dict(new.get("metadata") or {})
        _check_precondition(resource, name, "UID", meta.get("uid"), before["uid"])
        version = meta.get("resourceVersion")
        if version and version != before["resourceVersion"]:
            raise errors.conflict(resource, name)
        if resource is LEASES and not version:
            causes = Causes()
            causes.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise errors.invalid(resource, name, causes)
        for key in ("name", "namespace", "generation", "generateName", "managedFields", *_SERVER_OWNED):
            if key in before:
                meta[key] = before[key]
            else:
                meta.pop(key, None)
        meta["resourceVersion"] = before["resourceVersion"]
        for key in ("finalizers", "ownerReferences", "labels", "annotations"):
            if not meta.get(key):
                meta.pop(key, None)
        identity = {"kind": resource.kind, "apiVersion": resource.api_version}
        new = {**identity, **{key: value for key, value in new.items() if key not in identity}}
        if resource is SECRETS:
            fold_string_data(new)
        self._merge_parts(resource, old, new, subresource)
        self._ask_policies(resource, new, old, subresource)
        if new == old:
            return old
        if resource.generation and new.get("spec") != old.get("spec"):
            meta["generation"] = before.get("generation", 0) + 1
        return new if dry_run else self.commit(resource, old, new)

    def _merge_parts(self, resource: Resource, old: Obj, new: Obj, subresource: str) -> None:
        causes = metadata_causes(resource, new["metadata"])
        causes += finalizer_causes(old["metadata"], new["metadata"])
        if subresource == "status":
            new["spec"] = old.get("spec")
        elif resource.status:
            new["status"] = old.get("status")
        for key in ("spec", "status"):
            if new.get(key) is None and key not in old:
                new.pop(key, None)
        if resource is JOBS and subresource != "status":
            if not (new.get("spec") or {}).get("template"):
                causes.required("spec.template")
                raise errors.invalid(resource, new["metadata"]["name"], causes)
            default_job_spec(new["spec"])
            causes += changed_job_causes(old, new)
        elif resource is PODS and subresource != "status":
            default_pod_spec(new["spec"])
            causes += changed_pod_causes(old["spec"], new["spec"])
        if causes:
            raise errors.invalid(resource, new["metadata"]["name"], causes)

    def commit(self, resource: Resource, old: Obj, new: Obj) -> Obj:
        """Store `new`, or remove the object when that was the last thing its deletion waited for."""
        meta = new["metadata"]
        if old["metadata"].get("deletionTimestamp") and not meta.get("finalizers"):
            grace = old["metadata"].get("deletionGracePeriodSeconds")
            if not grace and not _is_live_namespace(resource, new):
                self.store.remove(resource.plural, meta.get("namespace", ""), meta["name"])
                return new
        return self.store.put(resource.plural, new)

    def set_status(self, resource: Resource, obj: Obj, status: Obj, **other: Any) -> Obj:
        """A controller's write: a new status on the object's newest version (and other top-level parts)."""
        newest = self._newest(resource, obj)
        new = {**newest, **other, "metadata": dict(newest["metadata"]), "status": status}
        return newest if new == newest else self.commit(resource, newest, new)

    def add_disruption(self, pod: Obj, reason: str, message: str) -> None:
        """Set the condition DisruptionTarget on the pod; nothing when it is gone."""
        condition = new_condition("DisruptionTarget", "True", reason, message)
        with suppress(errors.ApiError):
            self.set_status(PODS, pod, with_condition(pod["status"], condition))

    def set_metadata(self, resource: Resource, obj: Obj, **parts: Any) -> Obj:
        """A controller's write: metadata parts on the newest version; None removes a part."""
        newest = self._newest(resource, obj)
        fresh = {**newest["metadata"], **parts}
        fresh = {key: value for key, value in fresh.items() if value is not None}
        return self.commit(resource, newest, {**newest, "metadata": fresh})

    def _newest(self, resource: Resource, obj: Obj) -> Obj:
        """The object as it is now; 404 when it is gone, or another of its name is there."""
        newest = self.store.get(resource.plural, *key_of(obj))
        if newest is None or newest["metadata"]["uid"] != obj["metadata"]["uid"]:
            raise errors.not_found(resource, obj["metadata"]["name"])
        return newest

    def delete(self, resource: Resource, namespace: str, name: str, options: DeleteOptions) -> tuple[Obj, bool]:
        """The object as it was left, and whether it is gone."""
        old = self.get(resource, namespace, name)
        meta = old["metadata"]
        _check_record(resource, name, "UID", options.uid, meta["uid"])
        _check_record(resource, name, "ResourceVersion", options.version, meta["resourceVersion"])
        if options.dry_run:
            return old, True
        if resource is PODS:
            return self._delete_pod(old, options)
        finalizers = [f for f in meta.get("finalizers") or () if f not in (FOREGROUND, ORPHAN)]
        policy = options.policy or ("Orphan" if resource is JOBS else "Background")
        if policy == "Foreground":
            finalizers.append(FOREGROUND)
        elif policy == "Orphan" and resource is JOBS:
            finalizers.append(ORPHAN)
        fresh: Obj = dict(meta)
        if not meta.get("deletionTimestamp"):
            fresh |= {"deletionTimestamp": now_stamp(), "deletionGracePeriodSeconds": 0}
            if "generation" in meta:
                fresh["generation"] = meta["generation"] + 1
        if not finalizers and resource is not NAMESPACES:
            return self.store.remove(resource.plural, namespace, name), True
        if finalizers:
            fresh["finalizers"] = finalizers
        new = {**old, "metadata": fresh}
        if resource is NAMESPACES:
            new["status"] = {"phase": "Terminating"}
        return (old if new == old else self.store.put(resource.plural, new)), False

    def _delete_pod(self, old: Obj, options: DeleteOptions) -> tuple[Obj, bool]:
        meta, spec = old["metadata"], old["spec"]
        grace = options.grace if options.grace is not None else spec.get("terminationGracePeriodSeconds", 30)
        if not spec.get("nodeName") or has_ended(old):
            grace = 0
        pending = meta.get("deletionGracePeriodSeconds")
        if meta.get("deletionTimestamp") and pending is not None and pending <= grace:
            if pending or meta.get("finalizers"):
                return old, False
            return self.store.remove("pods", meta["namespace"], meta["name"]), True
        fresh = {
            **meta,
            "deletionTimestamp": now_stamp(time.time() + grace),
            "deletionGracePeriodSeconds": grace,
        }
        if not meta.get("deletionTimestamp"):
            fresh["generation"] = meta.get("generation", 1) + 1
        stored = self.store.put("pods", {**old, "metadata": fresh})
        if grace or meta.get("finalizers"):
            return stored, False
        return self.store.remove("pods", meta["namespace"], meta["name"]), True


def _check_record(resource: Resource, name: str, what: str, given: str | None, found: str) -> None:
    """409 when a deletion's precondition does not hold; in other words than an update's."""
    if given and given != found:
        text = f"the {what} in the precondition ({given}) does not match the {what} in record ({found})"
        since = "deleted and then recreated" if what == "UID" else "modified"
        raise errors.conflict_of_kind(resource, name, f"{text}. The object might have been {since}")


def _check_precondition(resource: Resource, name: str, what: str, given: str | None, found: str) -> None:
    """409 when `given` is there and is not what the object has."""
    if given and given != found:
        text = f"Precondition failed: {what} in precondition: {given}, {what} in object meta: {found}"
        raise errors.conflict(resource, name, text)


def _is_live_namespace(resource: Resource, obj: Obj) -> bool:
    return resource is NAMESPACES and bool((obj.get("spec") or {}).get("finalizers"))
