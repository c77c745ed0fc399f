"""The stand-in cluster: the part of Kubernetes that a Job orchestrator uses, as one process on 127.0.0.1.

    python -m local_stack.cluster --port 0 --dir DIR --gpus 2 --kubeconfig OUT --ready-file FILE \\
        --image 'trainer:1=["python","-m","trainer_image"]' --image busybox:1

It serves the API over HTTP with real semantics (versions, watches, patches, finalizers, validation), controls Jobs,
schedules pods by GPUs and runs their containers as local processes. Its URL has its token as a path, as kubectl sends
none over plain HTTP: who uses that is the administrator, who has it as a bearer token the dispatcher. Without it, or
with another one, the answer is 401; a browser's requests are refused.

An image named with `--image NAME=["argv"…]` has that entry point, `--image NAME` has none, `--image NAME=@instant`
(or `--no-run`: every image) starts no process: its pods end by the annotations on the pod template `stand-in/exit`
(code, default 0), `stand-in/seconds` (default 0) and `stand-in/message` (termination message), or by what the training
request itself asks for: `"stand-in": [{"exit", "seconds", "message"}, …]`, an entry for each attempt of the Job. Any
other image fails to be pulled.

With `--idle` there is no controller, no scheduler and no kubelet: objects stay as they were written, and tens of
thousands of them, put by /_stub/objects, cost little.

Control, for tests (below the URL; JSON bodies; typed helper: local_stack/cluster/client.py):

    POST   /_stub/faults            {"verb", "resource" ("jobs", "pods/log"), "name" (absent: any),
                                     "kind": "status"|"delay"|"cut"|"hang", "status": 500, "retry_after",
                                     "seconds" (of a delay), "count": 1 (null: for ever), "after": true (carry
                                     out, then fail)} -> {}; a watch is the verb "watch"
    DELETE /_stub/faults            all
    GET    /_stub/calls             {"calls": {"create jobs": 3, …}, "faults": {"status 500": 2, …}};  DELETE: from zero
    PUT    /_stub/denied            {"rules": [{"verb", "resource", "namespace", "group"}]} ("*" or absent: any) -> 403
    PUT    /_stub/policies          {"policies": [{"name" (part of a Job's), "code", "message"}]}: not created
    POST   /_stub/objects           {"resource": "jobs", "objects": [whole ones, uid and status too]}: stored as is
    POST   /_stub/compact           forget history: older watches get 410, continue tokens too
    POST   /_stub/watches/cut       {"resource"}: close the open watches' connections
    POST   /_stub/watches/silence   {"resource"}: they stay open and send nothing more
    GET    /_stub/watches           the open watches
    PUT    /_stub/images            {"name", "instant", "absent", "pull_error"}
    PUT    /_stub/quota             {"namespace", "name", "hard": {"requests.nvidia.com/gpu": "0"} | null}
    POST   /_stub/pods/NS/NAME/evict {"reason": "Evicted", "message"}: by the kubelet (phase Failed)
    POST   /_stub/nodes/NODE/lose   {"kill": false, "evict_after": seconds (absent: the pods' toleration)}
    POST   /_stub/nodes/NODE/return the node answers again
    POST   /_stub/nodes/NODE/remove {"kill": false}: the node object is deleted, its pods are garbage; processes go on
    POST   /_stub/nodes/NODE/reject {"reason": "UnexpectedAdmissionError", "message", "count": 1}: the next pods
    POST   /_stub/nodes/NODE/gpus   {"gpus": 4}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from local_stack.cluster.api.control import ControlApi
from local_stack.cluster.api.faults import Call, Faults
from local_stack.cluster.api.server import ClusterApi
from local_stack.cluster.api.verbs import Verbs
from local_stack.cluster.api.watch import Watches
from local_stack.cluster.controllers.garbage import GarbageCollector
from local_stack.cluster.controllers.job_controller import JobController
from local_stack.cluster.controllers.scheduler import Scheduler
from local_stack.cluster.node.agent import NodeAgent
from local_stack.cluster.node.images import INSTANT, Image, Images
from local_stack.cluster.node.kubelet import Waits
from local_stack.cluster.node.processes import Undertaker
from local_stack.cluster.registry.errors import ApiError
from local_stack.cluster.registry.resources import NAMESPACES
from local_stack.cluster.registry.store import Store
from local_stack.cluster.registry.writes import Registry
from local_stack.serving import stop_signal, write_private

# Option → (default in seconds, help).
_WAITS = {
    "job-backoff": (10.0, "before a Job's second pod, doubled each time"),
    "pull-backoff": (10.0, "before an image is pulled again, doubled each time"),
    "crash-backoff": (10.0, "before a container is restarted, doubled each time"),
    "retry": (1.0, "between attempts while a Secret or an image is missing"),
    "bookmarks": (60.0, "between bookmarks; one comes two seconds before a watch's time-out as well"),
}


class Cluster:
    """All parts, started and stopped together. Needs a running event loop."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._token = secrets.token_hex(16)
        options.dir.mkdir(parents=True, exist_ok=True)
        self.registry = Registry(Store())
        if self.registry.store.find("namespaces", "", options.namespace) is None:
            self.registry.create(NAMESPACES, "", {"metadata": {"name": options.namespace}})
        faults = Faults()
        self.registry.may = lambda verb, resource, namespace, name: faults.allows(
            Call(verb, resource.plural, namespace, name), resource.group
        )
        self.watches = Watches(self.registry.store, options.bookmarks)
        self.undertaker = Undertaker()
        self.scheduler = Scheduler(self.registry)
        self.jobs = JobController(self.registry, backoff=options.job_backoff)
        self.garbage = GarbageCollector(self.registry)
        images = Images(known=dict(options.image), instant=options.no_run)
        waits = Waits(options.retry, options.pull_backoff, options.crash_backoff)
        nodes = dict(options.node or [("local-node", options.gpus)])
        self.agents = {
            name: NodeAgent(self.registry, images, self.undertaker, waits, name=name, gpus=gpus, folder=options.dir)
            for name, gpus in nodes.items()
        }
        verbs = Verbs(self.registry, faults)
        control = ControlApi(self.registry, verbs, faults, self.watches, images, self.agents)
        api = ClusterApi(verbs, faults, self.watches, control, self.agents, self._token)
        self._runner = web.ServerRunner(web.Server(api.handle, handler_cancellation=True, access_log=None))
        self.url = ""

    async def start(self) -> None:
        """Listen, then write the kubeconfig and the ready file."""
        if not self._options.idle:
            self.jobs.start()
            self.garbage.start()
            self.scheduler.start()
            for agent in self.agents.values():
                agent.start()
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._options.port, shutdown_timeout=0.5, backlog=512)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/{self._token}"
        if self._options.kubeconfig:
            write_private(self._options.kubeconfig, yaml.safe_dump(self._kubeconfig(), sort_keys=False))
        if self._options.ready_file:
            write_private(self._options.ready_file, json.dumps({"url": self.url}))

    async def stop(self) -> None:
        """End every process that was started, then the server."""
        for agent in self.agents.values():
            await agent.stop()
        for part in (self.jobs, self.garbage, self.scheduler):
            part.stop()
        self.undertaker.close()
        self.watches.cut(None)
        await self._runner.cleanup()

    def _kubeconfig(self) -> dict[str, Any]:
        name = "stand-in"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {"token": self._token}}],
            "contexts": [
                {"name": name, "context": {"cluster": name, "user": name, "namespace": self._options.namespace}}
            ],
            "current-context": name,
        }


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; a mistake ends the process with a sentence and code 2."""
    parser = argparse.ArgumentParser(prog="python -m local_stack.cluster", description="The stand-in cluster.")
    parser.add_argument("--port", type=int, default=0, help="0: chosen by the kernel")
    parser.add_argument("--dir", type=lambda text: Path(text).absolute(), required=True, help="for the pods' folders")
    parser.add_argument("--gpus", type=int, default=2, help="GPUs of the one node")
    parser.add_argument("--node", type=_node, action="append", metavar="NAME=GPUS", help="instead: several nodes")
    parser.add_argument("--image", type=_image, action="append", default=[], metavar="NAME[=JSONARGV|@instant]")
    parser.add_argument("--no-run", action="store_true", help="start no process for any image")
    parser.add_argument("--idle", action="store_true", help="no controller, no scheduler, no kubelet")
    parser.add_argument("--kubeconfig", type=Path)
    parser.add_argument("--ready-file", type=Path)
    parser.add_argument("--namespace", default="default", help="created at start; the kubeconfig's")
    for name, (default, text) in _WAITS.items():
        parser.add_argument(f"--{name}", type=float, default=default, metavar="SECONDS", help=text)
    return parser.parse_args(arguments)


def _node(text: str) -> tuple[str, int]:
    name, _, gpus = text.partition("=")
    try:
        return name, int(gpus)
    except ValueError as why:
        raise argparse.ArgumentTypeError(str(why)) from None


def _image(text: str) -> tuple[str, Image]:
    name, equal, value = text.partition("=")
    if not equal:
        return name, Image()
    if value == INSTANT:
        return name, Image(instant=True)
    try:
        argv = json.loads(value)
    except ValueError:
        argv = None
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        raise argparse.ArgumentTypeError(f"{text}: after = stands a JSON list of words, or {INSTANT}")
    return name, Image(argv)


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = stop_signal()
    cluster = Cluster(options)
    try:
        await cluster.start()
        await stop.wait()
    finally:
        await cluster.stop()


def main() -> int:
    """The command line's entry."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options = parse_options()
    try:
        asyncio.run(serve(options))
    except OSError as why:
        print(f"the stand-in cluster cannot listen on 127.0.0.1:{options.port}: {why}", file=sys.stderr)
        return 1
    except ApiError as why:
        print(f"--namespace {options.namespace}: {why}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
