"""`dispatcher cancel MODEL`: end a training, with a true status at the portal.

The verdict is written on the Job first: whoever reports its end then reports "cancelled", not "deleted" or "timeout".
"""

from __future__ import annotations

import contextlib
import time

from dispatcher.cluster.errors import ClusterError
from dispatcher.decisions.verdicts import Verdict, stop_annotations
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import make_event

VERDICT = Verdict(
    "Cancelled",
    "The training was cancelled by the operator. Reset the model to Created or Reconfigure to train it again",
)


class NothingToCancel(Exception):
    """The sentence says why."""


def cancel(cluster: Cluster, model_container: str) -> str:
    """Stop the model's Job; returns what was done. Raises NothingToCancel and ClusterError. Idempotent."""
    job = cluster.get_job(model_container)
    if job is None:
        raise NothingToCancel(
            f"There is no Job {model_container}. A request that still waits on the queue is rejected if its model's "
            "status at the portal is anything but Created or Reconfigure by then"
        )
    if not job.is_managed:
        raise NothingToCancel(f"The Job {model_container} is not the dispatcher's; `kubectl delete job` ends it")
    if job.is_finished:
        raise NothingToCancel(f"The Job {model_container} has ended already; `dispatcher status` shows how")
    patch = {"metadata": {"uid": job.uid, "annotations": stop_annotations(VERDICT)}}
    if job.is_suspended:
        # No deadline runs while a Job is suspended. After a crash between the two it goes on until this is repeated.
        cluster.patch_job(model_container, patch)
        cluster.delete_job(model_container, job.uid)
    else:
        cluster.patch_job(model_container, {**patch, "spec": {"activeDeadlineSeconds": 1}})
    with contextlib.suppress(ClusterError):  # a missing Event is no failure to cancel
        cluster.create_event(make_event(job, "Cancelled", VERDICT.sentence, "Warning", now=time.time()))
    return f"{model_container} is being stopped: its pod gets SIGTERM, then the outcome is reported"
