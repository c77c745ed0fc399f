"""Several nodes with backends that train nothing: supervisors in threads, over loopback. Nodes are numbered from 0."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from local_stack.processes import free_port, wait_until
from portal_client.errors import PortalUnavailable
from portal_client.statuses import ProcessingStatus
from tests.trainer_image.run.local_runs import RUN
from tests.world.trainer_fakes import FakeBackend, FakePortal, write_config
from trainer_image import errors
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.run import following, lifecycle
from trainer_image.run.outcome import Outcome
from trainer_image.stop import Stop
from trainer_image.storage.local import LocalContainer
from trainer_image.team import leader as team_leader
from trainer_image.team import roster, wire
from trainer_image.transfer import lease
from trainer_image.worker.messages import packed

PATIENCE = 20.0


class Backend(FakeBackend):
    """One generation of one node: `deed` is what happens in it; nothing: it goes on until it is ended."""

    def __init__(self, node: Node, deed: Callable[[Backend, RunInputs], object]) -> None:
        super().__init__(lambda inputs: self._happen(deed, inputs))
        self.node = node

    def _happen(self, deed: Callable[[Backend, RunInputs], object], inputs: RunInputs) -> None:
        self.node.begun.append(self)
        deed(self, inputs)

    def go_on(self, inputs: RunInputs) -> None:
        """Until it is ended from outside."""
        wait_until(lambda: self.abandoned.is_set() or inputs.stop.is_set(), PATIENCE)
        raise errors.Terminated("Stopped on request", step=5)


class Node:
    """A supervisor in a thread. deeds: one for each generation; begun: the backends that have trained"""

    def __init__(self, settings: Settings, pool: ThreadPoolExecutor, *deeds: Any, portal: FakePortal | None = None):
        self.settings, self.stop, self.portal = settings, Stop(), portal or FakePortal(ProcessingStatus.PROCESSING)
        self.begun: list[Backend] = []
        self._deeds = list(deeds)
        self.outcome: Future[Outcome] = pool.submit(
            lifecycle.run, settings, self.stop, backend=self._backend, connect=lambda settings: self.portal
        )

    def _backend(self) -> Backend:
        return Backend(self, self._deeds.pop(0) if self._deeds else succeed)

    def end(self) -> Outcome:
        return self.outcome.result(PATIENCE)

    def code(self) -> str:
        return self.end().code


def succeed(backend: Backend, inputs: RunInputs) -> None:
    """Its part is done."""


def go_on(backend: Backend, inputs: RunInputs) -> None:
    backend.go_on(inputs)


def fail(kind: type[errors.TrainerError]) -> Callable[[Backend, RunInputs], None]:
    def deed(backend: Backend, inputs: RunInputs) -> None:
        raise kind("it failed")

    return deed


Make = Callable[..., Node]


@pytest.fixture
def node(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """`node(1, deed, deed, nodes=3)` starts one; all are stopped in the end."""
    for module, name, seconds in (
        (roster, "SETTLE_SECONDS", 0.2),
        (roster, "ECHO_SECONDS", 1.0),
        (team_leader, "STOPPING_SECONDS", 0.2),
        (wire, "BEAT_SECONDS", 0.05),
        (wire, "LOOK_SECONDS", 0.02),
        (following, "AGAIN_SECONDS", 0.05),
        (following, "LOOK_SECONDS", 0.1),
    ):
        monkeypatch.setattr(module, name, seconds)
    common = replace(settings, nodes=2, master_address="127.0.0.1", team_port=free_port())
    started: list[Node] = []
    with ThreadPoolExecutor(8) as pool:

        def start(number: int, *deeds: Any, portal: FakePortal | None = None, **other: Any) -> Node:
            words = tmp_path / f"words-{number}"
            chosen = {"node": number, "pod_name": f"pod-{number}", "termination_path": words, **other}
            started.append(Node(replace(common, **chosen), pool, *deeds, portal=portal))
            return started[-1]

        yield start
        for each in started:
            each.stop.set("terminated")


def test_two_nodes_train_and_publish_and_only_the_first_one_reports(node: Make) -> None:
    follower, leader = node(1), node(0)
    assert (leader.code(), follower.code()) == ("Completed", "Completed")
    assert [title for title, _ in leader.portal.puts] == ["Completed"]
    assert follower.portal.calls == []
    assert follower.begun[0].inputs[0].run_key == leader.begun[0].inputs[0].run_key
    places = [(each.place.node, each.place.nodes) for n in (leader, follower) if (each := n.begun[0].inputs[0]).place]
    assert places == [(0, 2), (1, 2)]


def test_progress_says_on_how_many_nodes(node: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    node(1)
    assert node(0).code() == "Completed"
    assert "Waiting for 1 of 2 nodes: node 2" in caplog.text
    assert "Epoch 2 of 2, on 2 nodes" in caplog.text


def test_a_follower_needs_no_configuration_and_no_container_of_its_own(node: Make) -> None:
    follower, leader = node(1, out=None, config=None, model_container=None), node(0)
    assert (leader.code(), follower.code()) == ("Completed", "Completed")


def test_a_node_that_leaves_has_the_state_saved_first_and_its_replacement_begins_anew(node: Make) -> None:
    saved = threading.Event()

    def until_told(backend: Backend, inputs: RunInputs) -> None:
        wait_until(inputs.stop.is_set, PATIENCE)
        assert not follower.begun[0].abandoned.is_set(), "the others are needed for the last step"
        saved.set()
        raise errors.Terminated("Stopped on request; the state is saved", step=7)

    leader, follower = node(0, until_told), node(1, lambda backend, inputs: backend.abandoned.wait(PATIENCE))
    wait_until(lambda: bool(follower.begun), PATIENCE)
    follower.stop.set("terminated")
    assert follower.code() == "Terminated"
    assert saved.is_set()
    assert node(1).code() == "Completed"
    assert leader.code() == "Completed"
    assert len(leader.begun) == 2


def test_a_program_of_a_leaving_node_that_ends_first_does_not_take_its_node_along(node: Make) -> None:
    """Else the node would seem to be lost, and the state would not be saved."""
    ended = threading.Event()

    def until_told(backend: Backend, inputs: RunInputs) -> None:
        wait_until(inputs.stop.is_set, PATIENCE)
        ended.set()
        raise errors.Terminated("Stopped on request", step=7)

    def saves(backend: Backend, inputs: RunInputs) -> None:
        wait_until(inputs.stop.is_set, PATIENCE)
        assert not ended.is_set(), "this one is told first: it would seem to have come to its end by itself"
        assert ended.wait(PATIENCE)
        assert not backend.abandoned.wait(0.3)
        raise errors.Terminated("Stopped on request; the state is saved", step=7)

    leader, follower = node(0, saves), node(1, until_told)
    wait_until(lambda: bool(follower.begun), PATIENCE)
    follower.stop.set("terminated")
    assert follower.end().sentence == "Stopped on request; the training goes on without this node"
    assert node(1).code() == "Completed"
    assert leader.code() == "Completed"


def test_a_leader_that_ends_leaves_its_followers_waiting_for_the_next_one(node: Make) -> None:
    follower, leader = node(1, go_on), node(0, go_on)
    wait_until(lambda: bool(follower.begun) and bool(leader.begun), PATIENCE)
    leader.stop.set("terminated")
    assert leader.code() == "Terminated"
    wait_until(follower.begun[0].abandoned.is_set, PATIENCE)
    assert node(0).code() == "Completed"
    assert follower.code() == "Completed"


@pytest.mark.parametrize("kind", [errors.UserCodeFailed, errors.GpuFault])
def test_the_pod_of_the_failure_ends_and_nobody_else_s(node: Make, kind: type[errors.TrainerError]) -> None:
    leader, third = node(0, go_on, nodes=3), node(2, fail(errors.PeerLost), nodes=3)
    second = node(1, fail(kind), nodes=3)
    assert second.code() == kind.code
    assert second.end().sentence == "it failed"
    assert not leader.outcome.done()
    assert not third.outcome.done()
    assert node(1, nodes=3).code() == "Completed"
    assert (leader.code(), third.code()) == ("Completed", "Completed")


def test_an_echo_of_the_leader_s_own_worker_is_no_failure_of_the_leader(node: Make) -> None:
    leader, follower = node(0, fail(errors.PeerLost)), node(1, fail(errors.UserCodeKilled))
    assert follower.code() == "UserCodeKilled"
    assert node(1).code() == "Completed"
    assert leader.code() == "Completed"


def test_the_leader_s_own_failure_ends_the_leader_alone(node: Make) -> None:
    leader, follower = node(0, fail(errors.GpuFault)), node(1, fail(errors.PeerLost))
    assert leader.code() == "GpuFault"
    assert node(0).code() == "Completed"
    assert follower.code() == "Completed"


def test_by_hand_a_failure_for_good_ends_every_node_since_nobody_else_would(node: Make) -> None:
    leader = node(0, go_on, dispatched=False, tracking=False)
    follower = node(1, fail(errors.TrainingDiverged), dispatched=False, tracking=False)
    assert (leader.code(), follower.code()) == ("TrainingDiverged", "TrainingDiverged")
    assert leader.end().sentence == "Node 2 of 2: it failed"
    leader = node(0, fail(errors.DatasetInvalid), dispatched=False, tracking=False)
    follower = node(1, go_on, dispatched=False, tracking=False)
    assert (leader.code(), follower.code()) == ("DatasetInvalid", "DatasetInvalid")
    assert follower.end().sentence == "Node 1 of 2: it failed"


def test_a_follower_that_finds_no_leader_ends_where_the_model_is_published(node: Make, settings: Settings) -> None:
    assert settings.out is not None
    LocalContainer(settings.out).write("latest.json", json.dumps({"run_id": RUN, "manifest_sha256": "0"}).encode())
    assert node(1).code() == "Completed"


def test_a_follower_that_finds_no_leader_ends_where_a_newer_run_has_the_model(node: Make, settings: Settings) -> None:
    assert settings.out is not None
    models = LocalContainer(settings.out)
    models.lease(lease.LEASE, "20261124t081500-1a2b3c4d", take_over=True).release()
    assert node(1).code() == "Fenced"


def test_a_node_lost_while_the_model_is_published_changes_nothing(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    held, publishing = threading.Event(), threading.Event()
    upload = LocalContainer.write_if

    def slow(self: LocalContainer, name: str, content: bytes, etag: str | None) -> None:
        publishing.set()
        assert held.wait(PATIENCE)
        upload(self, name, content, etag)

    monkeypatch.setattr(LocalContainer, "write_if", slow)
    leader, follower = node(0), node(1)
    assert publishing.wait(PATIENCE)
    wait_until(lambda: bool(follower.begun), PATIENCE)
    follower.stop.set("terminated")
    assert follower.code() == "Terminated"
    replacement = node(1)
    held.set()
    assert (leader.code(), replacement.code()) == ("Completed", "Completed")
    assert replacement.begun == [], "there is nothing to train any more"


def test_a_portal_that_is_not_told_is_no_matter_of_the_others(node: Make) -> None:
    portal = FakePortal(ProcessingStatus.CREATED)
    leader = node(0, lambda backend, inputs: setattr(portal, "down", PortalUnavailable("no")),
                  dispatched=False, portal=portal)  # fmt: skip
    follower = node(1, dispatched=False)
    assert leader.end().exit_code == 202
    assert follower.end().exit_code == 0


def test_a_program_s_share_is_refused_where_files_are_fewer_than_nodes(node: Make, tmp_path: Path) -> None:
    config = write_config(tmp_path, "task: command\ncommand: {argv: [sh, -c, 'true'], shares: ['*.csv']}\n")
    leader = node(0, config=config, allow_command="on")
    assert leader.code() == "ConfigInvalid"
    assert leader.end().sentence == (
        "Invalid configuration: command.shares: 1 of the dataset's files match, which 2 nodes cannot share"
    )


@pytest.mark.parametrize(
    "content",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, b"", packed(wire.Beat()), packed(wire.Published())],
    ids=["http", "noise", "nothing", "a beat", "a word of the leader's"],
)
def test_whatever_connects_to_the_port_disturbs_nobody(node: Make, content: bytes) -> None:
    leader = node(0)
    port = leader.settings.team_port
    wait_until(lambda: _connects(port), PATIENCE)
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(content)
        assert node(1).code() == "Completed"
        assert leader.code() == "Completed"


def test_many_connections_that_say_nothing_keep_no_node_out(node: Make) -> None:
    leader = node(0)
    port = leader.settings.team_port
    wait_until(lambda: _connects(port), PATIENCE)
    strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        assert node(1).code() == "Completed"
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_second_pod_of_one_node_waits_until_the_first_one_is_gone(node: Make) -> None:
    leader, first = node(0, go_on), node(1, lambda backend, inputs: backend.abandoned.wait(PATIENCE))
    wait_until(lambda: bool(first.begun), PATIENCE)
    second = node(
        1, pod_name="pod-1-again", work_dir=None, termination_path=first.settings.termination_path.with_name("again")
    )
    with pytest.raises(TimeoutError):
        second.outcome.result(0.5)
    assert len(leader.begun) == 1, "the generation goes on"
    first.stop.set("terminated")
    assert (first.code(), second.code(), leader.code()) == ("Terminated", "Completed", "Completed")


def test_by_hand_another_run_s_node_is_told_so(node: Make) -> None:
    node(0, dispatched=False, tracking=False)
    follower = node(1, dispatched=False, tracking=False, run_id="another")
    assert follower.end().exit_code == 64
    assert f"node 1 trains run {RUN}, not another: RUN_ID has to be the same on all nodes" in follower.end().sentence


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture
def containers(azurite: Any) -> dict[str, Any]:
    """Settings of containers with a dataset in four shards, which the nodes share, and a label file."""
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    name = secrets.token_hex(6)
    config = b"task: command\ncommand: {argv: [sh, -c, 'true'], shares: ['shard-*']}\n"
    service.create_container(f"model-{name}").upload_blob("config.yaml", config)
    dataset = service.create_container(f"dataset-{name}")
    for blob in ("labels", *(f"shard-{number}" for number in range(4))):
        dataset.upload_blob(blob, blob.encode())
    return {
        "data": None,
        "out": None,
        "config": None,
        "connection_string": azurite.connection_string,
        "model_container": f"model-{name}",
        "dataset_container": f"dataset-{name}",
        "allow_command": "on",
    }


def test_each_node_downloads_its_share_and_keeps_it_for_the_next_generation(
    node: Make, containers: dict[str, Any]
) -> None:
    found: dict[int, list[str]] = {}

    def look(backend: Backend, inputs: RunInputs) -> None:
        found[backend.node.settings.node] = sorted(file.name for file in inputs.data.iterdir())

    def once_more(backend: Backend, inputs: RunInputs) -> None:
        (inputs.data / "labels").write_text("kept")
        raise errors.PeerLost("it is gone")

    def kept(backend: Backend, inputs: RunInputs) -> None:
        look(backend, inputs)
        assert (inputs.data / "labels").read_text() == "kept"

    leader, follower = (
        node(0, fail(errors.PeerLost), look, nodes=3, **containers),
        node(1, once_more, kept, nodes=3, **containers),
    )
    third = node(2, fail(errors.GpuFault), nodes=3, **containers)
    assert third.code() == "GpuFault"
    again = node(2, nodes=3, **containers)
    assert (leader.code(), follower.code(), again.code()) == ("Completed", "Completed", "Completed")
    assert found == {0: ["labels", "shard-0", "shard-3"], 1: ["labels", "shard-1"]}


def test_a_dataset_that_is_changed_meanwhile_is_named_by_the_node_that_has_to_read_it_anew(
    node: Make, containers: dict[str, Any], azurite: Any
) -> None:
    leader, follower = node(0, go_on, **containers), node(1, go_on, **containers)
    wait_until(lambda: bool(follower.begun), PATIENCE)
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    service.get_blob_client(containers["dataset_container"], "labels").upload_blob(b"others", overwrite=True)
    follower.stop.set("terminated")
    follower.end()
    again = node(1, **containers)
    assert again.code() == "DatasetInvalid"
    assert again.end().sentence == (
        f"Invalid dataset: {containers['dataset_container']}: it was changed after node 1 had read it; send the request"
        " again"
    )
    assert not leader.outcome.done(), "Kubernetes ends it with the Job"
