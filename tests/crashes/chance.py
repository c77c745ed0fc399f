"""Random worlds, schedules and accidents beyond the exhaustive depth. A seed makes the same run again."""

from __future__ import annotations

import random

from portal_client.statuses import ProcessingStatus
from tests.crashes import explore
from tests.crashes.players import Table
from tests.crashes.scenarios import Scenario
from tests.world import json_objects as objects
from tests.world.simulated.dispatcher import VISIBILITY, Parts, Process
from tests.world.simulated.faults import Crash, Fail, Late
from tests.world.simulated.world import World

S = ProcessingStatus
ENDS = ["complete", "complete-unreported", "invalid", "invalid-unreported", "killed", "retry", "preempted", "slow"]
LASTS = [*ENDS, "hang", "polite", "said-and-hangs"]
# Of a pod of a team, on its way to "part".
_FALLS = ["killed", "preempted", "invalid-unreported", "retry"]
TOGETHER = ["vanish", *(f"{act}@{when}" for act in _FALLS for when in ("whole", "training", "published")), *_FALLS]


def random_run(seed: int, parts: Parts | None = None) -> tuple[World, list[str]]:
    """One run; returns the world and what was done to it. Raises Finding, whose text has the seed."""
    rng = random.Random(seed)
    troubles: list[str] = []

    def run(world: World) -> None:
        _play(world, rng, troubles, parts, drips=seed % 5 == 0)

    try:
        scenario = _scenario(rng, scoped=seed % 4 == 2)
        if seed % 8 == 7:
            scenario = _on_several_nodes(scenario, seed)
        return explore.explored("random", scenario, f"seed {seed}", run), troubles
    except explore.Finding as finding:
        raise explore.Finding(f"{finding}\nwhat was done, by call: " + "; ".join(troubles)) from finding


def _scenario(rng: random.Random, *, scoped: bool) -> Scenario:
    def chance() -> World:
        models = [str(number) for number in range(1, rng.choice([1, 1, 2, 3]) + 1)]
        world = World({model: [*rng.sample(ENDS, rng.choice([0, 0, 1, 2])), rng.choice(LASTS)] for model in models})
        # A signature outlasts the longest time in which no dispatcher lives, as it does by a day on a real cluster.
        world.scoped, world.signed_for = scoped, 900.0
        world.lag = rng.choice([0.0, 0.0, 0.0, 20.0, 45.0])
        world.denied = rng.choice([0, 0, 0, 1, 3, 6])
        for model in models:
            if (beside := rng.choice(["", "", "", "ordinary", "native"])) != "":
                world.sidecars[model] = beside
            world.set_status(
                model, rng.choice([S.CREATED, S.CREATED, S.CREATED, S.RECONFIGURE, S.COMPLETED, S.PROCESSING])
            )
            for _ in range(rng.choice([1, 1, 1, 2])):
                world.enqueue(model)
        if rng.random() < 0.1:
            world.enqueue("-bad-")
        return world

    return chance


def _on_several_nodes(scenario: Scenario, seed: int) -> Scenario:
    """The same for teams; by chance of its own, so that each seed goes on to make the run that it has made."""

    def chance() -> World:
        world, rng = scenario(), random.Random(f"teams of {seed}")
        for model in world.trainers:
            world.nodes[model] = rng.choice([2, 2, 3])
            acts = rng.choices(["part", *TOGETHER], k=rng.choice([0, 2, 3, 4]))
            world.trainers[model] = [*acts, rng.choice(["part", "part", "part", "stay", "echo", "unplaced", "killed"])]
        return world

    return chance


def _play(world: World, rng: random.Random, troubles: list[str], parts: Parts | None, *, drips: bool) -> None:
    """drips: a portal that fails does so at the calls' deadlines."""
    faults_until = rng.choice([20, 40, 80, 160])
    rate = rng.choice([0.0, 0.02, 0.05, 0.08])
    people = rng.choice([0.0, 0.02, 0.05])
    pausing = rng.choice([0.0, 0.05, 0.2])
    bad_watch = rng.choice([0.0, 0.1, 0.3])
    fates = ["now", "drop", "double", "later"]

    def calm() -> bool:
        return len(world.calls) >= faults_until

    def disturb() -> str:
        return rng.choice(fates) if not calm() and rng.random() < bad_watch else "now"

    def note(what: str) -> None:
        troubles.append(f"{len(world.calls)}: {what}")

    def director(process: str, call: str, side: str) -> None:
        if calm():
            return
        if side == "before" and rng.random() < people:
            note(_people(world, rng))
        if rng.random() < rate:
            late = side == "before" and not explore.is_read(call) and rng.random() < 0.7
            fault: BaseException = _late(rng) if late else rng.choice([Crash(call), Fail(call), Fail(call)])
            note(f"{type(fault).__name__} {side} {call} of {process}")
            if drips and isinstance(fault, Fail) and call.startswith("portal."):
                explore.drip(world, process, call)
            raise fault

    world.director = director
    listing = rng.random() < 0.3
    with Table(world, lambda: Process(world, parts, None if listing else disturb)) as table:
        for _ in range(rng.choice([1, 2, 2, 3])):
            table.sit()
        while not calm():
            living = [player for player in table.players if not player.dead]
            if not living or (len(living) < 3 and rng.random() < 0.02):
                living = [table.sit()]
            player = rng.choice(living)
            if rng.random() < 0.02:
                player.process.watch_silent_until = world.now + 200
            if player.run(lambda call: rng.random() < pausing) != "call":
                world.advance(rng.choice([0, 5, 15, 30]))
            elif rng.random() < 0.03:
                world.advance(VISIBILITY + 10)
            if world.settled and rng.random() < 0.2:
                break
        world.director = table.passing  # no more faults
        table.finish()


def _late(rng: random.Random) -> Late:
    return Late(calls=rng.choice([1, 3, 6, 10**9]), seconds=rng.choice([10.0, 40.0, 55.0]), crash=rng.random() < 0.3)


def _people(world: World, rng: random.Random) -> str:
    model_id, model = rng.choice(list(world.models.items()))
    match rng.choice(["delete job", "delete pod", "ask again", "cancel"]):
        case "delete job":
            world.delete_job(f"model-{model_id}")
            return f"kubectl delete job model-{model_id}"
        case "delete pod":
            for pod in list(world.pods.values()):
                # A program that exits 0 on SIGTERM, deleted while nobody watches, leaves nothing but a Complete Job.
                polite = world.acts[objects.uid_of(pod)] == "polite"
                if objects.model_id_of(pod) == model_id and not objects.pod_is_over(pod) and not polite:
                    world.delete_pod(pod, by_hand=True)
            return f"kubectl delete pod of {model_id}"
        case "ask again" if not model.status.may_start and model.asked < 4:
            world.reconfigure(model_id)
            return f"{model_id} is asked for again"
        case "cancel" if model.status is S.PROCESSING:
            world.set_status(model_id, S.FAILED)
            return f"{model_id} is cancelled"
        case _:
            return "nothing"
