"""One pod on its node: from binding to its last status, as a kubelet does it with a local process as container.

The order of statuses follows tests/recorded: ContainerCreating, sandbox ready, Running, ended, phase Succeeded or
Failed; a deletion is one more status after SIGTERM, the grace period and SIGKILL, then the object's removal.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from local_stack.cluster.node.container_env import (
    MissingError,
    command_line,
    container_environment,
    make_folders,
)
from local_stack.cluster.node.images import Image, is_valid, scripted_outcome
from local_stack.cluster.node.kubelet import Kubelet
from local_stack.cluster.node.pod_status import LOST, ContainerState, PodState
from local_stack.cluster.node.processes import ContainerProcess
from local_stack.cluster.node.termination import start_error, termination_message
from local_stack.cluster.node.volumes import prepare_volumes, refresh_volumes, sources_of
from local_stack.cluster.registry.objects import Obj, key_of
from local_stack.cluster.registry.quantities import quantity

log = logging.getLogger(__name__)

_MAX_BACKOFF = 300.0


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
            init=[ContainerState(container) for container in spec.get("initContainers") or ()],
        )
        self.processes: dict[str, ContainerProcess] = {}
        self._stopping = asyncio.Event()
        self._grace = 0.0
        self._gone = False
        self._task = asyncio.get_running_loop().create_task(self._main())

    @property
    def limits(self) -> dict[str, int]:
        """Memory limits in bytes of the running containers that have one."""
        found = {}
        for container in [*self.state.init, *self.state.containers]:
            limit = ((container.spec.get("resources") or {}).get("limits") or {}).get("memory")
            if limit and container.spec["name"] in self.processes:
                found[container.spec["name"]] = int(quantity(str(limit)))
        return found

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
        self._kill_all()
        self._task.cancel()
        if not keep_folder:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, lambda: shutil.rmtree(self.home, ignore_errors=True))

    def fail(self, reason: str, message: str) -> None:
        """The kubelet itself ends the pod (eviction, node shutdown)."""
        self._kill_all()
        self._task.cancel()
        self.state.reason, self.state.message = reason, message
        for container in self.state.containers:
            if container.running:
                container.end(137, "Error", "")
        self._publish_end("Failed")
        self._task = asyncio.get_running_loop().create_task(self._after_end())

    def _kill_all(self) -> None:
        for process in self.processes.values():
            process.kill()

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
            self.state.containers = []
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
        codes = [container.exit_code for container in self.state.containers]
        if not self._stopping.is_set():
            self.publish()
        for container in self.state.containers:
            if container.exit_code is None:
                container.state = {"terminated": dict(LOST)}
        self._publish_end("Succeeded" if codes and all(code == 0 for code in codes) else "Failed")
        return await self._after_end()

    async def _shut_down(self, life: asyncio.Task[None]) -> None:
        self.state.stopping = True
        self.publish()
        if not any(process.exit_code is None for process in self.processes.values()):
            return
        for name, process in self.processes.items():
            if process.exit_code is None:
                self.agent.event(self.pod, "Normal", "Killing", f"Stopping container {name}", part=name)
                process.terminate()
        waited = 0.0
        while not life.done() and waited < self._grace:
            step = min(0.1, self._grace - waited)
            await asyncio.wait({life}, timeout=step)
            waited += step
        self._kill_all()
        await asyncio.wait({life}, timeout=5.0)

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
        instant = self.agent.images.find(self.state.containers[0].spec["image"])
        if instant and instant.instant:
            if sources_of(self.pod):
                await self._mount()  # without its Secrets it would not start, either
            return await self._run_instant()
        self.publish()
        volumes = await self._mount()
        self.state.sandbox = True
        self.publish()
        self.state.address = self.agent.next_address()
        for container in self.state.init:
            await self._run_container(container, volumes)
            if container.exit_code != 0:
                return None
        await asyncio.gather(*(self._run_container(c, volumes) for c in self.state.containers))
        return None

    async def _run_instant(self) -> None:
        code, seconds, words = scripted_outcome(self.pod, self.agent.images.attempt(self.pod))
        container = self.state.containers[0]
        self.state.sandbox = True
        self.state.phase = "Running"
        container.run()
        self.publish()
        if seconds:
            await asyncio.sleep(seconds)
        container.end(code, "Error" if code else "Completed", words)

    async def _mount(self) -> dict[str, Path]:
        while True:
            try:
                return prepare_volumes(self.agent.store, self.pod, self.home / "volumes", self.agent.claims)
            except MissingError as why:
                self.agent.event(self.pod, "Warning", "FailedMount", str(why))
                await asyncio.sleep(self.agent.waits.retry)

    async def _run_container(self, container: ContainerState, volumes: dict[str, Path]) -> None:
        policy = self.pod["spec"].get("restartPolicy")
        wait = self.agent.waits.crash
        while True:
            image = await self._image(container)
            await self._run_once(container, image, volumes)
            if policy == "Never" or (policy == "OnFailure" and container.exit_code == 0):
                return
            container.last, container.restarts = container.state, container.restarts + 1
            name = container.spec["name"]
            where = f"{self.key[1]}_{self.key[0]}({self.uid})"
            container.wait(
                "CrashLoopBackOff",
                f"back-off {int(wait)}s restarting failed container={name} pod={where}",
            )
            self.publish()
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_BACKOFF)

    async def _image(self, container: ContainerState) -> Image:
        """Wait until the image is there, recording why it is not."""
        name, policy = container.spec["image"], container.spec.get("imagePullPolicy")
        part = container.spec["name"]
        wait = self.agent.waits.pull
        while True:
            image = self.agent.images.find(name)
            if image:
                text = f'Container image "{name}" already present on machine and can be accessed by the pod'
                self.agent.event(self.pod, "Normal", "Pulled", text, part=part)
                return image
            if not is_valid(name):
                why = (
                    f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}": '
                    "invalid reference format"
                )
                self._hold(container, "InvalidImageName", why, "InspectFailed")
                await asyncio.sleep(self.agent.waits.retry)
                continue
            if policy == "Never":
                why = f'Container image "{name}" is not present with pull policy of Never'
                self._hold(container, "ErrImageNeverPull", why, "ErrImageNeverPull")
                await asyncio.sleep(self.agent.waits.retry)
                continue
            why = self.agent.images.pull_error(name)
            self.agent.event(self.pod, "Normal", "Pulling", f'Pulling image "{name}"', part=part)
            text = f'Failed to pull image "{name}": {why}'
            self._hold(container, "ErrImagePull", why, "Failed", text)
            await asyncio.sleep(min(1.0, wait / 2))
            back_off = f'Back-off pulling image "{name}"'
            self.agent.event(self.pod, "Normal", "BackOff", back_off, part=part)
            self._hold(container, "ImagePullBackOff", f"{back_off}: ErrImagePull: {why}", "")
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_BACKOFF)

    def _hold(self, container: ContainerState, reason: str, why: str, event: str, text: str = "") -> None:
        part = container.spec["name"]
        if event:
            self.agent.event(self.pod, "Warning", event, text or why, part=part)
        self.agent.event(self.pod, "Warning", "Failed", f"Error: {reason}", part=part)
        container.wait(reason, why)
        self.publish()

    async def _run_once(self, container: ContainerState, image: Image, volumes: dict[str, Path]) -> None:
        spec = container.spec
        name = spec["name"]
        folders = make_folders(spec, volumes, self.home)
        while True:
            try:
                env = container_environment(self.agent.store, self.pod, spec, folders)
                argv = command_line(spec, image.entrypoint, env, folders)
                if argv:
                    break
                self._hold(container, "CreateContainerError", "no command specified", "Failed")
            except MissingError as missing:
                self.agent.event(self.pod, "Warning", "Failed", f"Error: {missing}", part=name)
                container.wait("CreateContainerConfigError", str(missing))
                self.publish()
            await asyncio.sleep(self.agent.waits.retry)
        self.agent.event(self.pod, "Normal", "Created", "Container created", part=name)
        cwd = Path(folders.localized(spec.get("workingDir") or "")) if spec.get("workingDir") else folders.root
        log_file = self.home / "logs" / f"{name}.log"
        try:
            process = ContainerProcess(
                self.agent.undertaker, argv, env, cwd if cwd.is_dir() else folders.root, log_file
            )
        except OSError:
            why = start_error(argv[0])
            self.agent.event(self.pod, "Warning", "Failed", f"Error: {why}", part=name)
            container.end(128, "StartError", why)
            return
        self.processes[name] = process
        container.run()
        self.agent.event(self.pod, "Normal", "Started", "Container started", part=name)
        if container not in self.state.init:
            self.state.phase = "Running"
        self.publish()
        code = await process.wait()
        del self.processes[name]
        message = termination_message(spec, folders.termination, log_file, code)
        reason = "OOMKilled" if process.out_of_memory else "Error" if code else "Completed"
        container.end(code, reason, message)
        if len(self.state.containers) > 1 or container in self.state.init:
            self.publish()
