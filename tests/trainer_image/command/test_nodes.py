"""A program on several nodes: what it is told, and whether its end was its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.world.training_data import run_inputs
from trainer_image.command import nodes
from trainer_image.contract import Place
from trainer_image.errors import PeerLost, UserCodeFailed

COMMAND = "task: command\ncommand: {argv: [train]}\n"


TORCHRUN = [
    '[rank1]:     raise KeyError("label")',
    "[rank1]: KeyError: 'label'",
    "E1129 03:06:47 83 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0",
    "Traceback (most recent call last):",
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
    "=" * 60,
]


def test_the_account_of_torchrun_is_no_echo_of_another_node() -> None:
    assert nodes.echo(UserCodeFailed("it failed"), TORCHRUN) is None


def given(tmp_path: Path, **other: int) -> dict[str, str]:
    inputs = run_inputs(tmp_path, tmp_path / "output", COMMAND)
    return nodes.environment(replace(inputs, place=Place(1, 4, "10.0.0.7", 29500), **other))


def test_one_node_is_told_of_no_other_and_torchrun_of_its_gpus(tmp_path: Path) -> None:
    inputs = run_inputs(tmp_path, tmp_path / "output", COMMAND)
    assert nodes.environment(inputs) == {"PET_NPROC_PER_NODE": "1"}
    assert nodes.environment(replace(inputs, gpus=8)) == {"PET_NPROC_PER_NODE": "8"}


def test_torchrun_and_env_find_each_other_without_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "model-1-0.model-training")
    assert given(tmp_path, gpus=1) == {
        "NNODES": "4", "NODE_RANK": "1", "MASTER_ADDR": "model-1-0.model-training", "MASTER_PORT": "29500",
        "PET_NNODES": "4", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "model-1-0.model-training",
        "PET_MASTER_PORT": "29500", "PET_NPROC_PER_NODE": "1",
        "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
    }  # fmt: skip


@pytest.mark.parametrize("other", [{"gpus": 8}, {"gpus": 1, "processes": 8}])
def test_of_several_processes_a_node_each_rank_is_torchrun_s_to_say(tmp_path: Path, other: dict[str, int]) -> None:
    told = given(tmp_path, **other)
    assert told["PET_NPROC_PER_NODE"] == "8"
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & told.keys()


@pytest.mark.parametrize(
    "lines",
    [
        ["RuntimeError: [../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.8]:41022", "E 1 failed"],
        ["ConnectionResetError: [Errno 104] Connection reset by peer"],
        [
            "[rank1]: torch.distributed.DistBackendError: NCCL error in: x.cpp",
            "ncclRemoteError: A call failed possibly",
        ],
        ["[W TCPStore.cpp:122] recvValue failed on SocketImpl", "torch.distributed.DistNetworkError: failed to recv"],
        ["epoch 3", "BrokenPipeError: [Errno 32] Broken pipe", "ChildFailedError: "],
    ],
)
def test_a_program_whose_first_error_is_a_broken_connection_has_lost_its_peer(lines: list[str]) -> None:
    own = UserCodeFailed("The program train ended with exit code 1", step=7)
    echo = nodes.echo(own, lines)
    assert isinstance(echo, PeerLost)
    assert (echo.sentence, echo.step) == (own.sentence, 7)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["nothing special"],
        ["KeyError: 'label'", "RuntimeError: Connection closed by peer"],
        ["[rank0]: torch.OutOfMemoryError: CUDA out of memory", "BrokenPipeError: [Errno 32] Broken pipe"],
    ],
)
def test_a_program_that_failed_by_itself_has_done_so_though_its_processes_missed_each_other(lines: list[str]) -> None:
    assert nodes.echo(UserCodeFailed("it failed"), lines) is None
