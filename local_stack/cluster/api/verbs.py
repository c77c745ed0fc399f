"""The API's verbs on resources: query and body in, object out."""

from __future__ import annotations

import base64
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from local_stack.cluster.api.answers import both, delete_options, matcher, respond, respond_bytes
from local_stack.cluster.api.faults import Call, Faults
from local_stack.cluster.api.forms import Form, many, one
from local_stack.cluster.api.watch import WatchRequest
from local_stack.cluster.registry import errors
from local_stack.cluster.registry.fields import decode
from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.patches import json_patch, merge_patch, strategic_patch
from local_stack.cluster.registry.resources import ACCESS_REVIEWS, LEASES, PODS, Resource
from local_stack.cluster.registry.selectors import field_matcher
from local_stack.cluster.registry.store import Stored
from local_stack.cluster.registry.writes import Registry

_MOMENTS = 64


@dataclass(frozen=True)
class Target:
    """What a path names. `name` "" is the collection."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


@dataclass(frozen=True)
class _Moment:
    """What the pages of one list show: all objects of its version. `at`: the next page begins there."""

    version: int
    objects: list[Stored]
    at: int = 0


class Verbs:
    """Carries out what `Target` and verb say; knows nothing of HTTP but queries, bodies and responses."""

    def __init__(self, registry: Registry, faults: Faults) -> None:
        self.registry = registry
        self.store = registry.store
        self._faults = faults
        self._moments: OrderedDict[str, _Moment] = OrderedDict()

    def forget_moments(self) -> None:
        """Continue tokens handed out before are expired now."""
        self._moments.clear()

    def get(self, target: Target, form: Form) -> web.Response:
        """One object."""
        stored = self.store.find(target.resource.plural, target.namespace, target.name)
        if stored is None:
            raise errors.not_found(target.resource, target.name)
        return respond_bytes(one(target.resource, stored, form))

    def list_all(self, target: Target, query: Mapping[str, str], form: Form) -> web.Response:
        """The collection, or a page of it; the pages of one list show one moment."""
        resource = target.resource
        limit = int(query.get("limit") or 0)
        matches = matcher(resource, query)
        token = query.get("continue") or ""
        shown = (
            self._resume(token)
            if token
            else _Moment(self.store.version, self.store.all(resource.plural, target.namespace))
        )
        found: list[Stored] = []
        at = shown.at
        while at < len(shown.objects):
            stored = shown.objects[at]
            if matches is None or matches(stored.selectable):
                if limit and len(found) == limit:
                    break
                found.append(stored)
            at += 1
        meta: Obj = {"resourceVersion": str(shown.version)}
        if at < len(shown.objects):
            meta["continue"] = self._keep(replace(shown, at=at))
            # How many are left is not known where a selector chooses.
            if matches is None:
                meta["remainingItemCount"] = len(shown.objects) - at
        return respond_bytes(many(resource, found, meta, form))

    def _keep(self, rest: _Moment) -> str:
        words = json.dumps({"rv": rest.version, "start": secrets.token_hex(6)})
        token = base64.urlsafe_b64encode(words.encode()).decode()
        self._moments[token] = rest
        while len(self._moments) > _MOMENTS:
            self._moments.popitem(last=False)
        return token

    def _resume(self, token: str) -> _Moment:
        found = self._moments.get(token)
        if found is None:
            raise errors.expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a "
                "new list without the continue parameter, or use the continue token in this response to retrieve "
                "the remainder of the results. Continuing with the provided token results in an inconsistent list "
                "- objects that were created, modified, or deleted between the time the first chunk was returned "
                "and now may show up in the list."
            )
        return found

    def watch(self, target: Target, query: Mapping[str, str], form: Form) -> WatchRequest:
        """What a watch asks for; the name in the path stands for a field selector."""
        matches = matcher(target.resource, query)
        if target.name:
            named = field_matcher(target.resource, f"metadata.name={target.name}")
            matches = named if matches is None else both(matches, named)
        initial = query.get("sendInitialEvents") == "true"
        return WatchRequest(
            resource=target.resource,
            namespace=target.namespace,
            matcher=matches,
            version="" if initial else query.get("resourceVersion") or "",
            timeout=float(query.get("timeoutSeconds") or 0),
            bookmarks=query.get("allowWatchBookmarks") in ("true", "1", "True"),
            initial_end=initial,
            form=form,
        )

    def create(self, target: Target, query: Mapping[str, str], body: Obj, user: str, form: Form) -> web.Response:
        """POST to a collection, or an eviction."""
        resource = target.resource
        if target.subresource == "eviction":
            return self._evict(target, body)
        if target.name:
            raise errors.ApiError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
            )
        if resource is ACCESS_REVIEWS:
            return self._review(body, user)
        warnings = self._decoded(resource, body, query)
        created = self.registry.create(resource, target.namespace, body, dry_run=query.get("dryRun") == "All")
        return self._written(created, resource, form, 201, warnings)

    def _written(
        self, obj: Obj, resource: Resource, form: Form, status: int = 200, warnings: list[str] | None = None
    ) -> web.Response:
        """Answer with an object just written, using the JSON that the watchers get as well."""
        meta = obj["metadata"]
        stored = self.store.find(resource.plural, meta.get("namespace", ""), meta["name"])
        if stored is None or stored.obj is not obj:
            # A dry run's, or one that is gone.
            stored = Stored(obj, int(meta.get("resourceVersion") or 0))
        return respond_bytes(one(resource, stored, form), status, warnings)

    def _evict(self, target: Target, body: Obj) -> web.Response:
        pod = self.registry.get(PODS, target.namespace, target.name)
        options = delete_options({}, body.get("deleteOptions") or {})
        self.registry.add_disruption(pod, "EvictionByEvictionAPI", "Eviction API: evicting")
        self.registry.delete(PODS, target.namespace, target.name, options)
        return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)

    def _review(self, body: Obj, user: str) -> web.Response:
        asked = (body.get("spec") or {}).get("resourceAttributes") or {}
        name = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        call = Call(asked.get("verb", ""), name, asked.get("namespace", ""), asked.get("name", ""))
        allowed = self._faults.allows(call, asked.get("group", ""))
        status: Obj = {"allowed": allowed}
        if not allowed:
            status["reason"] = f'User "{user}" may not do this by a rule of the stand-in'
        answer = {"kind": "SelfSubjectAccessReview", "apiVersion": ACCESS_REVIEWS.api_version, "metadata": {}}
        return respond({**answer, "spec": body.get("spec") or {}, "status": status}, 201)

    def _decoded(self, resource: Resource, body: Obj, query: Mapping[str, str]) -> list[str]:
        for key, wanted in (("kind", resource.kind), ("apiVersion", resource.api_version)):
            if body.get(key) not in (None, "", wanted):
                raise errors.bad_request(
                    f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                    f"the {key} in the data ({body[key]}) does not match the expected {key} ({wanted})"
                )
        return decode(resource.kind, resource.version, body, query.get("fieldValidation") or "Warn")

    def update(self, target: Target, query: Mapping[str, str], body: Obj, form: Form) -> web.Response:
        """PUT."""
        resource = target.resource
        warnings = self._decoded(resource, body, query)
        name = (body.get("metadata") or {}).get("name")
        if name not in (None, target.name):
            raise errors.bad_request(
                f"the name of the object ({name}) does not match the name on the URL ({target.name})"
            )
        dry_run = query.get("dryRun") == "All"
        old = self.store.get(resource.plural, target.namespace, target.name)
        if old is None and resource is LEASES:
            created = self.registry.create(resource, target.namespace, body, dry_run=dry_run)
            return self._written(created, resource, form, 201, warnings)
        if old is None:
            raise errors.not_found(resource, target.name)
        updated = self.registry.update(resource, old, body, subresource=target.subresource, dry_run=dry_run)
        return self._written(updated, resource, form, warnings=warnings)

    def patch(self, target: Target, query: Mapping[str, str], body: Any, content_type: str, form: Form) -> web.Response:
        """PATCH in one of its three forms."""
        resource = target.resource
        old = self.registry.get(resource, target.namespace, target.name)
        if content_type == "application/json-patch+json":
            new = json_patch(old, body)
        elif not isinstance(body, dict):
            raise errors.bad_request("error decoding patch: a patch is a JSON object")
        elif content_type == "application/merge-patch+json":
            new = merge_patch(old, body)
        elif content_type == "application/strategic-merge-patch+json":
            new = strategic_patch(old, body)
        else:
            raise errors.ApiError(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json, "
                "application/strategic-merge-patch+json",
            )
        warnings = self._decoded(resource, new, query)
        dry_run = query.get("dryRun") == "All"
        updated = self.registry.update(resource, old, new, subresource=target.subresource, dry_run=dry_run)
        return self._written(updated, resource, form, warnings=warnings)

    def delete(self, target: Target, query: Mapping[str, str], body: Obj, form: Form) -> web.Response:
        """DELETE of one object."""
        resource = target.resource
        options = delete_options(query, body)
        obj, gone = self.registry.delete(resource, target.namespace, target.name, options)
        warnings = []
        if resource.plural == "jobs" and not options.policy:
            warnings.append(
                "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to "
                "remove them or set propagationPolicy=Orphan to suppress this warning"
            )
        if not gone or resource is PODS:
            return self._written(obj, resource, form, warnings=warnings)
        details: Obj = {"name": target.name, "kind": resource.plural, "uid": obj["metadata"]["uid"]}
        if resource.group:
            details["group"] = resource.group
        success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return respond(success, 200, warnings)

    def delete_collection(self, target: Target, query: Mapping[str, str], body: Obj, form: Form) -> web.Response:
        """DELETE of everything that the selectors choose."""
        resource = target.resource
        matches = matcher(resource, query)
        options = delete_options(query, body)
        chosen = [
            stored
            for stored in self.store.all(resource.plural, target.namespace)
            if matches is None or matches(stored.selectable)
        ]
        for stored in chosen:
            meta = stored.obj["metadata"]
            self.registry.delete(resource, meta.get("namespace", ""), meta["name"], options)
        return respond_bytes(many(resource, chosen, {"resourceVersion": str(self.store.version)}, form))
