"""`dispatcher explain` on what a real cluster has shown of trainings that do not go on (tests/recorded)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from dispatcher import factories
from dispatcher.cli import explain as command
from dispatcher.cli.main import main
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import Event
from dispatcher.cluster.pods import Pod
from dispatcher.queue.messages import PeekedMessage
from portal_client.errors import PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.world.builders import a_job, complete
from tests.world.recordings import World, after, recording
from tests.world.repository import JOB_TEMPLATE

SETTINGS = {
    "QUEUE_NAME": "requests",
    "AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true",
    "API_BASE_URL": "http://portal.test",
    "API_KEY": "key-0123456789abcdef",
    "JOB_TEMPLATE": str(JOB_TEMPLATE),
}
AWAY = PortalUnavailable("The portal at http://portal.test did not answer within 30 s")
RUNS = ModelStatus(ProcessingStatus.PROCESSING, "Model training started")


class RecordedCluster:
    """What `explain` asks of the adapter, from one recording."""

    namespace = "training"

    def __init__(self, world: World) -> None:
        self.job = world.job and msgspec.convert(world.job, Job)
        self.pods = msgspec.convert([*world.pods.values()], list[Pod])
        self.events = msgspec.convert(world.events, list[Event])

    def get_job(self, name: str) -> Job | None:
        return self.job

    def list_pods(self, selector: str) -> list[Pod]:
        return self.pods

    def list_events(self, uid: str) -> list[Event]:
        return self.events

    def list_nodes(self) -> list[Any]:
        return []

    def get_config_map(self, name: str) -> Mapping[str, str]:
        return {}


class Queue:
    def __init__(self, *messages: PeekedMessage) -> None:
        self.messages = list(messages)

    def peek(self) -> list[PeekedMessage]:
        return self.messages

    def depth(self) -> int:
        return len(self.messages)


class Portal:
    def __init__(self, answer: ModelStatus | Exception) -> None:
        self.answer = answer

    def get_model_status(self, model_id: str) -> ModelStatus:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


Explain = Callable[..., tuple[int, str]]


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch) -> Explain:
    """(exit code, output) of the command in a world, some time after its last event."""

    def run(world: World, portal: Any, *messages: PeekedMessage) -> tuple[int, str]:
        clock = world.now + 90
        monkeypatch.setattr(command, "KubernetesJobs", lambda namespace: RecordedCluster(world))
        monkeypatch.setattr(command, "time", SimpleNamespace(time=lambda: clock))
        monkeypatch.setattr(factories, "open_portal", lambda settings: Portal(portal))
        monkeypatch.setattr(
            factories, "open_queue", lambda settings, name: Queue(*(messages if name == "requests" else ()))
        )
        done = CliRunner().invoke(main, ["explain", "model-1"], env=SETTINGS, catch_exceptions=False)
        return done.exit_code, done.output

    return run


def stuck(name: str) -> World:
    return after(recording(name))


def not_reported() -> World:
    job = a_job(*complete(), model_id="1", uid="uid-1", status={"succeeded": 1})
    return World(msgspec.to_builtins(job), {}, [], 1795420800.0)


def not_launched() -> World:
    return World(now=1795420800.0)


REQUEST = PeekedMessage("m-1", json.dumps({"task": "train", "model_container_name": "model-1"}), 0, 1795420700.0)


@pytest.mark.parametrize(
    ("what", "world", "portal", "messages", "says", "holder", "then", "advice"),
    [
        (
            "image",
            stuck("image-pull"),
            RUNS,
            (),
            "Pulling the trainer image",
            "the registry",
            "ImagePull",
            "TRAINER_IMAGE",
        ),
        (
            "GPU",
            stuck("unschedulable"),
            RUNS,
            (),
            "Insufficient nvidia.com/gpu",
            "the scheduler",
            "Unschedulable",
            "Free a GPU or add a node",
        ),
        (
            "Secret",
            stuck("missing-secret"),
            RUNS,
            (),
            'secret "portal-api-key" not found',
            "the kubelet",
            "ContainerConfig",
            "Make what is named",
        ),
        (
            "policy",
            stuck("quota"),
            RUNS,
            (),
            "exceeded quota: gpus",
            "the namespace's quota",
            "PodCreateDenied",
            "admit the pod",
        ),
        ("portal, at the end", not_reported(), AWAY, (), "Complete", "the portal", None, "dispatcher check"),
        (
            "portal, before the launch",
            not_launched(),
            AWAY,
            (REQUEST,),
            "while the portal is out of reach",
            "the portal",
            None,
            "dispatcher check",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_look_says_what_holds_a_training_up_and_what_to_do(
    explain: Explain,
    what: str,
    world: World,
    portal: Any,
    messages: Any,
    says: str,
    holder: str,
    then: str | None,
    advice: str,
) -> None:
    code, out = explain(world, portal, *messages)
    lines = dict(line.strip().split(":", 1) for line in out.splitlines()[:7] if ":" in line)
    assert code == 0
    assert says in out.splitlines()[0]
    assert lines["held by"].strip() == holder
    assert advice in lines["next"]
    assert ("tolerated" in lines) == (then is not None)
    assert then is None or f"then Failed with {then}" in lines["tolerated"]
