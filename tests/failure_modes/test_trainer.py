"""Failure modes inside the pod: memory, disk, GPU, a download that lies, a portal that is away or has moved on."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portal_client.errors import PortalUnavailable
from portal_client.statuses import ProcessingStatus
from tests.failure_modes.bench import a_world, disturb, live, statuses, templates, undisturbed
from tests.world.simulated.dispatcher import Process
from tests.world.simulated.faults import Fail
from tests.world.trainer_fakes import FakeInside, FakePortal, write_config, write_dataset
from tests.world.training_data import class_table, run_inputs
from trainer_image import errors
from trainer_image.config.settings import Settings
from trainer_image.contract import RunInputs
from trainer_image.host import memory
from trainer_image.limits import Limits
from trainer_image.run import lifecycle
from trainer_image.run.outcome import Outcome
from trainer_image.stop import Stop
from trainer_image.storage import azure
from trainer_image.storage.azure import AzureStorage
from trainer_image.storage.container import BlobChanged, BlobInfo
from trainer_image.transfer.download import DatasetLock, Download, lock_dataset
from trainer_image.transfer.publish import LATEST

S = ProcessingStatus
RUN = "20261123t081500-1a2b3c4d"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        run_id=RUN,
        dispatched=True,
        tracking=True,
        model_container="model-123",
        api_base_url="https://portal.example.com",
        api_key="key-of-the-portal",
        report_retry_seconds=0.0,
        progress_seconds=3600.0,
        termination_path=tmp_path / "termination-log",
        work_dir=tmp_path / "work",
        data=write_dataset(tmp_path),
        config=write_config(tmp_path),
        out=tmp_path / "out",
        device="cpu",
    )


def start(
    settings: Settings, portal: FakePortal, during: Callable[[RunInputs], None], stop: Stop | None = None
) -> Outcome:
    return lifecycle.run(settings, stop or Stop(), inside=lambda: FakeInside(during), connect=lambda settings: portal)


def last_words(settings: Settings) -> dict[str, Any]:
    words: dict[str, Any] = json.loads(settings.termination_path.read_bytes())
    return words


def test_f21_a_gpu_that_fails_is_to_be_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from trainer_image.engine import training

    def lost(self: object) -> None:
        raise torch.AcceleratorError("CUDA error: device lost (Xid 79)\nmore")

    monkeypatch.setattr(training.Engine, "run", lost)
    with pytest.raises(errors.GpuFault) as told:
        training.train(run_inputs(class_table(tmp_path / "data"), tmp_path / "output"))
    assert told.value.exit_code > 127
    assert "device lost" in told.value.sentence


def test_f21_a_gpu_that_was_given_and_is_gone_is_not_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from trainer_image.host.devices import choose_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu", "a laptop"
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-8d2f1e90-0000-0000-0000-000000000000")
    with pytest.raises(errors.GpuFault):
        choose_device("auto")
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES")
    with pytest.raises(errors.GpuFault, match="The pod was promised 2 GPUs, but none is visible"):
        choose_device("auto", promised=2)
    assert choose_device("cpu", promised=2).type == "cpu", "whoever says cpu gets it"


def a_cgroup(folder: Path, kills: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "memory.events").write_text(f"low 0\nhigh 0\nmax 7\noom 1\noom_kill {kills}\noom_group_kill 0\n")
    (folder / "memory.max").write_text("17179869184\n")
    return folder


@pytest.mark.parametrize(
    ("error", "kills", "code"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), 1, "OutOfMemory"),
        (OSError("Broken pipe"), 1, "OutOfMemory"),
        (MemoryError(), 0, "OutOfMemory"),
        (OSError("Broken pipe"), 0, "InternalError"),
    ],
    ids=["a loader", "whatever broke", "no memory", "something else"],
)
def test_f26_a_child_that_was_killed_for_memory_is_told_as_memory(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, kills: int, code: str
) -> None:
    cgroup = a_cgroup(tmp_path / "cgroup", 0)
    monkeypatch.setattr(memory.kills, "__defaults__", (cgroup,))
    monkeypatch.setattr(memory.out_of_memory, "__defaults__", (cgroup,))

    def during(inputs: RunInputs) -> None:
        a_cgroup(cgroup, kills)
        raise error

    portal = FakePortal(S.PROCESSING)
    outcome = start(settings, portal, during)
    assert (outcome.code, outcome.exit_code) == (code, 137 if code == "OutOfMemory" else 70)
    if code == "OutOfMemory":
        assert "memory limit of 16384 MiB" in outcome.sentence
        assert last_words(settings)["code"] == "OutOfMemory"
        assert portal.puts == [], "it is tried again; the dispatcher has the last word"


class Shelf:
    """A container in memory that gives what it wants."""

    name = "dataset-xyz"

    def __init__(self, content: bytes, gives: Callable[[bytes], bytes] = lambda asked: asked) -> None:
        self.content, self.gives, self.asked = content, gives, 0

    def list(self, prefix: str = "") -> list[BlobInfo]:
        md5 = hashlib.md5(self.content, usedforsecurity=False).digest()
        return [BlobInfo("train.csv", len(self.content), "etag", md5)]

    def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
        yield self.read_range(blob, offset, length)

    def read_range(self, blob: BlobInfo, offset: int, length: int) -> bytes:
        self.asked += 1
        return self.gives(self.content[offset : offset + length])


def fetch(shelf: Any, folder: Path) -> DatasetLock:
    lock = lock_dataset(shelf, Limits())
    Download(shelf, lock, folder, lambda: False, range_bytes=4).run()
    return lock


def test_f27_a_dataset_larger_than_the_disk_is_refused_before_its_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(2**40, 2**40 - 2**20, 2**20))  # type: ignore[attr-defined]
    shelf = Shelf(b"0123456789")
    with pytest.raises(errors.LimitExceeded, match="are free"):
        fetch(shelf, tmp_path)
    assert shelf.asked == 0
    assert errors.LimitExceeded.exit_code <= 127, "the same disk again would be as small"


def test_f27_every_template_asks_for_its_disk_and_limits_it() -> None:
    for folder, template in templates():
        (trainer,) = template["spec"]["template"]["spec"]["containers"]
        for kind in ("requests", "limits"):
            assert "ephemeral-storage" in trainer["resources"][kind], folder


@pytest.mark.parametrize(
    ("gives", "error"),
    [
        (lambda asked: asked[:-1], errors.StorageUnavailable),
        (lambda asked: b"x" * len(asked), errors.DatasetInvalid),
    ],
    ids=["short", "other bytes"],
)
def test_f28_a_download_that_is_short_or_wrong_is_noticed(
    tmp_path: Path, gives: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"train\.csv"):
        fetch(Shelf(b"0123456789", gives), tmp_path)


def test_f28_a_blob_that_changes_on_the_way_is_named(tmp_path: Path) -> None:
    def changed(asked: bytes) -> bytes:
        raise BlobChanged("it has changed meanwhile")

    with pytest.raises(errors.DatasetInvalid, match=r"train\.csv: it was changed while"):
        fetch(Shelf(b"0123456789", changed), tmp_path)


class Stalling:
    """A blob service that sends headers and half of a body, `times` times, then all of it."""

    def __init__(self, times: int) -> None:
        self.times, self.asked = times, 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/account"
        self._ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            self.asked += 1
            stalls = self.asked <= self.times
            head = "HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/10\r\n"
            head += 'ETag: "e"\r\nx-ms-version: 2021-12-02\r\nx-ms-blob-type: BlockBlob\r\nConnection: close\r\n\r\n'
            connection.sendall(head.encode() + (b"01234" if stalls else b"0123456789"))
            if stalls:
                self._ended.wait(20)

    def close(self) -> None:
        self._ended.set()
        self._socket.close()


def test_f28_a_connection_that_stalls_is_given_up_and_its_range_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure, "READ_TIMEOUT", 0.2)
    service = Stalling(1)
    try:
        text = f"DefaultEndpointsProtocol=http;AccountName=account;AccountKey=a2V5;BlobEndpoint={service.address};"
        container = AzureStorage(text, None, retries=0).container("dataset-xyz")
        assert container.read_range(BlobInfo("train.csv", 10, "e"), 0, 10) == b"0123456789"
        assert service.asked == 2
    finally:
        service.close()


def test_f29_a_portal_that_is_away_at_the_end_costs_neither_the_model_nor_the_gpu(settings: Settings) -> None:
    portal = FakePortal(S.PROCESSING)

    def during(inputs: RunInputs) -> None:
        portal.down = PortalUnavailable("The portal does not answer")

    outcome = start(settings, portal, during)
    assert (outcome.exit_code, outcome.reported) == (0, False)
    assert last_words(settings)["code"] == "Completed"
    assert settings.out is not None
    assert json.loads((settings.out / LATEST).read_text())["run_id"] == RUN


def test_f29_the_dispatcher_reports_it_when_the_portal_is_back() -> None:
    world = a_world("complete-unheard")
    process = Process(world)
    live(world, process, most=1, until_settled=False)
    disturb(world, "portal.get", "before", Fail("503"), times=None)
    live(world, process, most=120, until_settled=False)  # an hour
    assert statuses(world) == ["Created", "Processing"]
    undisturbed(world)
    live(world, process)
    world.check_end()
    assert statuses(world) == ["Created", "Processing", "Completed"]


@pytest.mark.parametrize("moved", [S.FAILED, S.CREATED, S.RECONFIGURE, S.COMPLETED])
def test_f41_a_model_taken_out_of_processing_stops_training(settings: Settings, moved: ProcessingStatus) -> None:
    portal = FakePortal(S.PROCESSING)

    def during(inputs: RunInputs) -> None:
        portal.status = moved
        assert inputs.stop.wait(10), "the progress report has looked"
        raise errors.Terminated("Stopped", step=5)

    outcome = start(replace(settings, progress_seconds=0.01), portal, during)
    assert (outcome.exit_code, outcome.code) == (83, "Cancelled")
    assert portal.status is moved, "nothing was said over it"
    assert settings.out is not None
    assert not (settings.out / LATEST).exists()


def test_f24_a_termination_within_the_grace_is_retried_and_not_reported(settings: Settings) -> None:
    stop, portal = Stop(), FakePortal(S.PROCESSING)

    def during(inputs: RunInputs) -> None:
        stop.set("terminated")
        raise errors.Terminated("Stopped at step 4", step=4)

    outcome = start(settings, portal, during, stop)
    assert (outcome.exit_code, portal.puts) == (143, [])
