"""No process outlives the stand-in, and bad command lines say what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack.cluster.client import start_cluster
from local_stack.processes import wait_until
from tests.world.kube import Kube, is_running


def _alive(marker: str) -> list[int]:
    """The processes that carry this word in their environment or command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marker.encode() in text and state != "Z" and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_containers_end_with_the_stand_in_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    marker = f"marker-{tmp_path.name}-{number}"
    with start_cluster(tmp_path, images={"shell:1": None}) as stand_in:
        kube = Kube(stand_in.kubeconfig, "default", "shell:1")
        # A child that ignores SIGTERM, and its own child.
        kube.start("model-1", f"trap '' TERM; sh -c 'sleep 600; : {marker}' & wait; : {marker}")
        kube.wait_pod("model-1", is_running)
        wait_until(lambda: len(_alive(marker)) >= 2)
        stand_in.service.send_signal(number)
        wait_until(lambda: stand_in.service.returncode is not None)
        wait_until(lambda: not _alive(marker), what=lambda: f"the end of {_alive(marker)}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image", 'x:1={"a": 1}'], "after = stands a JSON list of words"),
        (["--namespace", "Not_Valid"], 'Invalid value: "Not_Valid"'),
        (["--node", "a=many"], "many"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path: Path, arguments: list[str], words: str) -> None:
    argv = [sys.executable, "-m", "local_stack.cluster", "--dir", str(tmp_path), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
