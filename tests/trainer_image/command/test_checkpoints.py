"""What a program saves comes back in the next pod."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_image.command.programs import PYTHON, inputs_for
from tests.world.training_data import FolderStore
from trainer_image import command, errors
from trainer_image.command import checkpoints
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


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[CheckpointFolder, FolderStore]]:
    """A folder whose copies are taken as while a program runs; `meanwhile` is called at each look but the first."""

    def made(meanwhile: Callable[[Path, int], None], patience: float = 60.0) -> tuple[CheckpointFolder, FolderStore]:
        store = FolderStore(tmp_path / "store")
        folder = keeper(tmp_path, store)
        looks = 0
        look = checkpoints.look

        def looked(place: Path) -> checkpoints.Look:
            nonlocal looks
            if looks:
                meanwhile(place, looks)
            looks += 1
            return look(place)

        monkeypatch.setattr(checkpoints, "STILL_SECONDS", 0.01)
        monkeypatch.setattr(checkpoints, "PATIENCE", patience)
        monkeypatch.setattr(checkpoints, "look", looked)
        return folder, store

    return made


Watched = Callable[..., tuple[CheckpointFolder, FolderStore]]


def kept(store: FolderStore) -> dict[str, str]:
    """What the newest checkpoint holds."""
    files = store.kept[-1] / "files"
    return {path.relative_to(files).as_posix(): path.read_text() for path in files.rglob("*") if path.is_file()}


def test_a_file_that_is_written_in_place_is_taken_when_it_stands_still(watched: Watched) -> None:
    def writes(place: Path, look: int) -> None:
        if look <= 3:
            with (place / "last.pt").open("a") as file:
                file.write(str(look))

    folder, store = watched(writes)
    (folder._folder / "last.pt").write_text("0")
    assert folder._save(step=1)
    assert kept(store) == {"last.pt": "0123"}


def test_a_file_that_is_open_is_not_taken_however_still_it_stands(watched: Watched) -> None:
    opened: list[Any] = []

    def closes(place: Path, look: int) -> None:
        if look == 3:
            opened.pop().close()

    folder, store = watched(closes)
    opened.append((folder._folder / "model.pt").open("w"))
    opened[0].write("half, " * 3 + "whole")
    assert folder._save(step=1)
    assert kept(store) == {"model.pt": "half, half, half, whole"}


def test_a_checkpoint_of_several_files_is_taken_when_the_last_is_there(watched: Watched) -> None:
    names = ["model", "optimizer", "trainer_state"]

    def adds(place: Path, look: int) -> None:
        if look < len(names):
            (place / names[look]).write_text("x")

    folder, store = watched(adds)
    (folder._folder / names[0]).write_text("x")
    assert folder._save(step=1)
    assert set(kept(store)) == set(names)


def test_a_program_that_renames_all_the_time_has_its_checkpoint(watched: Watched) -> None:
    def renames(place: Path, look: int) -> None:
        if look < 3:
            (place / ".state").write_text(str(look))
            (place / ".state").replace(place / "state")

    folder, store = watched(renames, 0.0)
    (folder._folder / "state").write_text("0")
    (folder._folder / "other").write_text("o")
    assert folder._save(step=1)
    assert kept(store) == {"state": "2", "other": "o"}, "that of the second copy: the first was overtaken"


def test_a_file_that_is_written_anew_all_the_time_is_taken_between_two_of_these_times(watched: Watched) -> None:
    """Each look but that after the copy finds another content."""

    def writes(place: Path, look: int) -> None:
        if look % 2:
            (place / "last.pt").write_text("x" * look)

    folder, store = watched(writes, 0.0)
    (folder._folder / "last.pt").write_text("")
    assert folder._save(step=1)
    assert kept(store) == {"last.pt": "x"}
    assert folder.problems == []


def test_a_file_that_is_opened_while_it_is_copied_is_not_taken(watched: Watched) -> None:
    opened: list[Any] = []

    def opens(place: Path, look: int) -> None:
        if look == 2:
            opened.append((place / "last.pt").open("r+"))

    folder, store = watched(opens)
    (folder._folder / "last.pt").write_text("whole")
    assert not folder._save(step=1)
    opened.pop().close()
    assert folder._save(step=2)
    assert kept(store) == {"last.pt": "whole"}


def test_a_log_that_is_written_all_the_time_costs_no_checkpoint(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    def logs(place: Path, look: int) -> None:
        with (place / "events.log").open("a") as file:
            file.write(str(look))

    folder, store = watched(logs, 0.0)
    (folder._folder / "model").write_text("m")
    (folder._folder / "events.log").write_text("0")
    assert folder._save(step=1)
    (folder._folder / "model").write_text("m2")
    assert folder._save(step=2)
    assert kept(store) == {"model": "m2"}
    assert caplog.text.count("Not in the checkpoint, as the program goes on writing to it: events.log") == 1
    assert folder.problems == ["Checkpoints were kept without what the program never stopped writing to: events.log."]


def test_a_wait_for_a_still_folder_ends_with_the_program(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(place: Path, look: int) -> None:
        with (place / "last.pt").open("a") as file:
            file.write(str(look))

    folder, store = watched(writes)
    (folder._folder / "last.pt").write_text("0")
    monkeypatch.setattr(checkpoints, "STILL_SECONDS", 600.0)
    folder._next = 0.0
    folder.save_if_due(step=1)
    monkeypatch.setattr(checkpoints, "look", lambda place: {"last.pt": (1, 1, 1)})
    monkeypatch.undo()
    assert folder.save_now(step=1, within=20)
    assert len(store.kept) == 1
