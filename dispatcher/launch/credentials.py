"""Credentials for one training: what is in the Secret of a Job, when it is renewed, which dataset it may ask for.

A Secret is made after its Job exists and before it is resumed (launch step 4b), and renewed at half of its validity for
as long as the Job is unfinished, wherever that waits. It is never read: what it holds is told by two annotations of the
Job. Making it is idempotent, so whoever finds a Job without them makes it.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.errors import ObjectInvalid
from dispatcher.cluster.jobs import Job
from dispatcher.cluster.objects import timestamp
from dispatcher.cluster.pods import Pod
from dispatcher.decisions.codes import EXIT_CODES
from dispatcher.launch.request import foreign_dataset
from dispatcher.ports import Cluster, ScopedStorage
from portal_client.model_ids import container_name_problem
from training_common.times import rfc3339

# Seconds beyond a training's time limit for which its signatures are good: it may wait in a queue first, and no
# dispatcher may run for a day.
_MARGIN = 86400.0
# The time limit (seconds) of a Job that has none, which only somebody's patch can bring about.
_NO_LIMIT = 86400
# Seconds for which a Secret is left alone, whatever is wrong with it: while a new key is rolled out, dispatchers with
# the old and with the new one must not take turns. Shorter than a training waits for a new file.
_GRACE = 60.0
# With this exit code a trainer ends that storage refuses, among others.
_REFUSED = next(number for number, code in EXIT_CODES.items() if code == "StorageUnavailable")
_NEVER = float("inf")
_NO_CONTAINER = "dispatcher-check"


class DatasetRefused(Exception):
    """A training may not have this container; the text is a sentence for its user."""


@dataclass(eq=False)
class ScopedCredentials:
    """Makes and renews the Secrets of Jobs. Thread-safe; the caller holds the model's lock.

    token(model id, run id): the relay's, for this run alone. clock: epoch seconds.
    """

    cluster: Cluster
    storage: ScopedStorage
    token: Callable[[str, str], str]
    clock: Callable[[], float] = time.time

    def give(self, job: Job) -> dict[str, str]:
        """Make the Job's Secret, or renew it. Returns the annotations that the caller has to note on the Job.

        A crash before they are noted: it is made once more. Raises StorageError; ClusterError, of which ObjectConflict
        says that another Job's Secret is still there.
        """
        now = self.clock()
        until = now + self._validity(job)
        token = self._token(job)
        data = {
            "API_KEY": token,
            "MODEL_URL": self.storage.sas(job.name, write=True, until=until),
        }
        if dataset := job.dataset:
            data["DATASET_URL"] = self.storage.sas(dataset, write=False, until=until)
        self.cluster.apply_secret(secret_of(job, job.model_id, data))
        return {
            names.CREDENTIALS_UNTIL: rfc3339(until),
            names.CREDENTIALS_MADE: f"{rfc3339(now)} {self._signer(token)}",
        }

    def renew(self, job: Job, *, doubted: bool = False) -> Job:
        """Make the Job's Secret anew and note it. doubted: see `doubted_at`. Raises as `give`."""
        if doubted:
            self.storage.distrust()
        return self._note(job, self.give(job))

    def due_at(self, job: Job, doubted_at: float | None = None) -> float:
        """When its Secret has to be renewed (epoch seconds); infinity for a Job that has none. Raises ObjectInvalid."""
        if not job.is_scoped:
            return _NEVER
        until = timestamp(job.annotations.credentials_until)
        made_text, _, signer = (job.annotations.credentials_made or "").partition(" ")
        made = timestamp(made_text)
        if until is None or made is None or made > self.clock() + _MARGIN:
            return 0.0  # nobody has noted it, or somebody has changed the note
        if signer != self._signer(self._token(job)) or (doubted_at is not None and doubted_at > made):
            return min(made + _GRACE, until)
        return made + (until - made) / 2

    def probe(self) -> None:
        """Make a signature that nobody gets, for a container that need not exist. Raises StorageError."""
        self.storage.sas(_NO_CONTAINER, write=False, until=self.clock() + 60)

    def for_dataset(self, job: Job, container: str) -> str:
        """The URL of a dataset that the training has learned of only in its pod, with a signature to read it.

        job: as the API server has it now. The container is noted on it, so that each renewal has it. Raises
        DatasetRefused; StorageError and ClusterError, after which it may be asked again (ObjectConflict: somebody else
        was faster).
        """
        problem = container_name_problem(container) or foreign_dataset(job.name, container)
        if problem:
            raise DatasetRefused(f"The dataset {container[:80]!r} {problem}")
        if job.dataset not in (None, container):
            raise DatasetRefused(f"This training has the dataset {job.dataset}; a second one, {container}, is refused")
        if job.dataset is None:
            # Of two that ask at the same time one is first, whichever replicas they ask. A crash after it: asked again,
            # it is found noted.
            job = self._note(job, {names.DATASET: container}, resourceVersion=job.metadata.resource_version)
            self.renew(job)
        return self.storage.sas(container, write=False, until=self.clock() + self._validity(job))

    def _note(self, job: Job, annotations: dict[str, str], **only_if: str) -> Job:
        metadata = {"uid": job.uid, "annotations": annotations, **only_if}
        return self.cluster.patch_job(job.name, {"metadata": metadata})

    def _validity(self, job: Job) -> float:
        return min((job.spec.active_deadline_seconds or _NO_LIMIT) + _MARGIN, self.storage.longest)

    def _token(self, job: Job) -> str:
        try:
            return self.token(job.model_id, job.annotations.run_id or "")
        except ValueError as error:  # somebody has changed its annotations
            raise ObjectInvalid(f"Job {job.name} can have no credentials: {error}") from None

    def _signer(self, token: str) -> str:
        """A fingerprint of all keys that its credentials are signed with."""
        return hashlib.sha256(f"{self.storage.signer} {token}".encode()).hexdigest()[:16]


def doubted_at(pods: Sequence[Pod], progress: str | None, now: float) -> float | None:
    """When the Job's Secret was last seen to be gone or no good (epoch seconds): somebody has deleted or changed it, or
    revoked what it was signed with. progress: what the Job waits for.

    A Secret that is gone shows when a pod is to have it; a signature that is refused when a pod has ended of that, and
    of it as of any other trouble with storage.
    """
    if names.CREDENTIALS_VOLUME in (progress or ""):
        return now  # in the kubelet's words, which name the volume
    ended = (timestamp(pod.trainer_end.finished_at) for pod in pods if pod.trainer_end.exit_code == _REFUSED)
    return max((at for at in ended if at is not None), default=None)


def secret_of(job: Job, model_id: str, data: dict[str, str]) -> dict[str, Any]:
    """The Secret of a Job: named as it, owned by it, with these files."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": job.uid, "controller": False}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": job.name,
            "labels": {names.MANAGED_BY: names.MANAGER, names.MODEL_ID: model_id},
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }
