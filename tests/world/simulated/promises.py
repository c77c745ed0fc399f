"""What the simulated world holds dispatchers to.

Always
- One unfinished Job a model; no pod before Processing was attempted for its Job, nor after its report; no two pods of
  one model, of a training on several nodes of one node.
- A message is deleted after a Job was created for it, after its process read a status that forbids it, beside another
  message's Job, or with a poison entry. A model never trains more often than its user made it ready to.
- A pod that trains is deleted only where its Job is.
- While the portal or the cluster is out of reach, a message is delivered to a process once at most.
- A Job's finalizer and TTL: the one leaves and the other comes after the portal has the outcome (or its user moved on).
- No pod of a training on several nodes runs before its Job has a NetworkPolicy that lets its pods reach each other.
- With scoped credentials no pod runs before its Job has its own Secret, nor after what is in it has run out.
- No terminal status is replaced by another one by a process that could have known: its last GET of the model showed
  that status, or nothing has changed since.
When the faults have stopped
- The queue is empty, every Job and pod is gone, and every accepted request has reached its terminal status: Completed
  where a trainer published, Failed where none did, what the user set last where he asked for nothing since.
- Of a model whose next attempt had to wait its user was told so, under Processing.

The portal has no compare-and-set, so between a process's GET and the landing of its PUT anything may happen. Promised:
- A *Processing* that lands on an outcome (a stall between GET and PUT, or a request that stays in flight although its
  sender gave up or died) covers it for a while and is repaired: by who looks at the Job once more after his own PUT,
  else by the second look at every reported Job. It must land before that look, and the Job must still be there.
- If a *user* moves the model within that very window, the PUT may win over his move (`Model.raced`). Then only this is
  promised: messages, Jobs and pods come to their ends. The same where a process stands still in its PUT for longer than
  the TTL of the Job that others finish meanwhile, and where the portal never acknowledged Processing: a user's move
  cannot be told from a portal that never heard of the training.
Evidence that is gone is not made up: a finalizer taken off while nobody watches, and a pod that exits 0 on SIGTERM and
is removed while nobody watches, leave no trace. Where a message is redelivered just when its Job made room for the next
one, either message may stand for that next training; there is one training all the same.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from dispatcher.cluster import names
from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.simulated.faults import Violation
from tests.world.simulated.records import JobNote, Message, Model

USER = "user"


class Promises:
    """Mixed into the World, which has what is looked at here."""

    messages: dict[str, Message]
    sent: set[str]
    poison: list[str]
    models: dict[str, Model]
    launched: dict[str, str]
    trained: dict[str, set[str]]
    jobs: dict[str, dict[str, Any]]
    pods: dict[str, dict[str, Any]]
    notes: dict[str, JobNote]
    in_flight: list[Any]
    secrets: dict[str, dict[str, Any]]
    networks: dict[str, dict[str, Any]]
    scoped: bool
    is_away: Any
    waited: set[str]
    _put_attempts: dict[str, int]
    _met: set[tuple[str, str]]  # (process, message) that have met the outage

    def epoch(self) -> float:
        raise NotImplementedError

    # What is checked at once

    def check_created(self, job: Mapping[str, Any]) -> None:
        model = self.models[objects.model_id_of(job)]
        if objects.annotation(job, names.MESSAGE_ID) not in self.sent:
            raise Violation(f"{objects.name_of(job)} does not tell which message it was made for")
        model.requested = model.requested or model.status.may_start
        if names.FINALIZER not in (job["metadata"].get("finalizers") or ()):
            return  # nothing is held by it: what that costs shows in the end
        if "ttlSecondsAfterFinished" in job["spec"]:
            self.check_let_go(job, "a TTL comes")

    def check_pod(self, job: Mapping[str, Any]) -> None:
        model_id = objects.model_id_of(job)
        note = self.notes[objects.uid_of(job)]
        if objects.is_reported(job):
            raise Violation(f"a pod of model {model_id} is made although its Job is reported")
        told = self.models[model_id].history[max(0, note.model_version - 1) :]
        attempted = self._put_attempts.get(model_id, -1) >= note.created_call
        if not attempted and not any(status is ProcessingStatus.PROCESSING for _, status, _ in told):
            raise Violation(f"a pod of model {model_id} exists before Processing was attempted")
        self.check_credentials(job)
        self._check_network(job)
        if note.model_version < self.models[model_id].moved_at:
            self.models[model_id].unclear = True
        self.trained[model_id].add(objects.uid_of(job))
        times, asked = len(self.trained[model_id]), self.models[model_id].asked
        if times > asked:
            raise Violation(f"model {model_id} trains {times} times and was asked for {asked} times")

    def check_credentials(self, job: Mapping[str, Any]) -> None:
        """A pod of this Job is about to run, or runs."""
        if not self.scoped:
            return
        secret, name = self.secrets.get(objects.name_of(job)), objects.name_of(job)
        if secret is None or secret["metadata"]["ownerReferences"][0]["uid"] != objects.uid_of(job):
            raise Violation(f"a pod of {name} is there before its Secret")
        container, write, until, _ = base64.b64decode(secret["data"]["MODEL_URL"]).decode().split()
        if (container, write) != (name, "True"):
            raise Violation(f"the Secret of {name} opens {container}")
        if float(until) < self.epoch():
            raise Violation(f"{name} trains with credentials that have run out")

    def _check_network(self, job: Mapping[str, Any]) -> None:
        uid = objects.uid_of(job)
        if job["spec"].get("completionMode") == "Indexed" and not any(
            policy["metadata"]["ownerReferences"][0]["uid"] == uid for policy in self.networks.values()
        ):
            raise Violation(f"a pod of {objects.name_of(job)} is there before its NetworkPolicy")

    def check_let_go(self, job: Mapping[str, Any], what: str) -> None:
        """The finalizer goes, or the TTL comes: the outcome must have been told, or no longer be asked for."""
        model = self.models[objects.model_id_of(job)]
        since = model.history[self.notes[objects.uid_of(job)].model_version :]
        if not (model.status.is_terminal or any(s.is_terminal or who == USER for who, s, _ in since)):
            raise Violation(f"{objects.name_of(job)}: {what} before the portal has the outcome")

    def check_received(self, process: str, message: Message) -> None:
        if self.is_away:
            if (process, message.id) in self._met:
                raise Violation(f"{message.id} is delivered again to a process that knows of the outage")
            self._met.add((process, message.id))

    def check_deletion(self, process: str, message: Message) -> None:
        try:
            model_id = json.loads(message.text)["model_container_name"].removeprefix("model-")
        except (ValueError, KeyError):
            model_id = ""
        model = self.models.get(model_id)
        refused = model is not None and process in model.seen and not model.seen[process][1].may_start
        if not (
            message.id in self.launched
            or refused
            or any(json.loads(entry)["message_id"] == message.id for entry in self.poison)
            or any(note.model_id == model_id for note in self.notes.values())  # beside another message's Job
        ):
            raise Violation(f"{message.id} was deleted without a Job, a refusal or a poison entry")

    def check_stopped(self, job: Mapping[str, Any]) -> None:
        """A dispatcher deletes a Job: a training that runs only where its user has moved on."""
        model = self.models[objects.model_id_of(job)]
        moved = model.moved_at > self.notes[objects.uid_of(job)].model_version
        if objects.is_launched(job) and not objects.is_finished(job) and not moved and not model.status.is_terminal:
            raise Violation(f"{objects.name_of(job)} runs and is deleted, and nobody asked for that")

    def check_taken(self, pod: Mapping[str, Any]) -> None:
        """A dispatcher deletes a pod: one that trains only where its Job is deleted."""
        job = self.jobs.get(f"model-{objects.model_id_of(pod)}")
        mine = job is not None and objects.uid_of(job) == objects.owner_uid(pod) and not objects.is_deleting(job)
        if mine and "running" in objects.trainer_state(pod) and not objects.pod_is_over(pod):
            raise Violation(f"{objects.name_of(pod)} trains and is deleted")

    # What is checked in the end

    @property
    def settled(self) -> bool:
        return not (self.messages or self.jobs or self.pods or self.in_flight)

    def check_end(self) -> None:
        if not self.settled:
            raise Violation(f"not settled: {list(self.messages)}, {list(self.jobs.values())}, {list(self.pods)}")
        for model_id, model in self.models.items():
            allowed = self._true_statuses(model)
            if not model.raced and model.status not in allowed:
                wanted = " or ".join(s.title for s in allowed) or "Completed, for nothing has hindered it"
                raise Violation(f"model {model_id} ends as {model.status.title}, not {wanted}: {model.history}")
            told = any(text.startswith("Attempt 1 of 2 failed: ") for _, _, text in model.history)
            if model_id in self.waited and not told:
                raise Violation(f"nobody told why model {model_id} waits for its next attempt: {model.history}")

    def _true_statuses(self, model: Model) -> set[ProcessingStatus]:
        completed, failed = ProcessingStatus.COMPLETED, ProcessingStatus.FAILED
        if model.unclear and (model.published or model.excused):
            return {completed, failed}
        if model.published:
            return {completed}
        if model.requested:
            return {failed} if model.excused else set()
        last = next((status for author, status, _ in reversed(model.history) if author == USER), model.status)
        # A message that is purged while its refusal is on its way to the portal: either is true.
        return {last, failed} if model.refused else {last}
