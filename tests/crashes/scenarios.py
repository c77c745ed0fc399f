"""Small worlds to break: who asks for what, and what the trainers do."""

from __future__ import annotations

import functools
from collections.abc import Callable

from portal_client.statuses import ProcessingStatus
from tests.world import json_objects as objects
from tests.world.simulated.world import World

S = ProcessingStatus
Scenario = Callable[[], World]


def _world(scripts: dict[str, list[str]], **statuses: ProcessingStatus) -> World:
    world = World(scripts)
    for model, status in statuses.items():
        world.set_status(model.removeprefix("m"), status)
    return world


def _one(script: list[str], status: ProcessingStatus = S.CREATED) -> World:
    world = _world({"1": script}, m1=status)
    world.enqueue("1")
    return world


def completes() -> World:
    return _one(["complete"])


def completes_unreported() -> World:
    """Retried once, and its last word reaches nobody but Kubernetes."""
    return _one(["killed", "complete-unreported"], S.RECONFIGURE)


def fails() -> World:
    return _one(["killed"])


def invalid() -> World:
    return _one(["invalid"])


def invalid_unreported() -> World:
    return _one(["invalid-unreported"])


def hangs() -> World:
    """Until its deadline."""
    return _one(["hang"])


def preempted() -> World:
    return _one(["preempted", "retry", "complete"])


def polite() -> World:
    """Exits 0 on SIGTERM, which comes with its deadline or a deletion."""
    return _one(["polite"])


def said_and_hangs() -> World:
    """Published and said so, and then killed by its deadline."""
    return _one(["said-and-hangs"])


def slow() -> World:
    return _one(["slow"])


def twice() -> World:
    world = _one(["complete"])
    world.enqueue("1")
    return world


def twice_slow() -> World:
    world = _one(["slow"])
    world.enqueue("1")
    return world


def twice_apart() -> World:
    """The second message comes while the first is being handled."""
    world = _one(["slow"])
    world.when(lambda: len(world.calls) > 1, lambda: _second(world))
    return world


def _second(world: World) -> None:
    world.enqueue("1")


def mixed() -> World:
    world = _world({"1": ["complete"], "2": ["invalid"]}, m1=S.CREATED, m2=S.CREATED, m3=S.COMPLETED, m4=S.PROCESSING)
    for model in ("1", "2", "3", "4", "-bad-"):
        world.enqueue(model)
    return world


def again() -> World:
    """A user asks for a new training as soon as the first has failed."""
    world = _one(["invalid-unreported", "complete"])
    world.when(lambda: world.models["1"].status is S.FAILED, lambda: world.reconfigure("1"))
    return world


def again_unacknowledged() -> World:
    """The same, and the portal took no Processing at first."""
    world = again()
    world.denied = 3
    return world


def again_while_running() -> World:
    """A user asks for a new training while the first runs."""
    world = _one(["hang", "complete-unreported"])
    world.when(lambda: bool(world.pods) and world.models["1"].status is S.PROCESSING, lambda: world.reconfigure("1"))
    return world


def cancelled() -> World:
    """A user moves the model away from Processing."""
    world = _one(["hang"])
    world.when(
        lambda: bool(world.pods) and world.models["1"].status is S.PROCESSING,
        lambda: world.set_status("1", S.FAILED),
    )
    return world


def denied() -> World:
    """A policy denies its Job, whoever asks and however often."""
    world = _one(["complete"])
    world.policy["1"] = 10**9
    return world


def denied_twice() -> World:
    """The same, and two messages."""
    world = denied()
    world.enqueue("1")
    return world


def denied_at_first() -> World:
    """The policy is corrected before the message has used up its attempts."""
    world = _one(["complete"])
    world.policy["1"] = 3
    return world


def scoped(scenario: Scenario, seconds: float = 300.0) -> Scenario:
    """The same with credentials for each training alone, which are good for so long."""

    @functools.wraps(scenario)
    def made() -> World:
        world = scenario()
        world.scoped, world.signed_for = True, seconds
        return world

    return made


def lies() -> World:
    """It says that it has failed after it has told that it is Completed, and the same of a model of somebody else's."""
    world = _world({"1": ["lies"]}, m1=S.CREATED, m2=S.CREATED)
    world.enqueue("1")
    return world


def _beside(script: list[str], sidecar: str) -> World:
    world = _one(script)
    world.sidecars["1"] = sidecar
    return world


def sidecar_goes_on() -> World:
    """Two trainers that end while another container keeps the pod; their last words reach nobody but Kubernetes."""
    return _beside(["retry", "complete-unreported"], "ordinary")


def sidecar_outlives_invalid() -> World:
    return _beside(["invalid-unreported"], "ordinary")


def sidecars_pod_deleted() -> World:
    """Somebody deletes the pod that its sidecar keeps, though its trainer has published."""
    world = _beside(["complete-unreported"], "ordinary")
    world.when(lambda: _trainer_ended(world), lambda: world.delete_pod(next(iter(world.pods.values())), by_hand=True))
    return world


def _trainer_ended(world: World) -> bool:
    return any("terminated" in objects.trainer_state(pod) for pod in world.pods.values())


def native_sidecar() -> World:
    return _beside(["killed", "complete-unreported"], "native")


def _away(*calls: str) -> World:
    world = _world({"1": ["complete"], "2": ["complete"]}, m1=S.CREATED, m2=S.CREATED)
    world.away, world.away_until = calls, world.now + 150
    for model in ("1", "2"):
        world.enqueue(model)
    return world


def portal_away() -> World:
    """At the start, for longer than a message stays hidden."""
    return _away("portal.")


def no_room_for_jobs() -> World:
    """Everything answers, and no Job can be made: its creation fails, and the dry run that tries it."""
    return _away("cluster.create", "cluster.dry-run")


def next_attempt_waits() -> World:
    """For a GPU, after the first one has failed."""
    world = _one(["retry", "complete-unreported"])
    world.no_gpu["1"] = 120.0
    return world


def _lagging(world: World) -> World:
    """The portal answers from a replica that is behind."""
    world.lag = 45.0
    return world


def again_behind() -> World:
    """Just after a user has asked anew, the portal still shows the end of the training before."""
    return _lagging(again())


def _team(*acts: str, nodes: int = 2) -> World:
    """On several nodes. acts: of the pods in the order in which they are made; the last one's of all that follow."""
    world = _one(list(acts))
    world.nodes["1"] = nodes
    return world


def team() -> World:
    return _team("part")


def team_loses_a_node_before_it_meets() -> World:
    return _team("part", "killed", "part")


def team_loses_a_node_when_it_meets() -> World:
    return _team("part", "preempted@whole", "part")


def team_loses_a_node_in_training() -> World:
    return _team("part", "part", "killed@training", "part", nodes=3)


def team_loses_node_1_in_training() -> World:
    return _team("preempted@training", "part")


def team_loses_a_node_at_publication() -> World:
    return _team("part", "killed@published", "part")


def team_loses_node_1_at_publication() -> World:
    """It has published, and told nobody."""
    return _team("vanish", "part")


def team_outlives_node_1() -> World:
    """The same, and no other pod of node 1 gets to tell it: what node 2 says is not node 1's word."""
    return _team("vanish", "part", "killed")


def team_outlived() -> World:
    """A node that goes on although node 1 has published and gone."""
    return _team("part", "stay")


def team_sidecars() -> World:
    """Beside which another container goes on; one of the trainers fails once."""
    world = _team("part", "retry@training", "part")
    world.sidecars["1"] = "ordinary"
    return world


def team_invalid() -> World:
    return _team("echo", "invalid-unreported@whole", "part", nodes=3)


def team_fails() -> World:
    """In one incident: node 1 does not stay for the next of its peer."""
    return _team("echo", "killed@whole", "part")


def team_fails_twice() -> World:
    return _team("wait@never", "killed")


def team_waits_for_its_operator() -> World:
    """Who has forgotten a right of the Role."""
    world = _team("part")
    world.networks_from = 150.0
    return world


def team_never_whole() -> World:
    return _team("part", "unplaced")


_KILLED = r"the training process was killed from outside [^.]*{}\. Set the model .* a larger memory limit"
_KILLED_ONCE, _KILLED_TWICE = _KILLED.format("the usual one"), _KILLED.format(r" \(after 2 attempts\)")
# Training on several nodes → what the portal is told in the end, where nothing else happens (a pattern).
TEAMS: dict[Scenario, tuple[ProcessingStatus, str]] = {
    team: (S.COMPLETED, ".*"),
    team_loses_a_node_before_it_meets: (S.COMPLETED, ".*"),
    team_loses_a_node_when_it_meets: (S.COMPLETED, ".*"),
    team_loses_a_node_in_training: (S.COMPLETED, ".*"),
    team_loses_node_1_in_training: (S.COMPLETED, ".*"),
    team_loses_a_node_at_publication: (S.COMPLETED, ".*"),
    team_loses_node_1_at_publication: (S.COMPLETED, ".*"),
    team_outlives_node_1: (S.FAILED, rf"node 1 of 2 \(gpu-1\): {_KILLED_TWICE}"),
    team_outlived: (S.COMPLETED, ".*"),
    team_sidecars: (S.COMPLETED, ".*"),
    team_invalid: (S.FAILED, r"node 2 of 3 \(gpu-2\): Invalid dataset: train\.csv: empty\. To train it again, set .*"),
    team_fails: (S.FAILED, rf"node 2 of 2 \(gpu-2\): {_KILLED_ONCE}"),
    team_fails_twice: (S.FAILED, rf"node 2 of 2 \(gpu-2\): {_KILLED_TWICE}"),
    team_waits_for_its_operator: (S.COMPLETED, ".*"),
    team_never_whole: (S.FAILED, "1 of 2 pods held a node for 150 seconds .*; node 2 of 2: waiting for a GPU: .*"),
}
SINGLE: list[Scenario] = [
    completes,
    completes_unreported,
    fails,
    invalid,
    invalid_unreported,
    hangs,
    preempted,
    polite,
    said_and_hangs,
    slow,
    twice,
    twice_slow,
    twice_apart,
    mixed,
    again,
    again_unacknowledged,
    again_while_running,
    cancelled,
    denied,
    denied_twice,
    denied_at_first,
    again_behind,
    sidecar_goes_on,
    sidecar_outlives_invalid,
    sidecars_pod_deleted,
    native_sidecar,
    next_attempt_waits,
]
# Circuit breakers open in them, try what had failed, and close.
OUTAGES: list[Scenario] = [portal_away, no_room_for_jobs]
# Those in which a Secret is made, made for the next training of the same name, and renewed.
SCOPED: list[Scenario] = [
    scoped(each) for each in (completes, completes_unreported, hangs, twice_apart, again, cancelled, lies)
]
SMALL: list[Scenario] = [completes, invalid_unreported, twice_apart]
