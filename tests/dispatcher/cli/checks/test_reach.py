"""What a pod says that it reaches: run as in the pod, by an interpreter that has nothing but the file's text."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatcher.cli.checks import meet, reach


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def said(folder: Path, where: dict[str, Any], **environment: str) -> dict[str, bool]:
    message = folder / "message"
    script = Path(reach.__file__).read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, json.dumps(where)],
        env={"TERMINATION_MESSAGE_PATH": str(message), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, bool] = json.loads(message.read_text())
    return found


def test_it_tells_open_from_closed_and_leaves_out_what_is_not_known(tmp_path: Path, open_port: int) -> None:
    where = {
        "open": ["127.0.0.1", open_port],
        "closed": ["127.0.0.1", 1],
        "by variables": ["$HOST_IP", "$PORT"],
        "not known": ["$KUBERNETES_SERVICE_HOST", 443],
        "no name": ["nowhere.invalid", 443],
    }
    found = said(tmp_path, where, HOST_IP="127.0.0.1", PORT=str(open_port))
    assert found == {
        "open": True,
        "closed": False,
        "by variables": True,
        "no name": False,
        "token": reach.MOUNTED.exists(),
    }


def test_two_pods_that_reach_each_other_say_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    peers = ["127.0.0.1", "127.0.0.2"]
    with ThreadPoolExecutor() as pool:
        said = [pool.submit(meet.main, host, port, str(me), peers, 20.0) for me, host in enumerate(peers)]
        assert [each.result() for each in said] == ["", ""]


@pytest.mark.parametrize(
    ("other", "why"), [("nowhere.invalid", "the name nowhere.invalid is not known"), ("127.0.0.2", "does not answer")]
)
def test_a_pod_alone_says_what_it_did_not_reach(other: str, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert why in meet.main("127.0.0.1", port, "0", ["127.0.0.1", other], 0.1)


def test_a_pod_that_is_not_called_says_so() -> None:
    """A network may let one direction through and not the other."""
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        said = meet.main("127.0.0.1", port, "0", ["127.0.0.1", "127.0.0.2"], 0.1)
    assert said == "another one does not reach this pod"


def test_a_mounted_token_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.touch()
    assert json.loads(reach.main("{}"))["token"] is reach.MOUNTED.exists()
    monkeypatch.setattr(reach, "MOUNTED", token)
    assert json.loads(reach.main("{}")) == {"token": True}


@pytest.mark.parametrize("module", [reach, meet])
def test_kubernetes_leaves_the_script_as_it_is(module: ModuleType) -> None:
    # In a container's command "$(NAME)" is a variable's value, and "$$" a dollar sign.
    script = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert "$(" not in script
    assert "$$" not in script
