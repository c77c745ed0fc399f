"""Processes of the local stack: started, waited for, explained, ended."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from local_stack.processes import Service, ServiceFailed, WaitedTooLong, end_by_pid, started_at, wait_until

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def test_a_service_that_dies_while_starting_is_explained_by_its_own_last_words(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('no such queue')"]
    service = Service("thing", argv, tmp_path / "thing.log").start()
    with pytest.raises(ServiceFailed, match=r"thing ended with code 1 while starting(.|\n)*no such queue"):
        service.wait_ready(lambda: None, timeout=30)


def test_a_service_that_stays_silent_is_ended_and_explained(tmp_path: Path) -> None:
    service = Service("thing", SLEEP, tmp_path / "thing.log").start()
    with pytest.raises(ServiceFailed, match="for thing to be ready"):
        service.wait_ready(lambda: None, timeout=0.2)
    assert service.returncode is not None


def test_stopping_ends_what_the_service_left_in_its_group(tmp_path: Path) -> None:
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read(); "
    code += "import time; time.sleep(60)"
    service = Service("parent", [sys.executable, "-c", code], tmp_path / "log").start()
    child = int(service.wait_ready(lambda: (tmp_path / "log").read_text().strip()))
    assert service.stop() == -signal.SIGTERM
    wait_until(lambda: started_at(child) is None, what="the child to be gone")
    service.stop()


def test_a_pid_that_belongs_to_another_process_by_now_is_left_alone(tmp_path: Path) -> None:
    with Service("thing", SLEEP, tmp_path / "log").start() as service:
        assert end_by_pid(service.pid, "not its starting mark") is False
        assert service.returncode is None
        mark = started_at(service.pid)
        assert mark is not None
        assert end_by_pid(service.pid, mark) is True
        wait_until(lambda: service.returncode is not None, what="it to have ended")
    assert end_by_pid(service.pid, mark) is False


def test_a_wait_that_fails_says_what_for() -> None:
    with pytest.raises(WaitedTooLong, match="waited 0 s for rain"):
        wait_until(lambda: False, 0, what="rain")


def test_our_own_process_has_a_starting_mark() -> None:
    assert started_at(os.getpid()) is not None
