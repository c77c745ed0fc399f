"""One pod on its node: from binding to its last status, as a kubelet does it with local processes as containers.

The order of statuses follows tests/recorded: ContainerCreating, sandbox ready, Running, ended, phase Succeeded or
Failed; a deletion is one more status after SIGTERM, the grace period and SIGKILL, then the object's removal.

Init containers run one after the other, of which native sidecars are only waited for to start; then the main containers
together; when these have ended, the sidecars are ended, the last first (Kubernetes' concepts, "Sidecar Containers").
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from local_stack.cluster.node.container_env import MissingError
from local_stack.cluster.node.container_worker import ContainerWorker
from local_stack.cluster.node.images import scripted_outcome
from local_stack.cluster.node.kubelet import Kubelet
from local_stack.cluster.node.network import address_of
from local_stack.cluster.node.pod_status import LOST, ContainerState, PodState
from local_stack.cluster.node.volumes import prepare_volumes, refresh_volumes, sources_of
from local_stack.cluster.registry.objects import Obj, key_of

log = logging.getLogger(__name__)

# Seconds that the kubelet gives a sidecar, however little the main containers have left.
_LAST_GRACE = 2.0
_STEP = 0.1
_PATIENCE = 5.0  # seconds after SIGKILL


class PodWorker:
    """Runs one pod. `home` is the pod's own folder."""

    def __init__(self, agent: Kubelet, pod: Obj, home: Path) -> None:
        self.agent = agent
        self.key = key_of(pod)
        self.uid: str = pod["metadata"]["uid"]
        self.pod = pod
        self.home = home
        spec = pod["spec"]
        self.state = PodState(
            containers=[ContainerState(container) for container in spec["containers"]],
            init=[ContainerState(container, is_init=True) for container in spec.get("initContainers") or ()],
        )
        self.containers = [
            ContainerWorker(agent, pod, home, container, self.state, self.publish) for container in self.state.all
        ]
        self._sidecars: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._grace = float(spec.get("terminationGracePeriodSeconds") or 0)
        self._gone = False
        self._task = asyncio.get_running_loop().create_task(self._main())

    def source_changed(self, plural: str, namespace: str, name: str) -> None:
        """A Secret or ConfigMap is another now: its files are replaced, once the kubelet looks again."""
        if namespace == self.key[0] and (plural, name) in sources_of(self.pod):
            asyncio.get_running_loop().call_later(self.agent.waits.sync, self._refresh)

    def _refresh(self) -> None:
        if self.state.sandbox and not self._gone:
            refresh_volumes(self.agent.store, self.pod, self.home / "volumes")

    def stop_if_deleted(self, pod: Obj) -> None:
        """End the pod when its deletion was asked for. Asked again: only a shorter grace period counts."""
        meta = pod["metadata"]
        if meta.get("deletionTimestamp"):
            grace = float(meta.get("deletionGracePeriodSeconds") or 0)
            self._grace = min(grace, self._grace) if self._stopping.is_set() else grace
            self._stopping.set()

    def vanish(self, *, keep_folder: bool = False) -> None:
        """The object is gone: kill what runs, write no more status."""
        self._gone = True
        self._end_all()
        if not keep_folder:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, lambda: shutil.rmtree(self.home, ignore_errors=True))

    def fail(self, reason: str, message: str) -> None:
        """The kubelet itself ends the pod (eviction, node shutdown)."""
        self._end_all()
        self.state.reason, self.state.message = reason, message
        for container in self.state.all:
            if container.running:
                container.end(137, "Error", "")
        self._publish_end("Failed")
        self._task = asyncio.get_running_loop().create_task(self._after_end())

    def kill_all(self) -> None:
        """SIGKILL to every container."""
        for worker in self.containers:
            worker.kill()

    def _end_all(self) -> None:
        self.kill_all()
        self._task.cancel()
        for task in self._sidecars:
            task.cancel()

    async def _main(self) -> None:
        try:
            await self._live()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("pod %s/%s failed in the node agent", *self.key)

    async def _live(self) -> None:
        refused = self.agent.take_rejection()
        if refused:
            self.state.reason, self.state.message = refused
            self.state.containers, self.state.init = [], []
            self._publish_end("Failed")
            return await self._after_end()
        life = asyncio.create_task(self._run_all())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({life, stop}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
            else:
                await self._shut_down(life)
        finally:
            life.cancel()
            stop.cancel()
        if not self._stopping.is_set():
            self.publish()
        await self._end_sidecars()
        for container in self.state.init:
            if container.running:  # of an instant pod
                container.end(143, "Error", "")
        codes = [container.exit_code for container in self.state.containers]
        if self.state.is_initialized:
            for container in self.state.containers:
                if container.exit_code is None:
                    container.state = {"terminated": dict(LOST)}
        self._publish_end("Succeeded" if codes and all(code == 0 for code in codes) else "Failed")
        return await self._after_end()

    async def _shut_down(self, life: asyncio.Task[None]) -> None:
        """Deleted: end what runs, but for the sidecars."""
        self.state.stopping = True
        self.publish()
        running = [worker for worker in self.containers if worker.process and not worker.container.is_sidecar]
        await self._end(running, life)

    async def _end_sidecars(self) -> None:
        """The last first, with what is left of the grace period. One that waits to be restarted is not any more."""
        sidecars = [worker for worker in self.containers if worker.container.is_sidecar]
        for worker, task in reversed(list(zip(sidecars, self._sidecars, strict=False))):
            if worker.process is None:
                task.cancel()
                continue
            if self._grace:
                self._grace = max(self._grace, _LAST_GRACE)
            await self._end([worker], task)

    async def _end(self, workers: Sequence[ContainerWorker], task: asyncio.Task[None]) -> None:
        """SIGTERM, the rest of the grace period, SIGKILL; returns when none of them runs. `task`: what they run in."""
        for worker in workers:
            worker.terminate()
        while self._grace > 0 and any(worker.process for worker in workers):
            step = min(_STEP, self._grace)
            await asyncio.wait({task}, timeout=step)
            self._grace -= step
        patience = _PATIENCE
        while patience > 0 and any(worker.process for worker in workers):
            for worker in workers:
                worker.kill()
            await asyncio.wait({task}, timeout=_STEP)
            patience -= _STEP

    def _publish_end(self, phase: str) -> None:
        self.state.phase = phase
        self.state.sandbox = False
        self.publish()

    async def _after_end(self) -> None:
        await self._stopping.wait()
        await self.agent.answering.wait()
        self.agent.remove_object(self.key, self.uid)

    def publish(self) -> None:
        """Write the status, now or when the node answers again."""
        if not self._gone:
            self.agent.write_status(self.key, self.uid, self.state)

    async def _run_all(self) -> None:
        """Until the main containers have ended, or an init container has failed."""
        instant = self.agent.images.find(self.state.containers[0].spec["image"])
        if instant and instant.instant:
            if sources_of(self.pod):
                await self._mount()  # without its Secrets it would not start, either
            return await self._run_instant()
        self.publish()
        volumes = await self._mount()
        self.state.sandbox = True
        self.publish()
        self.state.address = address_of(self.pod) or self.agent.next_address()
        main: list[ContainerWorker] = []
        for worker in self.containers:
            if self._stopping.is_set():
                return None
            if worker.container.is_sidecar:
                self._sidecars.append(asyncio.create_task(worker.run(volumes)))
                await worker.started.wait()
            elif worker.container.is_init:
                await worker.run(volumes)
                if worker.container.exit_code != 0:
                    return None
            else:
                main.append(worker)
        await asyncio.gather(*(worker.run(volumes) for worker in main))
        return None

    async def _run_instant(self) -> None:
        code, seconds, words, beside = scripted_outcome(self.pod, self.agent.images.attempt(self.pod))
        (container, *others), sidecars = self.state.containers, [c for c in self.state.init if c.is_sidecar]
        self.state.sandbox = True
        self.state.phase = "Running"
        for started in (*sidecars, container, *others):
            started.run()
        self.publish()
        if seconds:
            await asyncio.sleep(seconds)
        container.end(code, "Error" if code else "Completed", words)
        if sidecars or beside:
            self.publish()
        if beside:
            await asyncio.sleep(beside)
        for other in others:
            other.end(0, "Completed", "")

    async def _mount(self) -> dict[str, Path]:
        while True:
            try:
                return prepare_volumes(self.agent.store, self.pod, self.home / "volumes", self.agent.claims)
            except MissingError as why:
                self.agent.event(self.pod, "Warning", "FailedMount", str(why))
                await asyncio.sleep(self.agent.waits.retry)
