"""Checkpoints beyond the pod: complete or not there at all."""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pytest

from trainer_image.errors import StorageUnavailable
from trainer_image.storage.container import Container, Disk, Unavailable
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer import checkpoint_store
from trainer_image.transfer.checkpoint_store import ContainerCheckpoints


def checkpoint(folder: Path, step: int, content: bytes = b"tensors") -> Path:
    """As the engine leaves it: `step-N` with a manifest."""
    path = folder / f"step-{step}"
    path.mkdir(parents=True)
    (path / "tensors.safetensors").write_bytes(content)
    files = {"tensors.safetensors": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    (path / "MANIFEST.json").write_text(json.dumps({"files": files}))
    return path


def store(container: Container, tmp_path: Path, key: str = "key", keep: int = 2) -> ContainerCheckpoints:
    """A new pod's: with a folder of its own."""
    return ContainerCheckpoints(container, key, tmp_path / f"pod-{secrets.token_hex(3)}", keep)


def test_another_pod_finds_what_was_kept_newest_first(container: Container, tmp_path: Path) -> None:
    first = store(container, tmp_path)
    for step in (9, 10):
        first.keep(checkpoint(tmp_path / "work", step, f"at {step}".encode()))
    found = store(container, tmp_path).newest_first()
    assert [path.name for path in found] == ["step-10", "step-9"]
    assert (found[0] / "tensors.safetensors").read_bytes() == b"at 10"
    assert (found[0] / "MANIFEST.json").exists()


def test_only_the_newest_stay(container: Container, tmp_path: Path) -> None:
    checkpoints = store(container, tmp_path, keep=2)
    for step in (1, 2, 10):
        checkpoints.keep(checkpoint(tmp_path / "work", step))
    assert {blob.name.split("/")[2] for blob in container.list("checkpoints/")} == {"step-2", "step-10"}


@pytest.mark.parametrize("content", [b" " * 2**21, b"[" * 100_000], ids=["too large", "nested without end"])
def test_a_manifest_that_is_none_costs_one_checkpoint_and_not_the_training(
    content: bytes, container: Container, tmp_path: Path
) -> None:
    checkpoints = store(container, tmp_path)
    for step in (1, 2):
        checkpoints.keep(checkpoint(tmp_path / "work", step))
    (manifest,) = (blob.name for blob in container.list("checkpoints/") if blob.name.endswith("step-2/MANIFEST.json"))
    container.write(manifest, content)
    assert "step-1" in [path.name for path in store(container, tmp_path).newest_first()]


def test_a_kept_folder_is_taken_over(container: Container, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "work", 1)
    store(container, tmp_path).keep(folder)
    assert not folder.exists()


def test_another_configuration_does_not_see_them(container: Container, tmp_path: Path) -> None:
    store(container, tmp_path, key="key").keep(checkpoint(tmp_path / "work", 1))
    assert store(container, tmp_path, key="key2").newest_first() == []


def test_only_checkpoints_of_others_are_noticed(container: Container, tmp_path: Path) -> None:
    assert store(container, tmp_path, key="key").only_of_others() is None
    note = {"run_id": "run-2", "dataset": "f"}
    other = ContainerCheckpoints(container, "key2", tmp_path / "other", 2, note=note)
    other.keep(checkpoint(tmp_path / "work", 1))
    assert store(container, tmp_path, key="key").only_of_others() == note
    assert (store(container, tmp_path, key="key2").written_by(), other.only_of_others()) == ("run-2", None)
    store(container, tmp_path, key="key").keep(checkpoint(tmp_path / "work", 1))
    assert store(container, tmp_path, key="key").only_of_others() is None


def test_nothing_kept_is_nothing_found(container: Container, tmp_path: Path) -> None:
    assert store(container, tmp_path).newest_first() == []


@pytest.mark.parametrize(
    "harm",
    [
        lambda c: c.delete("checkpoints/key/step-2/MANIFEST.json"),
        lambda c: c.delete("checkpoints/key/step-2/tensors.safetensors"),
        lambda c: c.write("checkpoints/key/step-2/tensors.safetensors", b"TENSORS"),
        lambda c: c.write("checkpoints/key/step-2/tensors.safetensors", b"tens"),
    ],
    ids=["no manifest", "no tensors", "changed", "cut off"],
)
def test_a_broken_checkpoint_is_passed_over(container: Container, tmp_path: Path, harm: Any) -> None:
    checkpoints = store(container, tmp_path)
    for step in (1, 2):
        checkpoints.keep(checkpoint(tmp_path / "work", step))
    harm(container)
    assert [path.name for path in store(container, tmp_path).newest_first()] == ["step-1"]


@pytest.mark.parametrize(
    "manifest",
    [b"[" * 30_000 + b"]" * 30_000, b'{"files": {"a": {"size": 1e999, "sha256": ""}}}'],
    ids=["nested", "endless"],
)
def test_a_manifest_that_was_written_to_harm_hides_no_other_checkpoint(tmp_path: Path, manifest: bytes) -> None:
    (tmp_path / "container").mkdir()
    container = LocalContainer(tmp_path / "container")
    checkpoints = store(container, tmp_path)
    for step in (1, 2):
        checkpoints.keep(checkpoint(tmp_path / "work", step))
    container.write("checkpoints/key/step-2/MANIFEST.json", manifest)
    assert "step-1" in [path.name for path in store(container, tmp_path).newest_first()]


def test_folders_within_a_checkpoint_come_back(container: Container, tmp_path: Path) -> None:
    folder = tmp_path / "work" / "step-1"
    names = ("files/deep/er/weights", "files/MANIFEST.json", "state.json")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    files = {name: {"size": len(name), "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names}
    (folder / "MANIFEST.json").write_text(json.dumps({"files": files}))
    store(container, tmp_path).keep(folder)
    [found] = store(container, tmp_path).newest_first()
    assert {name: (found / name).read_text() for name in names} == {name: name for name in names}


def test_a_manifest_s_names_stay_in_the_folder(tmp_path: Path) -> None:
    container = LocalContainer(tmp_path / "c")
    container.write("checkpoints/key/step-1/../../escaped", b"x")
    manifest = {"files": {"../../escaped": {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}}
    container.write("checkpoints/key/step-1/MANIFEST.json", json.dumps(manifest).encode())
    assert store(container, tmp_path).newest_first() == []


def test_an_interrupted_upload_is_no_checkpoint(tmp_path: Path) -> None:
    class Interrupted(LocalContainer):
        def upload(self, name: str, content: BufferedIOBase, etag: str | None = "*") -> str:
            if name.endswith("MANIFEST.json"):
                raise Unavailable("storage answers 503")
            return super().upload(name, content, etag)

    checkpoints = store(Interrupted(tmp_path / "c"), tmp_path)
    with pytest.raises(StorageUnavailable, match="step-1"):
        checkpoints.keep(checkpoint(tmp_path / "work", 1))
    assert store(LocalContainer(tmp_path / "c"), tmp_path).newest_first() == []


def test_what_is_fetched_finds_room_where_checkpoints_of_others_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").mkdir()
    container = LocalContainer(tmp_path / "c")
    store(container, tmp_path, key="other").keep(checkpoint(tmp_path / "work", 1))
    store(container, tmp_path).keep(checkpoint(tmp_path / "work", 2))
    fetch = checkpoint_store.fetch_all

    def full(*given: Any) -> str | None:
        if any(container.list("checkpoints/other/")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return fetch(*given)

    monkeypatch.setattr(checkpoint_store, "fetch_all", full)
    assert [path.name for path in store(container, tmp_path).newest_first()] == ["step-2"]


def test_an_outage_while_resuming_is_no_fresh_start(tmp_path: Path) -> None:
    class Down(LocalContainer):
        def list(self, prefix: str = "") -> Any:
            raise Unavailable("storage does not answer")

    with pytest.raises(StorageUnavailable, match="Failed to read checkpoints"):
        store(Down(tmp_path / "c"), tmp_path).newest_first()


def test_what_the_engine_writes_is_what_the_store_understands(container: Container, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from trainer_image.engine import checkpoint as engine_side

    folder = tmp_path / "work" / "step-3"
    engine_side.write(folder, engine_side.Snapshot(3, {"w": torch.arange(3.0)}, {"epoch": 1}))
    store(container, tmp_path).keep(folder)
    (found,) = store(container, tmp_path).newest_first()
    assert engine_side.read(found).tensors["w"].tolist() == [0.0, 1.0, 2.0]


def test_a_node_that_only_reads_goes_back_to_the_step_that_all_begin_at(container: Container, tmp_path: Path) -> None:
    leader = store(container, tmp_path)
    assert leader.newest() is None
    for step in (5, 6):
        leader.keep(checkpoint(tmp_path, step))
    assert leader.newest() == 6
    follower = ContainerCheckpoints(container, "key", tmp_path / "follower", 1, latest=5)
    assert [folder.name for folder in follower.newest_first()] == ["step-5"]
    with pytest.raises(StorageUnavailable, match="keeps no checkpoints"):
        follower.keep(checkpoint(tmp_path / "other", 7))


def test_the_last_checkpoint_stays_where_the_disk_has_room_and_a_quota_or_a_file_s_size_is_what_lacks(
    tmp_path: Path,
) -> None:
    class Roomy(LocalContainer):
        def disk(self) -> Disk:
            return Disk(1, 10**12)

    (tmp_path / "c").mkdir()
    checkpoints = store(Roomy(tmp_path / "c"), tmp_path)
    checkpoints.keep(checkpoint(tmp_path / "work", 1))
    assert not checkpoints.make_room_for_the_model(5 * 10**9)
    assert [path.name for path in checkpoints.newest_first()] == ["step-1"]


@pytest.mark.parametrize("harm", ["flipped", "cut", "no manifest", "nothing listed"])
def test_a_damaged_newest_checkpoint_does_not_make_the_sound_one_before_it_go_for_room(
    tmp_path: Path, harm: str
) -> None:
    (tmp_path / "c").mkdir()
    checkpoints = store(LocalContainer(tmp_path / "c"), tmp_path, keep=3)
    for step in (1, 2, 3):
        checkpoints.keep(checkpoint(tmp_path / "work", step))
    newest = tmp_path / "c" / "checkpoints" / "key" / "step-3"
    tensors, manifest = newest / "tensors.safetensors", newest / "MANIFEST.json"
    match harm:
        case "flipped":
            tensors.write_bytes(b"tensorz")
        case "cut":
            tensors.write_bytes(b"tens")
        case "no manifest":
            manifest.write_text("{")
        case _:
            manifest.write_text('{"files": {}}')
    assert checkpoints.make_room()
    assert [path.name for path in checkpoints.newest_first()] == ["step-2"]


def test_a_node_that_only_reads_removes_nothing_of_what_node_1_is_writing(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    container = LocalContainer(tmp_path / "c")
    store(container, tmp_path).keep(checkpoint(tmp_path / "work", 5))
    container.write("checkpoints/key/step-6/tensors.safetensors", b"on its way")
    follower = ContainerCheckpoints(container, "key", tmp_path / "follower", 1, latest=5)
    follower.newest_first()
    assert follower.make_room(), "what it has fetched"
    assert any(container.list("checkpoints/key/step-6/"))


def test_the_run_that_wrote_is_known_however_many_files_its_code_has(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    container = LocalContainer(tmp_path / "c")
    note = {"run_id": "run-2", "code": {f"{number:0200}.py": "0" * 64 for number in range(5000)}}
    checkpoints = ContainerCheckpoints(container, "key", tmp_path / "fetched", 2, note=note)
    checkpoints.keep(checkpoint(tmp_path / "work", 1))
    assert checkpoints.written_by() == "run-2", "else --fresh would remove what the run itself has saved"
