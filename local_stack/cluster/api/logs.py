"""`GET …/pods/NAME/log`: the container's output, whole, its tail, or as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from aiohttp import web

from local_stack.cluster.registry.errors import ApiError, bad_request
from local_stack.cluster.registry.objects import Obj


def choose_container(pod: Obj, asked: str) -> str:
    """The container's name; 400 when it must be named, or there is no such one."""
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]
    names = [container["name"] for container in containers]
    name = pod["metadata"]["name"]
    if not asked:
        if len(pod["spec"]["containers"]) > 1:
            listed = " ".join(names)
            raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{listed}]")
        return str(names[0])
    if asked not in names:
        raise bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def check_started(pod: Obj, container: str) -> None:
    """400 while the container has not started, in the API server's words."""
    statuses = pod["status"].get("containerStatuses") or pod["status"].get("initContainerStatuses") or ()
    for status in statuses:
        waiting = status["state"].get("waiting")
        if status["name"] == container and waiting:
            why = "trying and failing to pull image" if "Image" in waiting["reason"] else waiting["reason"]
            raise bad_request(f'container "{container}" in pod "{pod["metadata"]["name"]}" is waiting to start: {why}')


async def serve_log(
    request: web.BaseRequest, path: Path | None, query: Mapping[str, str], running: Callable[[], bool]
) -> web.StreamResponse:
    """Answer with the log at `path`; with `follow` until `running` is False and everything was sent."""
    if query.get("previous") == "true":
        raise bad_request("previous terminated container not found")
    if path is None:
        raise ApiError(500, "", "Get the pod's log: dial tcp 127.0.0.1:10250: connect: connection refused")
    data = await asyncio.to_thread(_read, path)
    offset = len(data)
    if query.get("tailLines"):
        wanted = int(query["tailLines"])
        data = b"".join(data.splitlines(keepends=True)[-wanted:]) if wanted else b""
    if query.get("limitBytes"):
        data = data[: int(query["limitBytes"])]
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    if data:
        await response.write(data)
    while query.get("follow") == "true":
        going = running()
        more = await asyncio.to_thread(_read, path, offset)
        offset += len(more)
        if more:
            await response.write(more)
        elif not going:
            break
        else:
            await asyncio.sleep(0.1)
    await response.write_eof()
    return response


def _read(path: Path, offset: int = 0) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""
