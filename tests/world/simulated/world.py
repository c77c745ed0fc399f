"""A world with real semantics and a virtual clock, in which the dispatcher's real stages run.

Every call of a dispatcher passes through `World.call`, where a director may crash the process, fail the call before or
after it took effect, keep it in flight until later, or let somebody else go first. What the world holds the
dispatchers to is in promises.py.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from dispatcher.web.server import Answer, Request
from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.simulated.faults import Crash, Fail, Late, Violation
from tests.world.simulated.kubernetes import Kubernetes
from tests.world.simulated.promises import USER, Promises
from tests.world.simulated.records import Message, Model

T = TypeVar("T")
EPOCH = 1_795_000_000.0
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


class World(Promises, Kubernetes):
    """All that survives a process. `trainers`: model id → what its pods do, attempt by attempt.

    scoped: trainings have credentials of their own.
    """

    step = 15.0  # seconds of `advance` between two rounds of the controllers

    def __init__(self, trainers: Mapping[str, list[str]] | None = None) -> None:
        super().__init__()
        self.scoped = False
        self.signed_for = 300.0  # seconds that a signature is good for at most: less than a training may take
        self.signing_key = "key-1"  # which a dispatcher reads when it starts
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
        self.relays: dict[str, Callable[[Request], Answer]] = {}  # by the process that serves it, the oldest first
        self.dead: set[str] = set()  # processes that died of what a training asked them
        self.lag = 0.0  # seconds by which the portal's answers are behind what was written
        self.denied = 0  # how many PUTs of Processing the portal does not take
        self.policy: dict[str, int] = {}  # model → how many creations of its Job a policy still denies
        self.away: tuple[str, ...] = ()  # calls that fail, by how their names begin, until `away_until`
        self.away_until = 0.0
        self._met: set[tuple[str, str]] = set()
        self._put_attempts: dict[str, int] = {}  # model → call number of the last attempt to PUT Processing
        self._numbers = itertools.count(1)

    # The portal's users, operators, and other accidents

    def enqueue(self, model_id: str, **fields: Any) -> str:
        message_id = f"message-{next(self._numbers)}"
        body = {"task": "train", "model_container_name": f"model-{model_id}", **fields}
        self.messages[message_id] = Message(message_id, json.dumps(body), self.now, self.now)
        self.sent.add(message_id)
        if (model := self.models.get(model_id)) is not None and model.status.may_start:
            model.requested = True
        return message_id

    def set_status(self, model_id: str, status: ProcessingStatus) -> None:
        model = self.models.setdefault(model_id, Model(status))
        model.write(USER, status, "", self.now)
        model.moved_at = model.version
        job = self.jobs.get(f"model-{model_id}")
        if (
            job is not None
            and model_id in self.nodes
            and not (objects.is_acknowledged(job) or objects.is_finished(job))
        ):
            model.raced = True  # node 1 has ended, the others have not, and the portal never acknowledged Processing
        model.published = model.requested = model.excused = model.refused = False
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
        if process in self.dead:  # of what a training asked it
            raise Crash(name)
        if name != "cluster.list":  # to die there is to die between two ticks
            self.calls.append((process, name))
        try:
            self.director(process, name, "before")
            self._land()
            if self.is_away and name.startswith(self.away):
                raise Fail("out of reach")
            result = action()
            self._plan()
            self.director(process, name, "after")
        except Crash:
            self._bury(process)
            raise
        except Fail as failure:
            raise fails(str(failure)) from None
        except Late as late:
            self.in_flight.append(_Flight(len(self.calls) + late.calls, self.now + late.seconds, action))
            if late.crash:
                self._bury(process)
                raise Crash(name) from None
            raise fails(str(late)) from None
        return result

    @property
    def is_away(self) -> bool:
        return bool(self.away) and self.now < self.away_until

    def _bury(self, process: str) -> None:
        self.dead.add(process)
        self.relays.pop(process, None)

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
            self.now = min(end, self.now + self.step)
            self._land()
            self.settle()
            self._plan()

    @property
    def pace(self) -> float:
        """Seconds between two ticks: fewer where only TTLs are waited for."""
        return 30.0 if self.messages or not all(map(objects.is_reported, self.jobs.values())) else 150.0

    def epoch(self) -> float:
        return EPOCH + self.now

    # The portal: the last writer wins

    def attempts_processing(self, model_id: str) -> None:
        self._put_attempts[model_id] = len(self.calls)

    def look(self, process: str, model_id: str) -> tuple[ProcessingStatus, str]:
        model = self.models[model_id]
        version, status, message = model.version, model.status, model.message
        if self.lag:
            version = model.version_at(self.now - self.lag)
            _, status, message = model.history[version - 1]
        model.seen[process] = (version, status)
        return status, message

    def put(
        self,
        process: str,
        seen: tuple[int, ProcessingStatus] | None,
        model_id: str,
        status: ProcessingStatus,
        text: str,
        author: str = "",
    ) -> None:
        """A PUT of a dispatcher that lands; seen: what its sender had read last when he sent it; author: for whom."""
        model = self.models[model_id]
        if seen is None:
            raise Violation(f"model {model_id}: {status.title} is sent by a process that never asked")
        if model.moved_at > seen[0] and model.status is not status:
            model.raced = True
        elif author == TRAINER and model.status.may_start and model.moved_at > 1:
            model.raced = True  # the trainer takes a user's move for a Processing that was never acknowledged
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
        model.write(author or process, status, text, self.now)
        if model.seen.get(process) == seen:
            model.seen[process] = (model.version, status)

    def _ended(self, model_id: str) -> bool:
        return all(objects.is_finished(job) for job in self.jobs.values() if objects.model_id_of(job) == model_id)

    def _acknowledged(self, model_id: str) -> bool:
        job = self.jobs.get(f"model-{model_id}")
        return job is not None and objects.is_acknowledged(job)

    def relayed(self, method: str, path: str, token: str, body: bytes = b"") -> Answer | None:
        """A training's call, by one of the dispatchers that serve; None: no answer came."""
        request = Request(path, method=method, target=path, headers={"x-api-key": [token]}, body=body)
        for route in list(self.relays.values())[:1]:
            with suppress(Crash):  # in the midst of its answer; the next call finds another one
                return route(request)
        return None

    def trainer_says(self, model_id: str, status: ProcessingStatus, text: str) -> None:
        model = self.models[model_id]
        if model.status.may_start and model.moved_at > 1:
            model.raced = True  # the trainer takes a user's move for a Processing that was never acknowledged
        model.write(TRAINER, status, text, self.now)

    def excuse(self, model_id: str) -> None:
        self.models[model_id].excused = True

    def blur(self, model_id: str) -> None:
        self.models[model_id].unclear = True

    def publish(self, model_id: str, begun: int) -> None:
        """begun: the portal's history when the pod was made; what was begun before the last move does not count."""
        if begun >= self.models[model_id].moved_at:
            self.models[model_id].published = True
