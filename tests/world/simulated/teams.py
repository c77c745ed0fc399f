"""Trainings on several nodes in the world: what their pods do together, by the contract between the supervisors.

Node 0 trains while all are there, publishes, and alone talks to the portal; the others end with 0 once it has.
An act may wait for its moment: "killed" at once, "killed@whole" when all have met, "killed@training" in the midst of
it, which is where a checkpoint is, "killed@published" between the publication and its own end.
"""

from __future__ import annotations

from typing import Any

from dispatcher.cluster import names
from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.simulated.telling import Telling

S = ProcessingStatus
PUBLISHED = {"message": "Model training completed successfully", "code": "Completed"}
FOLLOWED = {"message": "Node 1 has published the model", "code": "Completed"}
PEER_LOST = {"message": "The others of the training are out of reach: closed", "code": "PeerLost"}


def index_of(pod: objects.JsonObject) -> int:
    return int(objects.label(pod, names.INDEX) or 0)


class Teams(Telling):
    """Mixed into the trainers."""

    nodes: dict[str, int]  # model → how many nodes its trainings have; 1 where it is not named
    acts: dict[str, str]
    begun: dict[str, int]
    published_by: set[str]  # uids of the Jobs whose node 0 has published
    _began: set[str]

    def _pods_of(self, job: objects.JsonObject) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _owner(self, pod: objects.JsonObject) -> dict[str, Any] | None:
        raise NotImplementedError

    def _begin(self, pod: dict[str, Any], uid: str, status: ProcessingStatus) -> None:
        raise NotImplementedError

    def _end_as(self, pod: dict[str, Any], model_id: str, act: str) -> None:
        raise NotImplementedError

    def _end_pod(self, pod: dict[str, Any], code: int, word: Any, disrupted: str | None = None) -> None:
        raise NotImplementedError

    def publish(self, model_id: str, begun: int) -> None:
        raise NotImplementedError

    def join(self, pod: dict[str, Any], job: objects.JsonObject, index: int) -> None:
        """Make a new pod one of its team: an index, a name with it, and a node unless there is none for it."""
        pod["metadata"]["labels"][names.INDEX] = str(index)
        pod["metadata"]["name"] = f"{objects.name_of(job)}-{index}-{objects.uid_of(pod).replace('-', '')}"
        if self.acts[objects.uid_of(pod)] == "unplaced":
            reason = {"reason": "Unschedulable", "message": "0/1 nodes are available"}
            pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", **reason}]
        else:
            pod["spec"]["nodeName"] = f"gpu-{index + 1}"

    def _train_together(self, pod: dict[str, Any], uid: str, status: ProcessingStatus) -> None:
        model_id, run = objects.model_id_of(pod), objects.owner_uid(pod) or ""
        job = self._owner(pod)
        peers = [] if job is None else [other for other in self._pods_of(job) if objects.uid_of(other) != uid]
        act, _, moment = self.acts[uid].partition("@")
        moments = {
            "": True,
            "whole": self._is_whole(pod, peers),
            "training": any(objects.uid_of(other) in self._began for other in [pod, *peers]),
            "published": run in self.published_by,
            "never": False,
        }
        if act == "echo":  # a program that does not stay for the next of its peer
            if any(objects.pod_phase(other) == "Failed" or objects.is_deleting(other) for other in peers):
                self._end_pod(pod, 206, PEER_LOST)
        elif act not in ("part", "vanish", "stay"):
            if moment == "training" and index_of(pod) == 0 and moments["whole"] and uid not in self._began:
                self._begin(pod, uid, status)
            elif moments[moment]:
                self._end_as(pod, model_id, act)
        elif index_of(pod) == 0:
            self._lead(pod, uid, status, vanishes=act == "vanish", whole=moments["whole"])
        elif moments["published"] and act != "stay":
            self._end_pod(pod, 0, FOLLOWED)

    def _is_whole(self, pod: objects.JsonObject, peers: list[dict[str, Any]]) -> bool:
        there = {index_of(other) for other in [pod, *peers] if _is_there(other)}
        return len(there) == self.nodes[objects.model_id_of(pod)]

    def _lead(self, pod: dict[str, Any], uid: str, status: ProcessingStatus, *, vanishes: bool, whole: bool) -> None:
        model_id, run = objects.model_id_of(pod), objects.owner_uid(pod) or ""
        if run not in self.published_by:
            if not whole:
                return
            if uid not in self._began:
                self._begin(pod, uid, status)
                return
            self.publish(model_id, self.begun[uid])
            self.published_by.add(run)
            if vanishes:  # before it could tell anybody
                self.blur(model_id)
                self._end_pod(pod, 143, None, disrupted="DeletionByTaintManager")
                return
        if self.tells(pod, S.COMPLETED, PUBLISHED["message"]):
            self._end_pod(pod, 0, PUBLISHED)


def _is_there(pod: objects.JsonObject) -> bool:
    if objects.pod_is_over(pod):
        return objects.pod_phase(pod) == "Succeeded"
    return "running" in objects.trainer_state(pod) and not objects.is_deleting(pod)
