"""What a program saves comes back in the next pod."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_image.command.programs import PYTHON, inputs_for
from tests.world.training_data import FolderStore
from trainer_image import command, errors
from trainer_image.command.checkpoints import CheckpointFolder


def keeper(tmp_path: Path, store: FolderStore) -> CheckpointFolder:
    place = tmp_path / f"pod-{secrets.token_hex(3)}"
    (place / "saved").mkdir(parents=True)
    return CheckpointFolder(store, place / "saved", place, place / "history", every=300)


def test_the_next_pod_gets_the_folder_as_it_was(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    first = keeper(tmp_path, store)
    assert first.restore() == 0.0
    (first._folder / "deep").mkdir()
    (first._folder / "deep" / "weights").write_bytes(b"w")
    (first._folder / "MANIFEST.json").write_text("the program's own")
    (first._folder / ".half").write_text("not whole")
    (first._folder / ".part").mkdir()
    (first._folder / ".part" / "weights").write_text("not whole")
    first._history.write_text("{}\n")
    assert first.save_now(step=7, within=10)
    second = keeper(tmp_path, store)
    assert second.restore() > 0
    assert (second.step, second.resumed_from) == (7, 7)
    assert {p.relative_to(second._folder).as_posix() for p in second._folder.rglob("*") if p.is_file()} == {
        "deep/weights", "MANIFEST.json",
    }  # fmt: skip
    assert second._history.read_text() == "{}\n"
    assert second.save_now(step=9, within=10)
    assert len(store.kept) == 1, "nothing has changed, so nothing is stored again"
    third = keeper(tmp_path, store)
    third.restore()
    (third._folder / "deep" / "weights").write_bytes(b"w2")
    assert third.save_now(step=7, within=10)
    assert [path.name for path in store.kept] == ["step-7", "step-8"], "a later one never takes an earlier one's place"


def test_a_folder_that_changes_while_it_is_copied_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = FolderStore(tmp_path / "store")
    folder = keeper(tmp_path, store)
    (folder._folder / "a").write_text("1")
    copy = command.checkpoints.shutil.copyfileobj  # type: ignore[attr-defined]

    def busy(source: Any, target: Any) -> None:
        copy(source, target)
        (folder._folder / "b").write_text("written meanwhile")

    monkeypatch.setattr(command.checkpoints.shutil, "copyfileobj", busy)  # type: ignore[attr-defined]
    assert not folder.save_now(step=1, within=10)
    assert store.kept == []
    assert "Checkpoint put off: the program wrote to it meanwhile" in caplog.text


def test_a_storage_that_does_not_answer_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """The termination message is to be written before the kubelet's SIGKILL, whatever becomes of the checkpoint."""
    answers = threading.Event()

    class Slow(FolderStore):
        def keep(self, folder: Path) -> None:
            answers.wait(600)

    stop = threading.Event()
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, lambda *seen: os._exit(0));"
        "open(os.environ['CHECKPOINT_DIR'] + '/state', 'w').write('x');"
        "open(os.environ['PROGRESS_FILE'], 'a').write('ready\\n'); time.sleep(60)"
    )
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, stop=stop, store=Slow(tmp_path / "store"))
    inputs.output.mkdir(parents=True)
    object.__setattr__(inputs, "grace_seconds", 2.0)
    object.__setattr__(inputs, "progress", lambda progress: progress.message == "ready" and stop.set())
    try:
        with pytest.raises(errors.Terminated, match="no checkpoint of its last steps"):
            command.train(inputs)
    finally:
        answers.set()


def test_a_link_that_takes_a_file_s_place_is_not_followed_into_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "store")
    folder = keeper(tmp_path, store)
    (folder._folder / "a").write_text("1")
    seen = command.checkpoints.look(folder._folder)
    (folder._folder / "a").unlink()
    (folder._folder / "a").symlink_to("/etc/hostname")
    monkeypatch.setattr(command.checkpoints, "look", lambda folder: seen)
    assert not folder.save_now(step=1, within=10)
    assert store.kept == []
