"""One container of a pod on its node: its image, its process, its restarts, and their statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from local_stack.cluster.node.container_env import MissingError, command_line, container_environment, make_folders
from local_stack.cluster.node.images import Image, is_valid
from local_stack.cluster.node.kubelet import Kubelet
from local_stack.cluster.node.pod_status import ContainerState, PodState
from local_stack.cluster.node.processes import ContainerProcess
from local_stack.cluster.node.termination import start_error, termination_message
from local_stack.cluster.registry.objects import Obj, key_of
from local_stack.cluster.registry.quantities import quantity

_MAX_BACKOFF = 300.0


class ContainerWorker:
    """Runs one container of `pod`. `home`: the pod's own folder; publish(): writes the pod's status."""

    def __init__(
        self,
        agent: Kubelet,
        pod: Obj,
        home: Path,
        container: ContainerState,
        pod_state: PodState,
        publish: Callable[[], None],
    ) -> None:
        self.container = container
        self.process: ContainerProcess | None = None
        self.started = asyncio.Event()
        self.stopping = False  # no restart any more
        self._agent = agent
        self._pod = pod
        self._home = home
        self._pod_state = pod_state
        self._publish = publish

    @property
    def memory_limit(self) -> int | None:
        """In bytes, while it runs and has one."""
        limit = ((self.container.spec.get("resources") or {}).get("limits") or {}).get("memory")
        return int(quantity(str(limit))) if limit and self.process is not None else None

    def terminate(self) -> None:
        """SIGTERM, and no restart; nothing where no process runs."""
        self.stopping = True
        if self.process is not None and self.process.exit_code is None:
            self._event("Normal", "Killing", f"Stopping container {self.container.name}")
            self.process.terminate()

    def kill(self, *, out_of_memory: bool = False) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None:
            self.process.kill(out_of_memory=out_of_memory)

    async def run(self, volumes: dict[str, Path]) -> None:
        """Until it has ended and is not started again."""
        wait = self._agent.waits.crash
        while True:
            image = await self._image()
            await self._run_once(image, volumes)
            if self.stopping or not self._restarts():
                return
            container = self.container
            container.last, container.restarts = container.state, container.restarts + 1
            where = f"{key_of(self._pod)[1]}_{key_of(self._pod)[0]}({self._pod['metadata']['uid']})"
            text = f"back-off {int(wait)}s restarting failed container={container.name} pod={where}"
            container.wait("CrashLoopBackOff", text)
            self._publish()
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_BACKOFF)

    def _restarts(self) -> bool:
        if self.container.is_sidecar:
            return True
        policy, failed = self._pod["spec"].get("restartPolicy"), self.container.exit_code != 0
        return policy != "Never" and (failed or (policy == "Always" and not self.container.is_init))

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._agent.event(self._pod, kind, reason, message, part=self.container.name)

    async def _image(self) -> Image:
        """Wait until the image is there, recording why it is not."""
        name, policy = self.container.spec["image"], self.container.spec.get("imagePullPolicy")
        wait = self._agent.waits.pull
        while True:
            image = self._agent.images.find(name)
            if image:
                text = f'Container image "{name}" already present on machine and can be accessed by the pod'
                self._event("Normal", "Pulled", text)
                return image
            if not is_valid(name):
                why = (
                    f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}": '
                    "invalid reference format"
                )
                self._hold("InvalidImageName", why, "InspectFailed")
                await asyncio.sleep(self._agent.waits.retry)
                continue
            if policy == "Never":
                why = f'Container image "{name}" is not present with pull policy of Never'
                self._hold("ErrImageNeverPull", why, "ErrImageNeverPull")
                await asyncio.sleep(self._agent.waits.retry)
                continue
            why = self._agent.images.pull_error(name)
            self._event("Normal", "Pulling", f'Pulling image "{name}"')
            text = f'Failed to pull image "{name}": {why}'
            self._hold("ErrImagePull", why, "Failed", text)
            await asyncio.sleep(min(1.0, wait / 2))
            back_off = f'Back-off pulling image "{name}"'
            self._event("Normal", "BackOff", back_off)
            self._hold("ImagePullBackOff", f"{back_off}: ErrImagePull: {why}", "")
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_BACKOFF)

    def _hold(self, reason: str, why: str, event: str, text: str = "") -> None:
        if event:
            self._event("Warning", event, text or why)
        self._event("Warning", "Failed", f"Error: {reason}")
        self.container.wait(reason, why)
        self._publish()

    async def _run_once(self, image: Image, volumes: dict[str, Path]) -> None:
        container, spec = self.container, self.container.spec
        folders = make_folders(spec, volumes, self._home)
        while True:
            try:
                status = {**self._pod["status"], "podIP": self._pod_state.address}
                env = container_environment(self._agent.store, {**self._pod, "status": status}, spec, folders)
                argv = command_line(spec, image.entrypoint, env, folders)
                if argv:
                    break
                self._hold("CreateContainerError", "no command specified", "Failed")
            except MissingError as missing:
                self._event("Warning", "Failed", f"Error: {missing}")
                container.wait("CreateContainerConfigError", str(missing))
                self._publish()
            await asyncio.sleep(self._agent.waits.retry)
        self._event("Normal", "Created", "Container created")
        cwd = Path(folders.localized(spec.get("workingDir") or "")) if spec.get("workingDir") else folders.root
        log_file = self._home / "logs" / f"{container.name}.log"
        try:
            process = ContainerProcess(
                self._agent.undertaker, argv, env, cwd if cwd.is_dir() else folders.root, log_file
            )
        except OSError as error:
            why = start_error(argv[0], error)
            self._event("Warning", "Failed", f"Error: {why}")
            container.refuse(why)
            self._pod_state.went_on()
            self._publish()
            return
        self.process = process
        container.run()
        self._event("Normal", "Started", "Container started")
        self._pod_state.went_on()
        self._publish()
        self.started.set()
        code = await process.wait()
        self.process = None
        message = termination_message(spec, folders.termination, log_file, code)
        reason = "OOMKilled" if process.out_of_memory else "Error" if code else "Completed"
        container.end(code, reason, message)
        if not self.stopping:
            self._publish()
