"""A training on several nodes: the quality of one, and whoever is lost ends the others at once, as what it is."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.world.nodes import ADDRESS, Node, free_port, train_together
from tests.world.training_data import TABULAR, class_table, run_inputs
from trainer_image import errors
from trainer_image.contract import Place, RunInputs, RunResult
from trainer_image.engine import training
from trainer_image.engine.processes import Processes
from trainer_image.engine.rendezvous import listening, order_for, order_of_node
from trainer_image.engine.team import reaching_others
from trainer_image.errors import PeerLost, Terminated
from trainer_image.host import gpu_faults
from trainer_image.host.network import interface_towards
from trainer_image.tasks import plugins
from trainer_image.worker.child import Worker

pytestmark = pytest.mark.long

# 12 steps.
CONFIG = TABULAR.replace("epochs: 3", "epochs: 2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_table(tmp_path_factory.mktemp("nodes") / "data", 240)


def nodes(folder: Path, data: Path, count: int, **more: Any) -> list[Node]:
    return [Node(folder / str(number), data, CONFIG, **more) for number in range(count)]


def model(node: Node) -> bytes:
    return (node.folder / "output" / "model.safetensors").read_bytes()


def report(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((node.folder / "output" / "report.json").read_text())
    return found["training"]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[RunResult, Node]]:
    """By the number of nodes: trainings that nobody interrupts, and their first nodes."""
    found = {}
    for count in (1, 2, 3):
        team = nodes(tmp_path_factory.mktemp("whole"), data, count)
        trained, *followed = train_together(team)
        assert isinstance(trained, RunResult), trained
        assert followed == [None] * (count - 1)
        found[count] = trained, team[0]
    return found


def test_two_and_three_nodes_give_the_quality_of_one(whole: dict[int, tuple[RunResult, Node]]) -> None:
    alone, _ = whole[1]
    for count in (2, 3):
        trained, node = whole[count]
        assert trained.steps == alone.steps
        assert trained.metrics["accuracy"] == alone.metrics["accuracy"]
        assert trained.metrics["log_loss"] == pytest.approx(alone.metrics["log_loss"], abs=0.02)
        assert any("one node may well be faster" in note for note in report(node)["notes"])
        assert list(node.folder.iterdir()) == [node.folder / "output"]
    assert model(whole[2][1]) != model(whole[1][1]), "two summed their gradients, or only one has trained"


def test_whichever_node_is_killed_the_others_end_at_once_and_the_model_is_the_same_to_the_last_bit(
    tmp_path: Path, data: Path, whole: dict[int, tuple[RunResult, Node]]
) -> None:
    store = tmp_path / "store"
    for number, (killed, step) in enumerate(((1, 4), (0, 9))):
        team = nodes(tmp_path / str(number), data, 2, store=store)
        team[killed] = replace(team[killed], dies_at=step)
        ends = train_together(team)
        assert ends[killed] == -9
        survivor = ends[1 - killed]
        assert isinstance(survivor, PeerLost), survivor
        assert survivor.retryable
    team = nodes(tmp_path / "last", data, 2, store=store)
    trained, _ = train_together(team)
    assert isinstance(trained, RunResult)
    assert report(team[0])["resumed_from_step"] > 0
    assert model(team[0]) == model(whole[2][1])


def test_checkpoints_move_between_numbers_of_nodes_and_processes(
    tmp_path: Path, data: Path, whole: dict[int, tuple[RunResult, Node]]
) -> None:
    store = tmp_path / "store"
    for count, processes, step in ((3, 1, 4), (2, 2, 8)):
        team = nodes(tmp_path / str(count), data, count, processes=processes, store=store)
        team[0] = replace(team[0], stops_at=step)
        stopped, *followed = train_together(team)
        assert isinstance(stopped, Terminated), stopped
        assert stopped.step == step
        assert followed == [None] * (count - 1), "they are told the end"
    team = nodes(tmp_path / "last", data, 1, store=store)
    (trained,) = train_together(team)
    alone, _ = whole[1]
    assert isinstance(trained, RunResult)
    assert report(team[0])["resumed_from_step"] == 8
    assert trained.steps == alone.steps
    assert trained.metrics["log_loss"] == pytest.approx(alone.metrics["log_loss"], abs=0.02)


def test_a_node_for_which_the_batch_has_no_rows_ends_in_peace_and_one_with_little_memory_sets_the_order(
    tmp_path: Path, data: Path
) -> None:
    team = nodes(tmp_path, data, 3)
    small = CONFIG.replace("epochs: 2", "epochs: 1, batch_size: 16")
    team = [replace(node, config=small, block_rows=30 if number == 1 else 0) for number, node in enumerate(team)]
    trained, *followed = train_together(team)
    assert isinstance(trained, RunResult), trained
    assert followed == [None, None]
    said = " ".join(report(team[0])["notes"])
    assert "2 of 3 processes train" in said
    assert "shuffled in blocks of 30" in said


def test_two_workers_train_one_model_each_with_folders_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    inputs = []
    for node in range(2):
        given = run_inputs(class_table(tmp_path / f"data-{node}"), tmp_path / f"work-{node}" / "output")
        given.output.mkdir(parents=True)
        inputs.append(replace(given, place=Place(node, 2, ADDRESS, port)))
    with Worker("engine") as first, Worker("engine") as second:
        following = threading.Thread(target=second.follow, args=(inputs[1],))
        following.start()
        trained = first.train(inputs[0])
        following.join(10)
        assert not following.is_alive()
    assert trained.metrics["accuracy"] > trained.baselines["trivial"]["accuracy"]
    assert list(inputs[1].output.iterdir()) == []


def placed(tmp_path: Path, node: int, port: int, **more: Any) -> RunInputs:
    inputs = run_inputs(tmp_path, tmp_path / "output")
    return replace(inputs, place=Place(node, 2, ADDRESS, port), **more)


def test_a_node_that_waits_for_the_first_one_can_be_stopped(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Terminated, match="before the first step"):
        training.follow(placed(tmp_path, 1, free_port(), stop=stop))


def test_an_address_that_the_first_node_cannot_have_is_said(tmp_path: Path) -> None:
    with listening(Place(0, 2, ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PeerLost, match=rf"127\.0\.0\.1, port {port} cannot be opened \(Address already in use\)"):
            Processes(placed(tmp_path, 0, port), torch.device("cpu")).__enter__()
    assert list(tmp_path.iterdir()) == [], "nothing is left"


def order(tmp_path: Path, node: int, processes: int = 1, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(order_for(placed(tmp_path, node, 29500), processes, torch.device("cpu")))
    return found | {"data": f"/{node}"} | more


@pytest.mark.parametrize(
    ("ours", "kind", "told"),
    [
        (
            {},
            errors.UsageError,
            "Node 2 of 2 would train with 1 process on CPU, node 1 with 2 processes on CUDA: every",
        ),
        ({"device": "cuda"}, errors.UsageError, "with 1 process on CUDA, node 1 with 2 processes on CUDA"),
        ({"device": "cuda", "promised": 2}, errors.GpuFault, "with 1 process on CUDA"),
        (
            {"device": "cuda", "bfloat16": False, "processes": 2},
            errors.UsageError,
            "2 processes on CUDA without bfloat16",
        ),
        ({"run_id": "another"}, PeerLost, "another run answers"),
    ],
)
def test_nodes_that_cannot_train_together_are_told_which_has_what(
    tmp_path: Path, ours: dict[str, Any], kind: type[errors.TrainerError], told: str
) -> None:
    first = order(tmp_path, 0, 2, device="cuda", bfloat16=True)
    with pytest.raises(kind, match=told):
        order_of_node(first, order(tmp_path, 1, **{"bfloat16": True, **ours}))


def test_the_first_node_s_order_is_carried_out_with_each_node_s_own_folders(tmp_path: Path) -> None:
    made = json.loads(order_of_node(order(tmp_path, 0, 2), order(tmp_path, 1, 2, config="another")))
    assert (made["data"], made["place"]["node"], made["config"]) == ("/1", 1, order(tmp_path, 0, 2)["config"])


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (RuntimeError("[pair.cc:553] Connection closed by peer [10.0.0.3]:4242"), PeerLost),
        (dist.DistNetworkError("failed to recv, got 0 bytes"), PeerLost),
        (
            dist.DistBackendError("NCCL error in: x.cpp:1, remote process exited, ncclRemoteError: a call failed"),
            PeerLost,
        ),
        (dist.DistBackendError("NCCL error in: x.cpp:1, ncclUnhandledCudaError: Call to CUDA failed"), errors.GpuFault),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), errors.GpuFault),
        (torch.OutOfMemoryError("CUDA out of memory"), errors.GpuOutOfMemory),
    ],
)
def test_a_lost_connection_is_neither_the_plug_in_s_fault_nor_the_gpu_s(
    raised: RuntimeError, kind: type[errors.TrainerError]
) -> None:
    with (
        pytest.raises(errors.TrainerError) as told,
        plugins.blames("shop:Prices"),
        gpu_faults.as_gpu_failures(),
        reaching_others(),
    ):
        raise raised
    assert type(told.value) is kind


def test_a_lost_connection_is_told_without_torch_s_own_words() -> None:
    with pytest.raises(PeerLost) as told, reaching_others():
        raise RuntimeError("[/a/pair.cc:553] Connection closed by peer [10.0.0.3]:4242. This is typically caused by")
    assert told.value.sentence.endswith("out of reach: Connection closed by peer [10.0.0.3]:4242")


def test_a_loopback_address_is_reached_by_loopback() -> None:
    assert interface_towards("127.3.4.5", 29500) == "lo"
