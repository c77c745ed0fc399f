"""The runs that lie in a model's container, and the way back to an earlier one.

What `latest.json` names is published. Where it is gone, the runs that are whole are found by listing them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer_image.errors import ConfigInvalid, Fenced
from trainer_image.storage import untrusted_json
from trainer_image.storage.blob_names import printable
from trainer_image.storage.container import (
    BlobChanged,
    BlobInfo,
    BlobMissing,
    Container,
    ContainerMissing,
    Refused,
    TooLarge,
)
from trainer_image.storage.manifest import MANIFEST, entries
from trainer_image.transfer.failures import failing_as
from trainer_image.transfer.publish import LATEST, RUN_ID, RUNS, UNPUBLISHED, Latest, pointer, read_latest

log = logging.getLogger(__name__)

MANIFEST_BYTES, REPORT_BYTES = 16 * 1024**2, 64 * 1024**2
# How many runs an error names, and of how many the figures are read: each is a file of some hundred KiB.
MOST_NAMED, MOST_READ = 5, 50


@dataclass(frozen=True)
class Run:
    """One run's folder. blobs: by their names within it

    ended: when its manifest was written, epoch seconds; None: it has none, and holds no whole model
    """

    run_id: str
    ended: float | None
    blobs: Mapping[str, BlobInfo] = field(repr=False)

    @property
    def held_back(self) -> bool:
        """It was not better than the model that was published then."""
        return UNPUBLISHED in self.blobs


def stored(container: Container) -> list[Run]:
    """All of them, the one that ended last first; those that are not whole at the end. Raises StorageFault."""
    found: dict[str, dict[str, BlobInfo]] = {}
    try:
        for blob in container.list(RUNS):
            run_id, _, name = blob.name.removeprefix(RUNS).partition("/")
            if name and RUN_ID.fullmatch(run_id):
                found.setdefault(run_id, {})[name] = blob
    except ContainerMissing:
        return []
    runs = [
        Run(run_id, blobs[MANIFEST].modified if MANIFEST in blobs else None, blobs) for run_id, blobs in found.items()
    ]
    return sorted(runs, key=lambda run: (run.ended or 0.0, run.run_id), reverse=True)


def champion(container: Container, latest: Latest, without: str) -> tuple[Latest, str | None]:
    """The published model; where latest.json names none, the whole run that ended last, with a sentence that says so.

    without: the run that asks. Raises StorageFault.
    """
    if latest.run_id is not None:
        return latest, None
    whole = [run for run in stored(container) if run.ended is not None and run.run_id != without]
    for run in whole:
        if not run.held_back and (digest := _digest(container, run.run_id)) is not None:
            gone = f"There is no {LATEST}" if latest.etag is None else f"{LATEST} is not readable"
            count = f"{len(whole)} whole runs lie" if len(whole) > 1 else "one whole run lies"
            return Latest(latest.etag, run.run_id, digest), (
                f"{gone}, but {count} in {container.name}: run {run.run_id}, which ended last, is taken for the"
                " published model."
            )
    return latest, None


def named(container: Container, run_id: str, sentence: str) -> Latest:
    """A run that somebody has named. Raises ConfigInvalid, which begins with `sentence`, for one that holds no model;
    StorageFault."""
    digest = _digest(container, run_id) if RUN_ID.fullmatch(run_id) else None
    if digest is not None:
        return Latest(None, run_id, digest)
    there = [run.run_id for run in stored(container) if run.ended is not None]
    more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
    right = f"; there are {', '.join(there[:MOST_NAMED])}{more}" if there else "; there is none at all"
    raise ConfigInvalid(f"{sentence} (there is no whole run {printable(run_id)[:64]}{right})")


def roll_back(container: Container, run_id: str) -> str:
    """Publishes an earlier run by one conditional write. What was done, as a sentence.

    Raises ConfigInvalid where there is no such run or it is not whole, Fenced where another run has published
    meanwhile, PermissionDenied, StorageUnavailable.
    """
    sentence = f"Failed to roll back in container: {container.name}"
    with failing_as(sentence, dict.fromkeys((ContainerMissing, Refused), ConfigInvalid)):
        now = read_latest(container)
        earlier = named(container, run_id, sentence)
        if (now.run_id, now.manifest_sha256) == (run_id, earlier.manifest_sha256):
            return f"Run {run_id} is the published one already"
        if (wrong := _incomplete(container, run_id)) is not None:
            raise ConfigInvalid(
                f"{sentence} (run {run_id} is not whole: {printable(wrong)} is not what {MANIFEST} says)"
            )
        try:
            # Whatever dies here: readers have the one model or the other.
            container.write_if(LATEST, pointer(run_id, str(earlier.manifest_sha256)), now.etag)
        except BlobChanged:
            raise Fenced(
                f"{sentence} (another run has published meanwhile; look at what there is and try again)"
            ) from None
    was = f" in place of run {now.run_id}" if now.run_id is not None else ""
    return f"Run {run_id} is published{was}: {container.name}/{RUNS}{run_id}"


def _digest(container: Container, run_id: str) -> str | None:
    """The SHA-256 of a run's manifest; None where it has none."""
    try:
        content, _ = container.read(f"{RUNS}{run_id}/{MANIFEST}", MANIFEST_BYTES)
    except (BlobMissing, TooLarge):
        return None
    return hashlib.sha256(content).hexdigest()


def _incomplete(container: Container, run_id: str) -> str | None:
    """The first file that a run's manifest lists and that is not there in that size."""
    where = f"{RUNS}{run_id}/"
    try:
        listed = entries(untrusted_json.loads(container.read(where + MANIFEST, MANIFEST_BYTES)[0]))
    except ValueError:
        return MANIFEST
    sizes = {blob.name.removeprefix(where): blob.size for blob in container.list(where)}
    return next((name for name, entry in listed.items() if sizes.get(name) != entry["size"]), None)


def lines(container: Container) -> Iterator[dict[str, Any]]:
    """What `runs` shows of each: {"run_id", "state", "ended", "task", "figure"}; the one that ended last first.

    state: published, whole, held back (it was not better), not whole. ended: epoch seconds or None. figure: the
    headline's, as words. Raises ConfigInvalid, PermissionDenied, StorageUnavailable.
    """
    sentence = f"Failed to read the runs in container: {container.name}"
    with failing_as(sentence, dict.fromkeys((ContainerMissing, Refused), ConfigInvalid)):
        latest = read_latest(container)
        for number, run in enumerate(stored(container)):
            state = "not whole" if run.ended is None else "held back" if run.held_back else "whole"
            state = "published" if run.ended is not None and run.run_id == latest.run_id else state
            read = run.ended is not None and number < MOST_READ
            report = _report(container, run.run_id) if read else {}
            name = report.get("headline")
            value = report["metrics"].get(name) if isinstance(report.get("metrics"), dict) else None
            figure = f"{printable(str(name))[:64]} {value:.4g}" if isinstance(value, float | int) else ""
            task = printable(str(report.get("task", "")))[:64]
            yield {"run_id": run.run_id, "state": state, "ended": run.ended, "task": task, "figure": figure}


def _report(container: Container, run_id: str) -> dict[str, Any]:
    try:
        report = untrusted_json.loads(container.read(f"{RUNS}{run_id}/report.json", REPORT_BYTES)[0])
    except (BlobMissing, TooLarge, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
