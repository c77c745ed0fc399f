"""The pods of one training on several nodes answer each other: a NetworkPolicy of their own opens what the namespace's
policies close to everybody.

It is about who may call them alone: where no other policy selects them, one about whom they call would cut them off
from all the rest. It is made before the Job is resumed (launch step 4c), named after the Job's uid and owned by the
Job, so Kubernetes removes it with the Job. It never changes: one of its name is this Job's, whoever made it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterForbidden, ObjectConflict, ObjectInvalid, ObjectNotFound, QuotaExceeded
from dispatcher.cluster.jobs import Job
from dispatcher.ports import Cluster
from dispatcher.telemetry.job_events import NULL_RECORDER, EventRecorder

log = logging.getLogger(__name__)

_HINT = (
    "apply manifests/components/teams, or set TEAM_NETWORK_POLICY=off where nothing keeps pods from each other. The Job"
    " stays suspended until then"
)


@dataclass(eq=False)
class TeamNetworks:
    """Makes the NetworkPolicies of teams. Thread-safe."""

    cluster: Cluster
    events: EventRecorder = NULL_RECORDER

    def open(self, job: Job) -> str:
        """Let the pods of this very Job reach each other. Returns why that is not allowed, "" where it is done.

        Raises ClusterError in an outage.
        """
        try:
            with suppress(ObjectConflict):  # made before a crash, or by another replica
                self.cluster.create_network_policy(network_policy_of(job))
        except (ClusterForbidden, ObjectInvalid, ObjectNotFound, QuotaExceeded) as error:
            sentence = f"The pods of Job {job.name} would not reach each other: {error}; {_HINT}"
            log.warning("%s", sentence)
            self.events.record(job, "NetworkPolicyMissing", sentence, "Warning", once="")
            return sentence
        return ""


def network_policy_of(job: Job) -> dict[str, Any]:
    """The NetworkPolicy by which the pods of the Job are reached by each other, and by nobody else, on every port.

    They are selected by a label that the Job controller writes, and the API server takes from nobody else. By the Job's
    name: network plug-ins may leave its uid out of what they tell pods apart by (Cilium does).
    """
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": job.uid, "controller": False}
    pods = {"matchLabels": {names.JOB_NAME: job.name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": f"{job.name}-{job.uid}",
            "labels": {names.MANAGED_BY: names.MANAGER},
            "ownerReferences": [owner],
        },
        "spec": {
            "podSelector": pods,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": pods}]}],
        },
    }
