"""What a pod says that it reaches: run as in the pod, by an interpreter that has nothing but the file's text."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.cli import reach


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


def test_a_mounted_token_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.touch()
    assert json.loads(reach.main("{}"))["token"] is reach.MOUNTED.exists()
    monkeypatch.setattr(reach, "MOUNTED", token)
    assert json.loads(reach.main("{}")) == {"token": True}


def test_kubernetes_leaves_the_script_as_it_is() -> None:
    # In a container's command "$(NAME)" is a variable's value, and "$$" a dollar sign.
    script = Path(reach.__file__).read_text(encoding="utf-8")
    assert "$(" not in script
    assert "$$" not in script
