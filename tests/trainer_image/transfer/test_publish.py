"""Publication: all or nothing, and never over someone else's newer model."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pytest

from trainer_image.errors import ConfigInvalid, Fenced, LimitExceeded, PermissionDenied, UploadFailed, UserCodeFailed
from trainer_image.run.provenance import environment
from trainer_image.storage.container import AccessDenied, BlobChanged, Container, StorageFault, Unavailable
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer.fetch_model import fetch_model
from trainer_image.transfer.publish import Latest, publish, read_latest


def local(folder: Path) -> LocalContainer:
    (folder / "container").mkdir()
    return LocalContainer(folder / "container")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    (folder / "plots").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "plots" / "roc.svg").write_text("<svg/>")
    return folder


@pytest.mark.parametrize("name", [b"\xff", b"a\\b", b"a\nb", b"MODEL.safetensors"])
def test_a_name_that_no_model_may_have_is_told_and_nothing_is_published(
    container: Container, model: Path, name: bytes
) -> None:
    Path(os.fsdecode(bytes(model / "x")[:-1] + name)).write_text("x")
    with pytest.raises(UserCodeFailed, match="Nothing is published: "):
        publish(container, model, "run-1", read_latest(container))
    assert list(container.list()) == []


def test_the_manifest_names_every_file_with_its_hash(container: Container, model: Path) -> None:
    where = publish(container, model, "run-1", read_latest(container))
    assert where == f"{container.name}/runs/run-1"
    content, _ = container.read("runs/run-1/MANIFEST.json", 10_000)
    assert json.loads(content) == {
        "model.safetensors": {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()},
        "plots/roc.svg": {"size": 6, "sha256": hashlib.sha256(b"<svg/>").hexdigest()},
    }
    latest = read_latest(container)
    assert (latest.run_id, latest.manifest_sha256) == ("run-1", hashlib.sha256(content).hexdigest())


def test_a_run_that_was_overtaken_is_fenced_and_publishes_nothing(container: Container, model: Path) -> None:
    before = read_latest(container)
    publish(container, model, "run-1", before)
    with pytest.raises(Fenced, match="run-1"):
        publish(container, model, "run-2", before)
    assert read_latest(container).run_id == "run-1"


def test_a_retraining_replaces_the_model_it_started_from(container: Container, model: Path) -> None:
    publish(container, model, "run-1", read_latest(container))
    publish(container, model, "run-2", read_latest(container))
    assert read_latest(container).run_id == "run-2"


def test_an_earlier_attempt_of_the_same_run_has_published_already(container: Container, model: Path) -> None:
    before = read_latest(container)
    publish(container, model, "run-1", before)
    assert publish(container, model, "run-1", before).endswith("run-1")


@pytest.mark.parametrize("content", [b"{oops", b" " * 100_000], ids=["no JSON", "too large"])
def test_an_unreadable_latest_is_replaced(content: bytes, container: Container, model: Path) -> None:
    container.write("latest.json", content)
    before = read_latest(container)
    assert (before.run_id, before.etag is None) == (None, False)
    publish(container, model, "run-1", before)
    assert read_latest(container).run_id == "run-1"


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b'{"run_id": "../x", "manifest_sha256": "a"}', b'{"run_id": 1}', b"\xff", b"[" * 60_000],
    ids=range(6),
)
def test_a_latest_that_names_no_run_is_not_followed(content: bytes, tmp_path: Path) -> None:
    container = LocalContainer(tmp_path)
    container.write("latest.json", content)
    assert read_latest(container).run_id is None


class Breaking:
    """Passes calls on until `call` is the one that fails."""

    def __init__(self, inner: Container, call: str, fault: StorageFault) -> None:
        self._inner, self._call, self._fault = inner, call, fault
        self.name = inner.name

    def __getattr__(self, name: str) -> Any:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise self._fault

        return fail if name == self._call else getattr(self._inner, name)


@pytest.mark.parametrize("call", ["upload", "write_if"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [(Unavailable("storage answers 503"), UploadFailed), (AccessDenied("storage refuses access"), PermissionDenied)],
)
def test_a_failed_upload_leaves_the_previous_model(
    call: str, fault: StorageFault, error: type[Exception], model: Path, tmp_path: Path
) -> None:
    container = local(tmp_path)
    publish(container, model, "run-1", Latest(None))
    with pytest.raises(error, match=r"^Failed to upload model to container: "):
        publish(Breaking(container, call, fault), model, "run-2", read_latest(container))
    assert read_latest(container).run_id == "run-1"


def test_a_full_disk_of_a_folder_is_told_as_one_and_no_retry_is_promised(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LimitExceeded) as told:
        publish(local(tmp_path), model, "run-1", Latest(None))
    assert told.value.exit_code == 82
    assert told.value.sentence == (
        f"Failed to upload model to container: {tmp_path}/container (its disk is full: free some space there, or name"
        " another folder with --out)"
    )
    left = [path for path in (tmp_path / "container").rglob("*") if path.is_file() and path.stat().st_size]
    assert left == [], "half a file takes room, too"


def test_a_publication_whose_answer_got_lost_is_ours(model: Path, tmp_path: Path) -> None:
    container = local(tmp_path)

    class LostAnswer(Breaking):
        def write_if(self, name: str, content: bytes, etag: str | None) -> None:
            container.write_if(name, content, etag)
            raise BlobChanged("the retry found it changed")

    publish(LostAnswer(container, "", Unavailable("")), model, "run-1", Latest(None))
    assert read_latest(container).run_id == "run-1"


class Beside(Breaking):
    """Another pod of the same run publishes a model of its own, right after our upload of the file `after`."""

    def __init__(self, inner: Container, after: str, other: Path) -> None:
        super().__init__(inner, "", Unavailable(""))
        self.after: str | None = after
        self.other = other

    def upload(self, name: str, content: BufferedIOBase, etag: str | None = "*") -> str:
        answer = self._inner.upload(name, content, etag)
        if self.after and name.endswith(self.after):
            self.after = None
            publish(self._inner, self.other, "run-1", Latest(None))
        return answer


@pytest.fixture
def other(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    return folder


@pytest.mark.parametrize("after", ["model.safetensors", "plots/roc.svg", "MANIFEST.json"])
def test_two_pods_of_a_run_that_publish_at_once_leave_one_model_whole(
    after: str, container: Container, model: Path, other: Path, tmp_path: Path
) -> None:
    publish(Beside(container, after, other), model, "run-1", Latest(None))
    folder = fetch_model(container, read_latest(container), tmp_path / "read")
    assert (folder / "model.safetensors").read_bytes() == b"weights", "of the pod that holds the lease"


@pytest.mark.parametrize("after", ["model.safetensors", "plots/roc.svg", "MANIFEST.json"])
def test_a_pod_that_was_replaced_while_it_published_spoils_nothing(
    after: str, container: Container, model: Path, other: Path, tmp_path: Path
) -> None:
    beside = Beside(container, after, other)

    def confirm() -> None:
        if beside.after is None:
            raise Fenced("Another pod owns this run")

    with pytest.raises(Fenced):
        publish(beside, model, "run-1", Latest(None), confirm)
    folder = fetch_model(container, read_latest(container), tmp_path / "read")
    assert (folder / "model.safetensors").read_bytes() == b"WEIGHTS"


def test_the_previous_model_comes_back_verified(container: Container, model: Path, tmp_path: Path) -> None:
    publish(container, model, "run-1", Latest(None))
    folder = fetch_model(container, read_latest(container), tmp_path / "initial")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "plots" / "roc.svg").exists()


def test_a_previous_model_that_was_tampered_with_is_refused(container: Container, model: Path, tmp_path: Path) -> None:
    publish(container, model, "run-1", Latest(None))
    container.write("runs/run-1/model.safetensors", b"WEIGHTS")
    with pytest.raises(ConfigInvalid, match=r"model.safetensors is not what its manifest says"):
        fetch_model(container, read_latest(container), tmp_path / "initial")
    container.write("runs/run-1/MANIFEST.json", b"{}")
    with pytest.raises(ConfigInvalid, match=r"not the one that latest.json names"):
        fetch_model(container, read_latest(container), tmp_path / "initial")


def test_a_manifest_cannot_write_outside_the_folder(tmp_path: Path) -> None:
    container = LocalContainer(tmp_path / "c")
    content = json.dumps({"../../out": {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}).encode()
    container.write("runs/run-1/MANIFEST.json", content)
    container.write("out", b"x")
    with pytest.raises(ConfigInvalid):
        fetch_model(container, Latest("e", "run-1", hashlib.sha256(content).hexdigest()), tmp_path / "a" / "b")
    assert not (tmp_path / "out").exists()


def test_the_environment_names_packages_and_device() -> None:
    described = environment("cpu", "trainer:1", "run-1", {})
    assert described["image"] == "trainer:1"
    assert described["device"]["asked"] == "cpu"
    assert "safetensors" in described["packages"]
    json.dumps(described)
