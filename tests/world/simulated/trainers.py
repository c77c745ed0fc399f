"""The kubelet's and the trainer's side of the world: what a pod does from its creation to its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.simulated.teams import Teams, index_of

S = ProcessingStatus
COMPLETED = {"message": "Model training completed successfully", "code": "Completed"}
CANCELLED = {"message": "The portal took the model out of Processing", "code": "Cancelled"}


class Trainers(Teams):
    """Mixed into the cluster's side, which has the store."""

    now: float
    models: dict[str, Any]
    acts: dict[str, str]
    no_gpu: dict[str, float]
    waited: set[str]
    sidecars: dict[str, str]
    begun: dict[str, int]
    _began: set[str]

    def touch(self, kind: str, item: dict[str, Any], change: str = "MODIFIED") -> None:
        raise NotImplementedError

    def _remove_pod(self, pod: dict[str, Any]) -> None:
        raise NotImplementedError

    def _owner(self, pod: objects.JsonObject) -> dict[str, Any] | None:
        raise NotImplementedError

    def _time(self) -> str:
        raise NotImplementedError

    def check_credentials(self, job: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def publish(self, model_id: str, begun: int) -> None:
        raise NotImplementedError

    def _live(self, pod: dict[str, Any]) -> None:
        uid = objects.uid_of(pod)
        if objects.pod_is_over(pod):
            if objects.is_deleting(pod) or self._owner(pod) is None:
                self._remove_pod(pod)
        elif "terminated" in objects.trainer_state(pod):
            # The kubelet ends a native sidecar by itself; an ordinary one goes on until somebody deletes the pod.
            if objects.is_deleting(pod) or self.sidecars[objects.model_id_of(pod)] == "native":
                self._end_sidecar(pod)
        elif objects.is_deleting(pod):
            self.cut_off(pod)
            polite = self.acts[uid] == "polite" and "running" in objects.trainer_state(pod)
            self._end_pod(pod, 0 if polite else 143, None)
        elif self.acts[uid] == "unplaced":
            return  # no node has room for it
        elif self._finds_no_gpu(pod):
            return
        elif "running" not in objects.trainer_state(pod):
            running = {"running": {"startedAt": self._time()}}
            pod["status"] = self._status(pod, "Running", running, running)
            self.touch("pods", pod)
        else:
            self._train(pod, uid)

    def _finds_no_gpu(self, pod: dict[str, Any]) -> bool:
        """A Job's second pod waits for as long as `no_gpu` says."""
        model_id, job = objects.model_id_of(pod), self._owner(pod)
        if model_id not in self.no_gpu or "running" in objects.trainer_state(pod):
            return False
        if job is None or not job["status"].get("failed"):
            return False
        conditions = pod["status"].setdefault("conditions", [])
        if not conditions:
            why = {"reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}
            since = {"lastTransitionTime": self._time()}
            conditions.append({"type": "PodScheduled", "status": "False", **why, **since})
            self.no_gpu[model_id] += self.now
            self.touch("pods", pod)
        if self.now < self.no_gpu[model_id]:
            return True
        self.waited.add(model_id)
        del self.no_gpu[model_id]
        return False

    def _train(self, pod: dict[str, Any], uid: str) -> None:
        """As the trainer's contract has it: GET first; stop when it is no longer Processing; report, then end."""
        model_id = objects.model_id_of(pod)
        if (job := self._owner(pod)) is not None:
            self.check_credentials(job)
        if index_of(pod):  # of a team only node 0 asks
            self._train_together(pod, uid, S.PROCESSING)
            return
        status = self.shown_to(pod)
        act = self.acts[uid]
        if status is S.COMPLETED:
            self._end_pod(pod, 0, COMPLETED)
        elif status is S.FAILED or (status.may_start and uid in self._began):
            self._end_pod(pod, 83, CANCELLED)
        elif model_id in self.nodes:
            self._train_together(pod, uid, status)
        elif act in ("hang", "polite"):
            self._begin(pod, uid, status)
        elif act == "said-and-hangs":
            self.publish(model_id, self.begun[objects.uid_of(pod)])
            if self.tells(pod, S.COMPLETED, COMPLETED["message"]):
                self.acts[uid] = "gone"
        elif act == "slow":
            self._begin(pod, uid, status)
            self.acts[uid] = "complete"
        elif act != "gone":
            self._end_as(pod, model_id, act)

    def _begin(self, pod: dict[str, Any], uid: str, status: ProcessingStatus) -> None:
        if uid not in self._began:
            self._began.add(uid)
            if status.may_start:  # Processing was never acknowledged
                self.tells(pod, S.PROCESSING, "Epoch 1 of 3")

    def _end_as(self, pod: dict[str, Any], model_id: str, act: str) -> None:
        match act:
            case "complete":
                self.publish(model_id, self.begun[objects.uid_of(pod)])
                if self.tells(pod, S.COMPLETED, COMPLETED["message"]):
                    self._end_pod(pod, 0, COMPLETED)
            case "lies":
                self.publish(model_id, self.begun[objects.uid_of(pod)])
                if self.tells(pod, S.COMPLETED, COMPLETED["message"]):
                    self.lies(pod)
                    self._end_pod(pod, 0, COMPLETED)
            case "complete-unreported":  # the portal was out of reach for the trainer
                self.publish(model_id, self.begun[objects.uid_of(pod)])
                self._end_pod(pod, 0, COMPLETED)
            case "invalid":
                if self.tells(pod, S.FAILED, "Invalid dataset: train.csv: empty"):
                    self._end_pod(pod, 65, {"message": "Invalid dataset: train.csv: empty", "code": "DatasetInvalid"})
            case "invalid-unreported":
                self._end_pod(pod, 65, {"message": "Invalid dataset: train.csv: empty", "code": "DatasetInvalid"})
            case "retry":
                self._end_pod(pod, 201, {"message": "Storage is out of reach", "code": "StorageUnavailable"})
            case "killed":
                self._end_pod(pod, 137, None)
            case "preempted":
                self._end_pod(pod, 143, None, disrupted="PreemptionByScheduler")
            case _:
                raise ValueError(act)

    def _end_pod(
        self, pod: dict[str, Any], code: int, word: Mapping[str, str] | None, disrupted: str | None = None
    ) -> None:
        ended: dict[str, Any] = {"exitCode": code, "finishedAt": self._time()}
        if word is not None:
            ended["message"] = json.dumps(word)
        if self.sidecars.get(objects.model_id_of(pod)) and not disrupted and not objects.is_deleting(pod):
            pod["status"] = self._status(pod, "Running", {"terminated": ended}, {"running": {}})
        else:
            phase = "Succeeded" if code == 0 else "Failed"
            pod["status"] = self._status(pod, phase, {"terminated": ended}, {"terminated": {"exitCode": 143}})
        if disrupted:
            pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": disrupted}]
        self.touch("pods", pod)

    def _end_sidecar(self, pod: dict[str, Any]) -> None:
        """What is left of the pod ends by SIGTERM: the phase is that of its main containers, of which one may be it."""
        trainer = objects.trainer_state(pod)
        native = self.sidecars[objects.model_id_of(pod)] == "native"
        phase = "Succeeded" if native and trainer["terminated"]["exitCode"] == 0 else "Failed"
        pod["status"] = self._status(pod, phase, trainer, {"terminated": {"exitCode": 143}})
        self.touch("pods", pod)

    def pod_spec(self, model_id: str) -> dict[str, Any]:
        trainer, beside = {"name": "trainer"}, self.sidecars.get(model_id)
        if beside == "ordinary":
            return {"containers": [trainer, {"name": "side"}]}
        if beside == "native":
            return {"containers": [trainer], "initContainers": [{"name": "side", "restartPolicy": "Always"}]}
        return {"containers": [trainer]}

    def _status(
        self, pod: objects.JsonObject, phase: str, trainer: Mapping[str, Any], side: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A pod's status, by the states of its containers."""
        status: dict[str, Any] = {"phase": phase, "containerStatuses": [{"name": "trainer", "state": trainer}]}
        beside = {"name": "side", "state": side, "started": "running" in side}
        match self.sidecars.get(objects.model_id_of(pod)):
            case "ordinary":
                status["containerStatuses"].append(beside)
            case "native":
                status["initContainerStatuses"] = [beside]
        return status
