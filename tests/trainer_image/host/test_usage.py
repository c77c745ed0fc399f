"""What a program uses, with all that it has started; and which files somebody writes to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.processes import wait_until
from trainer_image.host import usage
from trainer_image.host.open_files import written_below
from trainer_image.host.usage import Usage

# Two processes that compute, the second one a child of the first.
BUSY = "import os\nheld = bytearray(32 * 2**20)\nos.fork()\nwhile True: pass"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True) as process:
        yield process
        os.killpg(process.pid, 9)


def test_cpus_and_memory_of_all_processes_are_sampled(
    busy: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "FIRST_INTERVAL", 0.05)
    monkeypatch.setenv("PATH", "/nowhere")
    sampled = Usage(busy.pid)
    both = "the memory of both processes in one sample"
    wait_until(lambda: max(sampled.series().get("memory_bytes", [0])) > 64 * 2**20, what=both)
    sampled.close()
    series = sampled.series()
    assert set(series) == {"seconds", "cpus", "memory_bytes"}
    assert 0 < max(series["cpus"]) < 4
    assert series["seconds"] == sorted(series["seconds"])


def test_a_long_program_has_no_more_samples_than_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MOST", 4)
    sampled = Usage(os.getpid())
    for at in range(1, 40):
        sampled._sample(sampled._began + at)
    sampled.close()
    assert len(sampled.series()["seconds"]) < 4
    assert sampled._interval > 4
    assert sampled.series()["seconds"][-1] >= 32


SMI = """#!/bin/sh
printf '%s'
"""


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("50, 1024\n100, 2048\n", {"gpu_percent": 75.0, "gpu_memory_bytes": 3072 * 2.0**20}),
        ("[N/A], 512\n", {"gpu_memory_bytes": 512 * 2.0**20}),
        ("No devices were found\n", {}),
        ("", {}),
    ],
)
def test_what_the_driver_says_of_gpus_is_read(tmp_path: Path, said: str, found: dict[str, float]) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI % said)
    program.chmod(0o755)
    assert usage.gpus(str(program)) == found
    assert usage.gpus(str(tmp_path / "nothing")) == {}


def test_a_process_that_is_gone_has_no_samples() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    sampled = Usage(process.pid)
    sampled._sample(sampled._began + 1)
    sampled.close()
    assert sampled.series() == {}


def test_only_files_that_are_open_for_writing_below_the_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "read").touch()
    outside = tmp_path.with_name(tmp_path.name + "-beside")
    written, added = tmp_path / "deep" / "written", tmp_path / "added"
    with written.open("w"), added.open("a"), (tmp_path / "read").open(), outside.open("w"):
        assert written_below(tmp_path) == {"deep/written", "added"}
    assert written_below(tmp_path) == set()
