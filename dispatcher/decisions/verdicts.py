"""What is decided of a Job: it goes on, is stopped, or has ended; for what reason, and who holds it. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum

from dispatcher.cluster import names, objects
from dispatcher.cluster.jobs import Job


@dataclass(frozen=True)
class Verdict:
    """code: stable, for metrics; sentence: what happened, where, and what to do."""

    code: str
    sentence: str


class Holder(StrEnum):
    """Who keeps a Job from going on, as sentences name it."""

    API_SERVER = "the API server"
    DISPATCHER = "the dispatcher"
    JOB_CONTROLLER = "the Job controller"
    KUBELET = "the kubelet"
    KUEUE = "Kueue"
    NETWORK = "who runs the node"
    PERSON = "a person"
    PORTAL = "the portal"
    QUOTA = "the namespace's quota"
    REGISTRY = "the registry"
    SCHEDULER = "the scheduler"
    TRAINER = "the trainer"
    WEBHOOK = "an admission webhook"


@dataclass(frozen=True)
class Going:
    """Nothing to report yet. What is done about it is what counts where two are compared.

    progress: what a user waits for, None where only the trainer may report; check_at: epoch seconds of the next limit;
    verdict: what it is stopped with then, None where it is only looked at again; holder: who keeps it waiting.
    remove_pods: pods that run on until somebody deletes them: of a deleted Job, or one whose trainer has ended. only:
    the uid of the one that is meant, of a team.
    """

    progress: str | None = None
    check_at: float | None = None
    remove_pods: bool = False
    only: str = ""
    verdict: Verdict | None = field(default=None, compare=False)
    holder: Holder | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Stop:
    """A Job that would run for ever: stop it with this verdict first, then report."""

    verdict: Verdict


@dataclass(frozen=True)
class Ended:
    """The outcome of the Job. completed: Completed, else Failed with the verdict's sentence."""

    completed: bool
    verdict: Verdict


Outcome = Going | Stop | Ended


def stop_annotations(verdict: Verdict) -> dict[str, str]:
    """What is written on a Job with its stop; `stop_verdict` reads it back."""
    return {names.STOPPED: json.dumps({"code": verdict.code, "sentence": verdict.sentence})}


def stop_verdict(job: Job) -> Verdict | None:
    """The verdict that was written on the Job when it was stopped."""
    stopped = objects.decoded(job.annotations.stopped)
    if not isinstance(stopped, dict) or not {"code", "sentence"} <= stopped.keys():
        return None  # none, or somebody edited it: the Job's condition decides
    return Verdict(str(stopped["code"]), str(stopped["sentence"]))
