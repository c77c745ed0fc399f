"""A training can be followed from outside the pod, and following it can neither fail nor falsify it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer_image.stop import Stop
from trainer_image.storage.container import Unavailable
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer import metrics_stream
from trainer_image.transfer.metrics_stream import NAME, MetricsStream

RUN = "20261123t081500-1a2b3c4d"


class Watched(LocalContainer):
    """Says when something was written; `fault` is raised instead of a write."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.written: list[bytes] = []
        self.wrote = threading.Event()
        self.fault: Exception | None = None

    def write(self, name: str, content: bytes) -> None:
        assert name == f"runs/{RUN}/{NAME}"
        fault = self.fault
        self.written.append(content)
        self.wrote.set()
        if fault:
            raise fault
        super().write(name, content)


@pytest.fixture
def container(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "model-1")


def stream(container: Watched, file: Path, stop: Stop | None = None, interval: float = 0.01) -> MetricsStream:
    return MetricsStream(container, RUN, file, stop or Stop(), interval)


def after(container: Watched, change: Callable[[], object]) -> bytes:
    """What is written once `change` is made."""
    container.wrote.clear()
    change()
    assert container.wrote.wait(10)
    return container.written[-1]


def test_whole_lines_appear_while_the_training_goes_on(container: Watched, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with stream(container, file), file.open("w", buffering=1) as lines:
        assert after(container, lambda: lines.write('{"epoch": 1}\n')) == b'{"epoch": 1}\n'
        half = after(container, lambda: (lines.write('{"epoch": 2}\n{"ep'), lines.flush()))
        assert half == b'{"epoch": 1}\n{"epoch": 2}\n'
        whole = after(container, lambda: lines.write('och": 3}\n'))
        assert whole.endswith(b'{"epoch": 3}\n')


def test_the_last_lines_are_there_when_the_training_ends_however_it_ends(container: Watched, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"

    def diverge() -> None:
        with stream(container, file, interval=3600):
            file.write_text('{"epoch": 1}\n')
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        diverge()
    assert (container.root / "runs" / RUN / NAME).read_bytes() == b'{"epoch": 1}\n'


def test_a_file_that_did_not_grow_is_not_written_again_and_none_is_no_fault(container: Watched, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with stream(container, file):
        after(container, lambda: file.write_text('{"epoch": 1}\n'))
    assert len(container.written) == 1
    with stream(container, tmp_path / "none.jsonl", interval=3600):
        pass
    assert len(container.written) == 1


def test_who_lost_the_lease_writes_no_more(container: Watched, tmp_path: Path) -> None:
    file, stop = tmp_path / "metrics.jsonl", Stop()
    with stream(container, file, stop, interval=3600):
        file.write_text('{"epoch": 1}\n')
        stop.set("fenced")
    assert container.written == []


@pytest.mark.parametrize("fault", [Unavailable("the server is busy"), RuntimeError("a defect")])
def test_a_fault_of_storage_is_said_once_and_mends(
    container: Watched, tmp_path: Path, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "metrics.jsonl"
    container.fault = fault
    with caplog.at_level(logging.WARNING), stream(container, file):
        after(container, lambda: file.write_text('{"epoch": 1}\n'))
        after(container, lambda: None)
        after(container, lambda: None)
        container.fault = None
        after(container, lambda: None)
    assert caplog.text.count("was not written") == 1
    assert (container.root / "runs" / RUN / NAME).read_bytes() == b'{"epoch": 1}\n'


def test_of_a_long_file_the_end_is_written(container: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_stream, "MOST_BYTES", 30)
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(f'{{"epoch": {epoch}}}\n' for epoch in range(5)))
    with stream(container, file, interval=3600):
        pass
    assert container.written == [b'{"epoch": 3}\n{"epoch": 4}\n']


def test_a_removed_file_that_is_gone_already_is_fine(container: Watched) -> None:
    metrics_stream.remove(container, RUN)
