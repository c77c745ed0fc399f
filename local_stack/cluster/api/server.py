"""The HTTP server: paths, tokens, permissions, scripted faults, and which verb answers."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from local_stack.cluster.api.answers import known_resource, respond, respond_bytes
from local_stack.cluster.api.control import ControlApi
from local_stack.cluster.api.discovery import discover
from local_stack.cluster.api.faults import Call, Fault, Faults
from local_stack.cluster.api.forms import form_of
from local_stack.cluster.api.logs import check_started, choose_container, serve_log
from local_stack.cluster.api.protobuf import MEDIA_TYPE, to_object
from local_stack.cluster.api.verbs import Target, Verbs
from local_stack.cluster.api.watch import Watches
from local_stack.cluster.node.agent import NodeAgent
from local_stack.cluster.registry import errors
from local_stack.cluster.registry.objects import has_ended
from local_stack.cluster.registry.resources import ACCESS_REVIEWS, GROUPS, JOBS, PODS

log = logging.getLogger(__name__)

USER = "system:serviceaccount:default:training-dispatcher"
_ADMIN = "kubernetes-admin"
_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


class CutError(Exception):
    """The connection is to be closed without an answer."""


@dataclass(frozen=True)
class ClusterApi:
    """Answers every request that has `token` and comes from no browser.

    As a bearer token it is the dispatcher's. As the first part of the path it is the administrator's: kubectl sends no
    header over plain HTTP.
    """

    verbs: Verbs
    faults: Faults
    watches: Watches
    control: ControlApi
    agents: dict[str, NodeAgent]
    token: str

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; every failure becomes a Status."""
        try:
            return await self._answer(request)
        except errors.ApiError as why:
            response = respond(why.status(), why.code)
            response.headers.update(why.headers)
            return response
        except CutError:
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError from None
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as why:
            text = f"couldn't get version/kind; json parse error: {why}"
            return respond(errors.bad_request(text).status(), 400)
        except ValueError as why:
            return respond(errors.bad_request(f"a parameter cannot be read: {why}").status(), 400)
        except Exception:
            log.exception("%s %s", request.method, request.path)
            status = errors.ApiError(500, "InternalError", "Internal error occurred in the stand-in cluster")
            return respond(status.status(), 500)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raw_path, _, text = request.raw_path.partition("?")
        path, user = self._admit(request, raw_path)
        if path.startswith("/_stub/"):
            return await self.control.handle(request, path.removeprefix("/_stub/"))
        target = _target(path)
        if target is None:
            found = discover(path)
            if found is None:
                raise errors.ApiError(404, "NotFound", "the server could not find the requested resource")
            return respond(found)
        query = dict(parse_qsl(text)) if text else {}
        verb = _verb(request.method, target, query)
        call = Call(
            verb,
            target.resource.plural + (f"/{target.subresource}" if target.subresource else ""),
            target.namespace,
            target.name,
        )
        self.faults.calls[f"{verb} {call.resource}"] += 1
        fault = self.faults.take(call)
        if fault is not None and not fault.after:
            await self._apply_fault(fault)
        if target.resource is not ACCESS_REVIEWS and not self.faults.allows(call, target.resource.group):
            raise errors.denied(
                user,
                verb,
                target.resource,
                name=target.name,
                namespace=target.namespace,
                subresource=target.subresource,
            )
        answer = await self._perform(request, verb, target, query, user)
        if fault is not None and fault.after:
            await self._apply_fault(fault)
        return answer

    def _admit(self, request: web.BaseRequest, path: str) -> tuple[str, str]:
        """The path without the token, and who asks. We start programs: not for whoever finds the port."""
        # A page that somebody views on this machine may call servers on loopback.
        if any(name.lower() == "origin" or name.lower().startswith("sec-fetch-") for name in request.headers):
            raise errors.ApiError(403, "Forbidden", "the stand-in cluster answers no browser")
        header = request.headers.get("Authorization")
        first, slash, rest = path.lstrip("/").partition("/")
        known = hmac.compare_digest(first.encode(), self.token.encode())
        if (header is None and not known) or (header is not None and header != f"Bearer {self.token}"):
            raise errors.ApiError(401, "Unauthorized", "Unauthorized")
        return (slash + rest if known else path), (_ADMIN if header is None else USER)

    async def _apply_fault(self, fault: Fault) -> None:
        if fault.seconds:
            await asyncio.sleep(fault.seconds)
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "cut":
            raise CutError
        if fault.kind == "status":
            raise fault.error()

    async def _perform(
        self, request: web.BaseRequest, verb: str, target: Target, query: Mapping[str, str], user: str
    ) -> web.StreamResponse:
        form = form_of(request.headers.get("Accept", ""))
        verbs = self.verbs
        if verb == "watch":
            return await self.watches.serve(request, verbs.watch(target, query, form))
        if verb == "get":
            if target.subresource == "log":
                return await self._log(request, target, query)
            return verbs.get(target, form)
        if verb == "list":
            return verbs.list_all(target, query, form)
        raw = await request.read()
        body = to_object(raw) if request.content_type == MEDIA_TYPE else json.loads(raw or b"{}")
        if verb == "patch":
            return verbs.patch(target, query, body, request.content_type, form)
        if not isinstance(body, dict):
            raise errors.bad_request("the body of the request is not an object")
        if verb == "create":
            if target.resource is JOBS:
                for policy in self.faults.policies:
                    policy.check(body)
            return verbs.create(target, query, body, user, form)
        if verb == "update":
            return verbs.update(target, query, body, form)
        if verb == "delete":
            return verbs.delete(target, query, body, form)
        return verbs.delete_collection(target, query, body, form)

    async def _log(self, request: web.BaseRequest, target: Target, query: Mapping[str, str]) -> web.StreamResponse:
        pod = self.verbs.registry.get(PODS, target.namespace, target.name)
        container = choose_container(pod, query.get("container") or "")
        check_started(pod, container)
        node = pod["spec"].get("nodeName")
        if not node:
            return respond_bytes(b"")
        agent = self.agents.get(node)
        uid = pod["metadata"]["uid"]
        path = agent.log_path(uid, container) if agent and agent.answering.is_set() else None

        def running() -> bool:
            now = self.verbs.store.get("pods", target.namespace, target.name)
            return now is not None and not has_ended(now)

        return await serve_log(request, path, query, running)


def _target(path: str) -> Target | None:
    """The resource that a path names; None when it names none."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[:2] == ["api", "v1"]:
        group, rest = "", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3 and parts[2] == GROUPS.get(parts[1]):
        group, rest = parts[1], parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and known_resource(rest[2], group):
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        return None
    resource = known_resource(rest[0], group)
    if resource is None or (namespace and not resource.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    served = (*(("status",) if resource.status else ()), *resource.subresources)
    if subresource and subresource not in served and (resource.plural, subresource) != ("namespaces", "finalize"):
        return None
    return Target(resource, namespace, name, subresource)


def _verb(method: str, target: Target, query: Mapping[str, str]) -> str:
    if method in ("GET", "HEAD"):
        if query.get("watch") in ("true", "1", "True"):
            return "watch"
        return "get" if target.name else "list"
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    verb = _METHODS.get(method)
    if verb is None or (verb != "create" and not target.name):
        raise errors.ApiError(
            405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
        )
    return verb
