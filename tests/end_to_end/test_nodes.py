"""Trainers of several nodes as real processes, ended at any time: the same model as without, and no other pod fails."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_stack.processes import free_port, wait_until
from tests.world.processes import alive, children
from tests.world.programs.chain_program import undisturbed
from tests.world.repository import ROOT

pytestmark = pytest.mark.long

STEPS, PAUSE = 40, 0.03
PATIENCE = 60.0


class Team:
    """Nodes of one run in `folder`, each a process; `start` begins one, also again."""

    def __init__(self, folder: Path, *failing: object) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "rows.txt").write_text("1\n")
        argv = [sys.executable, str(ROOT / "tests" / "world" / "programs" / "chain_program.py"), STEPS, PAUSE, *failing]
        config = {"task": "command", "checkpoint": {"every": "1s"}, "command": {"argv": [str(word) for word in argv]}}
        (folder / "config.yaml").write_text(json.dumps(config))
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "NNODES": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "TEAM_PORT": str(free_port()),
            "RUN_ID": "run-1",
            "GRACE_SECONDS": "10",
            "ALLOW_COMMAND": "on",
            "AT": str(folder / "at"),
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, node: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "trainer_image", "train", "--data=data", "--config=config.yaml", "--out=out"]
        own = {"NODE_RANK": str(node), "TERMINATION_MESSAGE_PATH": str(self.folder / f"words-{node}")}
        with (self.folder / f"node-{node}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment | own, stderr=log, stdout=log)
        self.started.append(process)
        return process

    def reach(self, step: int) -> None:
        """Until that step is done."""
        at = self.folder / "at"
        wait_until(
            lambda: at.exists() and (at.read_text() or "0").isdigit() and int(at.read_text() or 0) >= step, PATIENCE
        )

    def model(self) -> str:
        (model,) = self.folder.glob("out/runs/*/model.txt")
        return model.read_text()

    def words(self, node: int) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / f"words-{node}").read_text())
        return read

    def log(self, node: int) -> str:
        return (self.folder / f"node-{node}.log").read_text()


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Callable[..., Team]]:
    made: list[Team] = []

    def make(*failing: object) -> Team:
        made.append(Team(tmp_path / f"team-{len(made)}", *failing))
        return made[-1]

    yield make
    for each in made:
        for process in each.started:
            process.kill()
            process.wait()


def test_nodes_killed_at_random_steps_cost_no_other_node_and_change_no_bit(team: Callable[..., Team]) -> None:
    two = team()
    nodes = {0: two.start(0), 1: two.start(1)}
    seed = random.randrange(10**6)
    steps = sorted(random.Random(seed).sample(range(2, STEPS - 5), 2))
    for step, killed in zip(steps, random.Random(seed).sample((0, 1), 2), strict=True):
        two.reach(step)
        (two.folder / "at").unlink()
        workers = children(nodes[1 - killed].pid)
        nodes[killed].kill()
        nodes[killed].wait()
        wait_until(lambda gone=workers: not any(map(alive, gone)), 10)  # at once, not when a collective gives up
        assert nodes[1 - killed].poll() is None
        nodes[killed] = two.start(killed)
    assert [nodes[node].wait(PATIENCE) for node in (0, 1)] == [0, 0], f"seed {seed}\n{two.log(0)}\n{two.log(1)}"
    assert two.model() == undisturbed(STEPS), f"seed {seed}"


def test_a_node_that_is_told_to_leave_has_its_last_step_saved(team: Callable[..., Team]) -> None:
    two = team()
    nodes = {0: two.start(0), 1: two.start(1)}
    for leaves, step in ((1, 7), (0, 20)):
        two.reach(step)
        nodes[leaves].send_signal(signal.SIGTERM)
        assert nodes[leaves].wait(PATIENCE) == 143
        assert nodes[1 - leaves].poll() is None
        last = int((two.folder / "at").read_text())
        nodes[leaves] = two.start(leaves)
        two.reach(last + 1)
        assert f"The program goes on from checkpoint step-{last}\n" in two.log(0)
        assert f"The program goes on from checkpoint step-{last}\n" in two.log(1)
    assert [nodes[node].wait(PATIENCE) for node in (0, 1)] == [0, 0]
    assert two.model() == undisturbed(STEPS)


def test_one_failure_is_one_failed_pod(team: Callable[..., Team], tmp_path: Path) -> None:
    two = team(1, 9, 133, tmp_path / "failed")
    leader, follower = two.start(0), two.start(1)
    assert follower.wait(PATIENCE) == 205
    assert "ended with exit code 133" in two.words(1)["message"]
    assert leader.poll() is None, "it has only lost its peer"
    follower = two.start(1)
    assert (leader.wait(PATIENCE), follower.wait(PATIENCE)) == (0, 0)
    assert two.model() == undisturbed(STEPS)


def test_a_leader_killed_as_soon_as_the_model_is_published_leaves_a_follower_that_knows(
    team: Callable[..., Team],
) -> None:
    two = team()
    leader, follower = two.start(0), two.start(1)
    wait_until((two.folder / "out" / "latest.json").exists, PATIENCE)
    leader.kill()
    assert follower.wait(PATIENCE) == 0
    leader.wait()
    assert two.start(0).wait(PATIENCE) == 0
    assert two.start(1).wait(PATIENCE) == 0, "and so does a replacement"
