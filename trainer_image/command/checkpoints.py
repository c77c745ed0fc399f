"""CHECKPOINT_DIR, copied beyond the pod while the program runs, and brought back before it starts.

A checkpoint is a folder `step-N` like the engine's: `files/…` as the program left them, `state.json`,
`metrics.jsonl`, and `MANIFEST.json` last. A program that writes under a name that begins with a dot, and renames, never
shows what is half written. Others write in place: the folder is copied when it has stood still for a while and nobody
has a file of it open for writing. What is never closed, a log beside the checkpoints, is left out after a while, and
said. Of a folder that changed while it was being copied nothing is kept.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from pathlib import Path

from trainer_image.contract import CheckpointStore
from trainer_image.host import beneath, exhaustion, open_files
from trainer_image.host.exhaustion import DISK_FULL
from trainer_image.storage import untrusted_json
from trainer_image.storage.blob_names import first_problem, printable
from trainer_image.storage.manifest import MANIFEST, of_folder
from trainer_image.transfer.checkpoint_store import MANIFEST_BYTES

log = logging.getLogger(__name__)

FILES, STATE, HISTORY = "files", "state.json", "metrics.jsonl"
FORMAT = 1
# After a copy that the program spoiled by writing meanwhile.
AGAIN_SECONDS = 2.0
# How long the folder stands still before it is copied, and how long what does not is waited for.
STILL_SECONDS, PATIENCE = 2.0, 60.0
# How often it is copied at once, where files were renamed into it meanwhile, and where some never stand still.
COPIES, TRIES = 10, 3

Look = dict[str, tuple[int, int, int]]


class NotWhole(Exception):
    """The folder cannot be kept as it is now; the message says why."""


class CheckpointFolder:
    """Keeps `folder` in `store`, in the background, at most every `every` seconds, and only where it has changed.

    near: a folder on the same disk, for the copies; history: kept and brought back, too
    keeps: False: it is only brought back, as on every node but the first
    step, seconds: what the newest checkpoint says of the training before; problems: sentences for the report
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        folder: Path,
        near: Path,
        history: Path,
        every: float,
        *,
        keeps: bool = True,
    ) -> None:
        self.step = 0
        self.seconds = 0.0
        self.resumed_from: int | None = None
        self.problems: list[str] = []
        self._store = store
        self._keeps = keeps and store is not None
        self._folder = folder
        self._near = near
        self._history = history
        self._every = every
        self._number = 0
        self._began = self._next = time.monotonic()
        self._next += every
        self._kept: Look = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._flight: Future[bool] | None = None
        self._closed = False
        self._ended = threading.Event()
        self._left_out: set[str] = set()

    def restore(self) -> float:
        """Fills the folder from the newest checkpoint; the seconds that were trained before it, 0 where there is none.

        Raises StorageUnavailable: to begin anew beside a checkpoint would overwrite it.
        """
        for found in self._store.newest_first() if self._store else ():
            try:
                state = untrusted_json.loads((found / STATE).read_text(encoding="utf-8"))
                if state["format"] != FORMAT:
                    raise ValueError(f"its format is {state['format']!r}")
                self.step, self.seconds = int(state["step"]), float(state["seconds"])
                self._number = int(found.name.removeprefix("step-"))
                if not (found / FILES).is_dir():
                    raise ValueError("it holds no files")
            except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
                log.warning("Checkpoint %s passed over: %s", found.name, error)
                self.step, self.seconds, self._number = 0, 0.0, 0
                continue
            shutil.copytree(found / FILES, self._folder, dirs_exist_ok=True)
            if (found / HISTORY).is_file():
                shutil.copyfile(found / HISTORY, self._history)
            self._kept = look(self._folder)
            self.resumed_from = self.step
            log.info("The program goes on from checkpoint %s", found.name)
            return self.seconds
        return 0.0

    def save_if_due(self, step: int) -> None:
        """Starts a copy where one is due and none is under way."""
        idle = self._flight is None or self._flight.done()
        if self._keeps and idle and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._flight = self._worker.submit(self._save, step)

    def save_now(self, step: int, within: float | None) -> bool:
        """Copies what is there now; the program has ended. Whether something is stored, and it is all that is there."""
        if not self._keeps:
            return False
        self._ended.set()
        self._flight = self._worker.submit(self._save, step)
        try:
            return self._flight.result(None if within is None else max(0.0, within))
        except TooLate:
            return False
        finally:
            self.close(within=0.0)

    def close(self, within: float | None = None) -> None:
        """Waits for a copy that is under way, `within` seconds at most; no more copies afterwards.

        Only the first call waits: who has waited for as long as the grace period allows is not to wait again.
        """
        waits, self._closed = not self._closed and within != 0.0, True
        self._ended.set()
        if self._flight is not None and waits:
            try:
                self._flight.result(None if within is None else max(0.0, within))
            except TooLate:
                log.warning("A checkpoint was not stored in time")
        self._worker.shutdown(wait=False, cancel_futures=True)

    def standing_still(self) -> Look | None:
        """What is there, where nothing was written to it for a while: who is killed before it changes leaves nothing
        half written there."""
        seen = look(self._folder)
        newest = max((changed for _, changed, _ in seen.values()), default=0)
        still = time.time() - newest / 1e9 > STILL_SECONDS and not open_files.written_below(self._folder)
        return seen if still else None

    def is_still(self, seen: Look) -> bool:
        """Whether it is what it was."""
        return look(self._folder) == seen

    def _save(self, step: int) -> bool:
        assert self._store is not None
        place = Path(tempfile.mkdtemp(prefix="copy-", dir=self._near))
        try:
            if self._ended.is_set():
                seen, moving, restless = look(self._folder), set[str](), set[str]()
            else:
                seen, moving, restless = self._still()
            if not seen or seen == self._kept:
                return bool(seen)
            self._number = max(self._number + 1, step)
            folder = place / f"step-{self._number}"

            def copied() -> Look:
                nonlocal moving
                for _ in range(TRIES if restless else 0):
                    with contextlib.suppress(NotWhole):
                        return self._store_copy(seen, folder, step, moving)
                moving = moving | restless
                return self._store_copy(_without(seen, restless), folder, step, moving)

            self._kept = exhaustion.with_room(self._store.make_room, copied)
            self._tell(moving)
        except NotWhole as why:
            log.info("Checkpoint put off: %s", why)
            self._next = min(self._next, time.monotonic() + AGAIN_SECONDS)
            return False
        except Exception as error:
            # The training is worth more than one checkpoint: it goes on, and the report says so.
            log.warning("Checkpoint at step %d failed: %s", step, error)
            self.problems.append(f"The checkpoint at step {step} failed ({type(error).__name__}).")
            return False
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return True

    def _still(self) -> tuple[Look, set[str], set[str]]:
        """The folder once it has stood still, or when PATIENCE is over; without the names of files that are open then,
        which come second, and with those, third, that changed but are closed: a file that is written anew every second
        is whole between two of these times.

        A file that another one has taken the place of was written elsewhere and renamed: it is whole at once. Raises
        NotWhole where the program ends meanwhile: then it is looked at again, without waiting.
        """
        began, before = time.monotonic(), look(self._folder)
        while True:
            if before == self._kept:
                return before, set(), set()
            if self._ended.wait(STILL_SECONDS):
                raise NotWhole("the program has ended")
            opened = open_files.written_below(self._folder)
            now = look(self._folder)
            moving, opened = _in_motion(before, now), opened & now.keys()
            if not moving | opened or time.monotonic() - began > PATIENCE:
                return _without(now, opened), opened, moving - opened
            before = now

    def _tell(self, moving: set[str]) -> None:
        new = sorted(moving - self._left_out)
        if new:
            named = ", ".join(map(printable, new[:3])) + (f" and {len(new) - 3} more" if len(new) > 3 else "")
            log.warning("Not in the checkpoint, as the program goes on writing to it: %s", named)
            self.problems.append(f"Checkpoints were kept without what the program never stopped writing to: {named}.")
            self._left_out |= moving

    def _store_copy(self, seen: Look, folder: Path, step: int, moving: set[str]) -> Look:
        """What is stored. A program that renames a file into the folder many times a second is waited for to pause."""
        assert self._store is not None
        for left in reversed(range(COPIES)):
            shutil.rmtree(folder, ignore_errors=True)  # half a copy, where the disk was full
            try:
                self._copy(seen, folder, step, moving)
                break
            except NotWhole:
                opened = open_files.written_below(self._folder)
                now = _without(look(self._folder), moving)
                if not left or _in_motion(seen, now) or opened & now.keys():
                    raise
                seen = now
        self._store.keep(folder)
        return seen

    def _copy(self, seen: Look, folder: Path, step: int, moving: set[str]) -> None:
        wrong = first_problem(seen)
        if wrong:
            raise NotWhole(f"{printable(wrong[0])}: {wrong[1]}")
        (folder / FILES).mkdir(parents=True)
        for name in seen:
            target = folder / FILES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with beneath.open_file(self._folder, name) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            except OSError as error:
                if error.errno in DISK_FULL:
                    raise
                raise NotWhole("the program removed a file meanwhile, or put something else in its place") from None
        if _without(look(self._folder), moving) != seen:
            raise NotWhole("the program wrote to it meanwhile")
        if seen.keys() & open_files.written_below(self._folder):
            raise NotWhole("the program is writing to it")
        with contextlib.suppress(OSError), beneath.open_file(self._history.parent, self._history.name) as source:
            (folder / HISTORY).write_bytes(source.read())
        spent = self.seconds + time.monotonic() - self._began
        state = {"format": FORMAT, "step": step, "seconds": round(spent, 3)}
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
        manifest = of_folder(folder)
        content = json.dumps({"files": manifest}).encode()
        if len(content) > MANIFEST_BYTES:
            raise NotWhole(f"it holds {len(manifest)} files, too many for one checkpoint")
        (folder / MANIFEST).write_bytes(content)


def _in_motion(before: Look, now: Look) -> set[str]:
    """Names of what is new or was written to. What took another file's place was written before."""
    return {
        name
        for name, file in now.items()
        if name not in before or (file != before[name] and file[2] == before[name][2])
    }


def _without(found: Look, moving: set[str]) -> Look:
    return {name: file for name, file in found.items() if name not in moving}


def look(folder: Path) -> Look:
    """name → (size, time of change, inode) of the regular files, without those below a name that begins with a dot."""
    found: Look = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place) / name
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and not name.startswith("."):
                key = path.relative_to(folder).as_posix()
                found[key] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found
