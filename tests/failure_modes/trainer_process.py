"""Trainers as processes of their own for the tests of fencing: the real outside, and a storage that kills.

stdin: JSON, a list of plans; each is run in a forked process, one after the other. A plan:

    name, folder            <folder>/<name>.json gets how it ended, <folder>/<name>.training is there while it trains
    run_id, model, dataset, connection_string
    hold                    train until <folder>/<name>.go is there, or until it is told to stop
    wait, renew             seconds that it waits for another pod's lease, and between two looks at its own
    kill                    [number, "before" | "after"]: SIGKILL itself at this call of the storage that writes
    freeze                  the same, but SIGSTOP: it goes on when it is told to by SIGCONT
    kill_at_checkpoint      SIGKILL itself when the first checkpoint is stored
    real                    the real training; else one that writes its run's id as the model
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from portal_client.statuses import ProcessingStatus
from tests.world.trainer_fakes import FakePortal
from trainer_image.config.model_config import Config
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs, RunResult
from trainer_image.errors import Terminated
from trainer_image.limits import Limits
from trainer_image.run import lifecycle
from trainer_image.stop import Stop
from trainer_image.storage.azure import AzureContainer
from trainer_image.transfer import lease
from trainer_image.transfer.checkpoint_store import ContainerCheckpoints


class Backend:
    """Trains nothing; says when it does."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan

    def check_config(self, config: Config, limits: Limits) -> None:
        """Nothing to see."""

    def train(self, inputs: RunInputs) -> RunResult:
        folder, name = Path(self.plan["folder"]), self.plan["name"]
        (folder / f"{name}.training").touch()
        while self.plan.get("hold") and not (folder / f"{name}.go").exists():
            if inputs.stop.is_set():
                raise Terminated("Stopped", step=1)
            time.sleep(0.02)
        (inputs.output / "model.safetensors").write_text(inputs.run_id)
        (inputs.output / "model.json").write_text(json.dumps({"run_id": inputs.run_id, "pod": name}))
        return RunResult("tabular", {"accuracy": 0.9}, {}, steps=1, seconds=0.1)

    def follow(self, inputs: RunInputs) -> None:
        raise NotImplementedError

    def abandon(self) -> None:
        raise NotImplementedError

    def validate_dataset(self, inputs: RunInputs) -> str:
        raise NotImplementedError


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stand_still() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def arm(number: int, side: str, act: Callable[[], None]) -> None:
    """The storage does this to its process at this writing call."""
    count = itertools.count()
    for name in ("write", "write_if", "upload"):
        original = getattr(AzureContainer, name)

        def armed(self: AzureContainer, *args: Any, _original: Any = original) -> Any:
            mine = next(count) == number
            if mine and side == "before":
                act()
            answer = _original(self, *args)
            if mine and side == "after":
                act()
            return answer

        setattr(AzureContainer, name, armed)


def arm_checkpoints() -> None:
    keep = ContainerCheckpoints.keep

    def armed(self: ContainerCheckpoints, folder: Path) -> None:
        keep(self, folder)
        die()

    ContainerCheckpoints.keep = armed  # type: ignore[method-assign]


def train(plan: dict[str, Any]) -> int:
    folder, name = Path(plan["folder"]), plan["name"]
    settings = Settings(
        run_id=plan["run_id"],
        dispatched=True,
        tracking=True,
        api_base_url="https://portal.example.com",
        api_key="key-of-the-portal",
        model_container=plan["model"],
        dataset_container=plan["dataset"],
        connection_string=plan["connection_string"],
        report_retry_seconds=0.0,
        progress_seconds=3600.0,
        termination_path=folder / f"{name}.last",
        work_dir=folder / f"{name}.work",
        device="cpu",
    )
    patience = {"wait_seconds": plan.get("wait", 0.0), "renew_seconds": plan.get("renew", 0.2)}
    lease.take = functools.partial(lease.take, **patience)  # type: ignore[assignment]
    if plan.get("kill"):
        arm(*plan["kill"], die)
    if plan.get("freeze"):
        arm(*plan["freeze"], stand_still)
    if plan.get("kill_at_checkpoint"):
        arm_checkpoints()
    portal = FakePortal(ProcessingStatus.PROCESSING)
    backend = None if plan.get("real") else lambda: Backend(plan)
    outcome = lifecycle.run(settings, Stop(), backend=backend, connect=lambda settings: portal)
    (folder / f"{name}.json").write_text(json.dumps({"code": outcome.code, "puts": portal.puts}))
    return outcome.exit_code


def main() -> None:
    """Prints the exit status of each plan as JSON: negative, the signal that ended it."""
    codes = []
    for plan in json.loads(sys.stdin.read()):
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = train(plan)
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
