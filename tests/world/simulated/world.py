"""A world with real semantics and a virtual clock, in which the dispatcher's real stages run.

Every call of a dispatcher passes through `World.call`, where a director may crash the process, fail the call before or
after it took effect, keep it in flight until later, or let somebody else go first. What the world holds them to:

Always
- One unfinished Job a model; no pod before Processing was attempted for its Job; no two pods of one model.
- A message is deleted after a Job was created for it, after its process read a status that forbids it, beside another
  message's Job, or with a poison entry. A model never trains more often than its user made it ready to.
- A Job's finalizer and TTL: the one leaves and the other comes after the portal has the outcome (or its user moved on).
- No terminal status is replaced by another one by a process that could have known: its last GET of the model showed
  that status, or nothing has changed since.
When the faults have stopped
- The queue is empty, every Job and pod is gone, and every accepted request has reached its terminal status: Completed
  where a trainer published, Failed where none did, what the user set last where he asked for nothing since.

The portal has no compare-and-set, so between a process's GET and the landing of its PUT anything may happen. Promised:
- A *Processing* that lands on an outcome (a stall between GET and PUT, or a request that stays in flight although its
  sender gave up or died) covers it for a while and is repaired: by who looks at the Job once more after his own PUT,
  else by the second look at every reported Job. It must land before that look, and the Job must still be there.
- If a *user* moves the model within that very window, the PUT may win over his move (`Model.raced`). Then only this is
  promised: messages, Jobs and pods come to their ends. The same where a process stands still in its PUT for longer than
  the TTL of the Job that others finish meanwhile, and where the portal never acknowledged Processing: a user's move
  cannot be told from a portal that never heard of the training.
Evidence that is gone is not made up: a finalizer taken off while nobody watches, and a pod that exits 0 on SIGTERM and
is removed while nobody watches, leave no trace. Where a message comes again just when its Job made room for the next
one, either message may stand for that next training; there is one training all the same.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dispatcher.cluster import names, objects
from portal_client.statuses import ProcessingStatus
from tests.world.simulated.faults import Crash, Fail, Late, Violation
from tests.world.simulated.kubernetes import Kubernetes
from tests.world.simulated.records import Message, Model

T = TypeVar("T")
EPOCH = 1_795_000_000.0
USER = "user"
TRAINER = "trainer"


@dataclass
class _Flight:
    call: int
    time: float
    action: Callable[[], object]


Reading = tuple[int, ProcessingStatus]
"""What a process read of a model: its version and its status."""
Director = Callable[[str, str, str], None]
"""(process, call, "before" or "after"): may raise Crash, Fail or Late."""


class World(Kubernetes):
    """All that survives a process. `trainers`: model id → what its pods do, attempt by attempt."""

    def __init__(self, trainers: Mapping[str, list[str]] | None = None) -> None:
        super().__init__()
        self.now = 1000.0
        self.director: Director = lambda process, call, side: None
        self.trainers = {model: list(script) for model, script in (trainers or {}).items()}
        self.messages: dict[str, Message] = {}
        self.sent: set[str] = set()
        self.poison: list[str] = []
        self.models: dict[str, Model] = {}
        self.launched: dict[str, str] = {}  # message id → uid of the last Job made for it
        self.trained: dict[str, set[str]] = defaultdict(set)  # model → uids of its Jobs that had a pod
        self.calls: list[tuple[str, str]] = []
        self.in_flight: list[_Flight] = []
        self.plans: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self.processes = 0
        self.denied = 0  # how many PUTs of Processing the portal does not take
        self._put_attempts: dict[str, int] = {}  # model → call number of the last attempt to PUT Processing
        self._numbers = itertools.count(1)

    # The portal's users, operators, and other accidents

    def enqueue(self, model_id: str, **fields: Any) -> str:
        message_id = f"message-{next(self._numbers)}"
        body = {"task": "train", "model_container_name": f"model-{model_id}", **fields}
        self.messages[message_id] = Message(message_id, json.dumps(body), self.now)
        self.sent.add(message_id)
        if (model := self.models.get(model_id)) is not None and model.status.may_start:
            model.requested = True
        return message_id

    def set_status(self, model_id: str, status: ProcessingStatus) -> None:
        model = self.models.setdefault(model_id, Model(status))
        model.write(USER, status, "")
        model.moved_at = model.version
        model.published = model.requested = model.excused = False
        if status.may_start:
            model.asked += 1

    def reconfigure(self, model_id: str) -> None:
        """A user asks for a new training."""
        self.set_status(model_id, ProcessingStatus.RECONFIGURE)
        self.enqueue(model_id)

    def force(self, model_id: str) -> None:
        """kubectl patch --type merge -p '{"metadata": {"finalizers": null}}', and delete."""
        job = self.jobs.get(f"model-{model_id}")
        if job is not None:
            if not objects.is_reported(job):
                self.models[model_id].unclear = True
            job["metadata"]["finalizers"] = []
            self.delete_job(objects.name_of(job))

    def forget_request(self, message: Message) -> None:
        """It expired before anything was made of it: it was never accepted."""
        for model_id, model in self.models.items():
            if f'"model-{model_id}"' in message.text and not self._pending(model_id):
                model.requested = False

    def _pending(self, model_id: str) -> bool:
        return any(f'"model-{model_id}"' in message.text for message in self.messages.values())

    def when(self, condition: Callable[[], bool], act: Callable[[], None]) -> None:
        """Do `act` once, as soon as `condition` holds."""
        self.plans.append((condition, act))

    # The dispatchers' calls

    def call(self, process: str, name: str, action: Callable[[], T], fails: Callable[[str], Exception]) -> T:
        if name != "cluster.list":  # to die there is to die between two ticks
            self.calls.append((process, name))
        try:
            self.director(process, name, "before")
            self._land()
            result = action()
            self._plan()
            self.director(process, name, "after")
        except Fail as failure:
            raise fails(str(failure)) from None
        except Late as late:
            self.in_flight.append(_Flight(len(self.calls) + late.calls, self.now + late.seconds, action))
            if late.crash:
                raise Crash(name) from None
            raise fails(str(late)) from None
        return result

    def _land(self) -> None:
        due = [f for f in self.in_flight if f.call <= len(self.calls) or f.time <= self.now]
        for flight in due:
            self.in_flight.remove(flight)
            try:
                flight.action()
            except Exception:  # nobody hears the answer any more
                continue

    def _plan(self) -> None:
        for plan in [plan for plan in self.plans if plan[0]()]:
            if plan in self.plans:
                self.plans.remove(plan)
                plan[1]()

    def advance(self, seconds: float) -> None:
        """Let time pass in steps that none of the short reactions of a cluster is lost in."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 15.0)
            self._land()
            self.settle()
            self._plan()

    @property
    def pace(self) -> float:
        """Seconds between two ticks: fewer where only TTLs are waited for."""
        return 30.0 if self.messages or not all(map(objects.is_reported, self.jobs.values())) else 60.0

    def epoch(self) -> float:
        return EPOCH + self.now

    # The portal: the last writer wins

    def attempts_processing(self, model_id: str) -> None:
        self._put_attempts[model_id] = len(self.calls)

    def look(self, process: str, model_id: str) -> tuple[ProcessingStatus, str]:
        model = self.models[model_id]
        model.seen[process] = (model.version, model.status)
        return model.status, model.message

    def put(
        self,
        process: str,
        seen: tuple[int, ProcessingStatus] | None,
        model_id: str,
        status: ProcessingStatus,
        text: str,
    ) -> None:
        """A PUT of a dispatcher that lands; seen: what its sender had read last when he sent it."""
        model = self.models[model_id]
        if seen is None:
            raise Violation(f"model {model_id}: {status.title} is sent by a process that never asked")
        if model.moved_at > seen[0] and model.status is not status:
            model.raced = True
        elif model.status.may_start and status.is_terminal and not self._acknowledged(model_id):
            # Nobody can tell a portal that never heard of this training from one whose user has moved on.
            model.raced = any(
                model.moved_at > note.model_version for note in self.notes.values() if note.model_id == model_id
            )
        elif model.status.is_terminal and model.status is not status:
            if model.version == seen[0] or seen[1].is_terminal:
                raise Violation(f"model {model_id}: {status.title} is put over {model.status.title} knowingly")
            if status is not ProcessingStatus.PROCESSING:
                raise Violation(f"model {model_id}: {status.title} contradicts {model.status.title}")
            model.covered += 1
            if model.history[-1][0] == TRAINER and not self._ended(model_id):
                model.unclear = True  # if it is killed before it ends, its word is lost
            if not any(objects.model_id_of(job) == model_id for job in self.jobs.values()):
                model.raced = True  # its sender stood still for longer than the TTL
        model.write(process, status, text)
        if model.seen.get(process) == seen:
            model.seen[process] = (model.version, status)

    def _ended(self, model_id: str) -> bool:
        return all(objects.is_finished(job) for job in self.jobs.values() if objects.model_id_of(job) == model_id)

    def _acknowledged(self, model_id: str) -> bool:
        job = self.jobs.get(f"model-{model_id}")
        return job is not None and objects.is_acknowledged(job)

    def trainer_says(self, model_id: str, status: ProcessingStatus, text: str) -> None:
        model = self.models[model_id]
        if model.status.may_start and model.moved_at > 1:
            model.raced = True  # the trainer takes a user's move for a Processing that was never acknowledged
        model.write(TRAINER, status, text)

    def excuse(self, model_id: str) -> None:
        self.models[model_id].excused = True

    def blur(self, model_id: str) -> None:
        self.models[model_id].unclear = True

    def check_stopped(self, job: Mapping[str, Any]) -> None:
        """A dispatcher deletes a Job: a training that runs only where its user has moved on."""
        model = self.models[objects.model_id_of(job)]
        moved = model.moved_at > self.notes[objects.uid_of(job)].model_version
        if objects.is_launched(job) and not objects.is_finished(job) and not moved and not model.status.is_terminal:
            raise Violation(f"{objects.name_of(job)} runs and is deleted, and nobody asked for that")

    def publish(self, model_id: str, begun: int) -> None:
        """begun: the portal's history when the pod was made; what was begun before the last move does not count."""
        if begun >= self.models[model_id].moved_at:
            self.models[model_id].published = True

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
        told = self.models[model_id].history[max(0, note.model_version - 1) :]
        attempted = self._put_attempts.get(model_id, -1) >= note.created_call
        if not attempted and not any(status is ProcessingStatus.PROCESSING for _, status, _ in told):
            raise Violation(f"a pod of model {model_id} exists before Processing was attempted")
        if note.model_version < self.models[model_id].moved_at:
            self.models[model_id].unclear = True
        self.trained[model_id].add(objects.uid_of(job))
        times, asked = len(self.trained[model_id]), self.models[model_id].asked
        if times > asked:
            raise Violation(f"model {model_id} trains {times} times and was asked for {asked} times")

    def check_let_go(self, job: Mapping[str, Any], what: str) -> None:
        """The finalizer goes, or the TTL comes: the outcome must have been told, or no longer be asked for."""
        model = self.models[objects.model_id_of(job)]
        since = model.history[self.notes[objects.uid_of(job)].model_version :]
        if not (model.status.is_terminal or any(s.is_terminal or who == USER for who, s, _ in since)):
            raise Violation(f"{objects.name_of(job)}: {what} before the portal has the outcome")

    def check_deletion(self, process: str, message: Message) -> None:
        try:
            model_id = json.loads(message.text)["model_container_name"].removeprefix("model-")
        except (ValueError, KeyError):
            model_id = ""
        poisoned = any(json.loads(entry)["message_id"] == message.id for entry in self.poison)
        model = self.models.get(model_id)
        refused = model is not None and process in model.seen and not model.seen[process][1].may_start
        beside = any(note.model_id == model_id for note in self.notes.values())
        if not (poisoned or message.id in self.launched or refused or beside):
            raise Violation(f"{message.id} was deleted without a Job, a refusal or a poison entry")

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

    def _true_statuses(self, model: Model) -> set[ProcessingStatus]:
        completed, failed = ProcessingStatus.COMPLETED, ProcessingStatus.FAILED
        if model.unclear and (model.published or model.excused):
            return {completed, failed}
        if model.published:
            return {completed}
        if model.requested:
            return {failed} if model.excused else set()
        last = next((status for author, status, _ in reversed(model.history) if author == USER), model.status)
        return {last}
