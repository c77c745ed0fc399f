"""QUEUE_NAMES: two queues, two replicas. Each queue has its poison queue and its share; one training of one model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from dispatcher.cluster import names
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import QueuePair
from dispatcher.queue.poison import parse_entry
from local_stack.azurite import Azurite
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage


class Queues:
    """The stage's own queue is `normal`, one more is `urgent`."""

    def __init__(self, stage: Stage, azurite: Azurite) -> None:
        self.stage = stage
        self.urgent, self.normal = f"{stage.name}-urgent", stage.name
        self.pairs = {}
        for name in (self.urgent, self.normal):
            pair = [
                TrainingQueue(each, connection_string=azurite.connection_string) for each in (name, f"{name}-poison")
            ]
            for queue in pair:
                queue.create()
            self.pairs[name] = QueuePair(name, *pair)
        stage.settings |= {"QUEUE_NAME": "", "QUEUE_NAMES": f"{self.urgent},{self.normal}"}

    def send(self, name: str, kind: str, number: int = 1) -> list[str]:
        """New models, known to the portal, with a request each on this queue; their ids."""
        models = [f"{kind}-{name[-6:]}-{n}" for n in range(number)]
        for model in models:
            self.stage.portal.set_model(model, "Created")
            self.request(name, model)
        return models

    def request(self, name: str, model: str) -> None:
        text = json.dumps({"task": "train", "model_container_name": f"model-{model}"})
        self.pairs[name].requests.send(text)

    def jobs(self) -> Counter[str | None]:
        """Of each queue: Jobs by the label."""
        return Counter(objects.label(job, names.QUEUE) for job in self.stage.cluster.jobs(self.stage.namespace))

    def drained(self) -> bool:
        return not any(pair.requests.depth() for pair in self.pairs.values())


@pytest.fixture
def queues(stage: Stage, azurite: Azurite) -> Iterator[Queues]:
    return Queues(stage, azurite)


def test_a_flood_of_one_queue_leaves_room_for_the_other_with_two_replicas(queues: Queues) -> None:
    """Trainings that never end: what has no room waits, and the other queue's request starts at once."""
    stage = queues.stage
    stage.settings["MAX_ACTIVE_JOBS"] = "10"
    queues.send(queues.normal, "runs", 30)
    for _ in range(2):
        stage.start()
    stage.wait(lambda: queues.jobs()[queues.normal] >= 9)
    [urgent] = queues.send(queues.urgent, "runs")
    stage.wait(lambda: stage.job(urgent))
    # What a replica has received is not seen by the other before its Job is there.
    assert queues.jobs()[queues.normal] <= 2 * 9
    stage.wait(lambda: stage.metric("queue_active_jobs", queue=queues.urgent) == 1)
    assert stage.metric("queue_room_jobs", queue=queues.normal) == 0
    assert stage.metric("intake_paused", reason="full") in (0, 1)
    assert "waits: no more of its Jobs may be unfinished" in stage.log(0) + stage.log(1)


def test_the_same_model_in_two_queues_is_trained_once_by_two_replicas(queues: Queues) -> None:
    stage = queues.stage
    models = queues.send(queues.urgent, "done", 6)
    for model in models:
        queues.request(queues.normal, model)
    for _ in range(2):
        stage.start()
    for model in models:
        stage.wait_status(model, "Completed")
    stage.wait(queues.drained)
    launched = stage.log(0).count(": Job model-") + stage.log(1).count(": Job model-")
    assert launched >= len(models)
    assert sum(log.count(" launched") for log in (stage.log(0), stage.log(1))) == len(models)
    assert sum(queues.jobs().values()) == len(models)


def test_refused_messages_go_to_the_poison_queue_of_their_own_queue_and_back_to_it(queues: Queues) -> None:
    stage = queues.stage
    service = stage.start()
    for name, pair in queues.pairs.items():
        pair.requests.send(json.dumps({"task": f"no task of {name[-6:]}"}))
    stage.wait(lambda: all(pair.poison.depth() for pair in queues.pairs.values()))
    for name, pair in queues.pairs.items():
        [message] = pair.poison.peek()
        assert name[-6:] in parse_entry(message.text).original
    service.stop()

    code, out, _ = stage.cli("poison", "list", "--json")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert sorted((entry["queue"], entry["proven"]) for entry in found) == sorted((name, True) for name in queues.pairs)
    code, out, _ = stage.cli("poison", "list", "--queue", queues.urgent)
    assert out.splitlines()[-1] == f"1 entry in {queues.urgent}-poison"
    code, _, err = stage.cli("poison", "list", "--queue", "nobodys")
    assert (code, err) == (
        2,
        f"dispatcher: --queue nobodys is none of the queues here: {queues.urgent}, {queues.normal}\n",
    )
    assert stage.cli("poison", "requeue", "--all")[0] == 0
    for name, pair in queues.pairs.items():
        [back] = pair.requests.peek()
        assert name[-6:] in back.text
        assert pair.poison.depth() == 0


def test_one_queue_is_paused_until_it_is_resumed_and_the_other_goes_on(queues: Queues) -> None:
    stage = queues.stage
    code, said, err = stage.cli("pause", "--queue", queues.normal, "--reason", "too many")
    assert (code, f"The intake from queue {queues.normal} " in said) == (0, True), err
    stage.start()
    [held], [model] = queues.send(queues.normal, "done"), queues.send(queues.urgent, "done")
    stage.wait_status(model, "Completed")
    assert stage.job(held) is None
    assert stage.metric("queue_switched_off", queue=queues.normal) == 1
    assert stage.metric("queue_switched_off", queue=queues.urgent) == 0
    assert stage.metric("intake_paused", reason="operator") == 0
    ends = f"too many; `dispatcher resume --queue {queues.normal}` ends it"
    assert ends in stage.cli("check")[1]
    assert ends in stage.cli("explain", f"model-{held}")[1]
    assert f"Intake from queue {queues.normal} is paused since" in stage.log()
    assert stage.cli("pause", "--queue", "nobodys")[0] == 2

    assert ends in stage.cli("resume")[1], "that of all is another pause"
    code, said, err = stage.cli("resume", "--queue", queues.normal)
    assert (code, "it was paused since" in said) == (0, True), err
    stage.wait_status(held, "Completed")
    stage.wait(queues.drained)


def test_a_queue_that_is_missing_is_named_and_keeps_the_other_going_and_the_rollout_waiting(queues: Queues) -> None:
    stage = queues.stage
    stage.settings["QUEUE_NAMES"] = f"never-made,{queues.normal}"
    [model] = queues.send(queues.normal, "done")
    stage.start()
    stage.wait_status(model, "Completed")
    assert "Not ready, and a roll-out waits: no answer of the queue never-made since the start" in stage.log()
    assert "Intake from queue never-made pauses" in stage.log()
    assert stage.metric("queue_paused", queue="never-made") == 1
    assert stage.metric("queue_paused", queue=queues.normal) == 0
    assert stage.metric("queue_received_messages_total", queue=queues.normal) == 1
    code, out, _ = stage.cli("check")
    assert code == 1
    assert "FAIL queue never-made: Cannot ask queue never-made: it does not exist; create it" in out
    assert "FAIL queue never-made-poison" in out
    assert f"ok   queue {queues.normal}: " in out
    assert f"ok   queue {queues.normal}-poison: " in out


def test_commands_say_which_queue_and_send_again_to_the_one_it_came_from(queues: Queues) -> None:
    stage = queues.stage
    code, _, err = stage.cli("submit", "model-1", "--dataset", "dataset-1")
    assert (code, err) == (
        2,
        f"dispatcher: Say which queue, with --queue: {queues.urgent} or {queues.normal}. Nothing was sent\n",
    )
    stage.portal.set_model("invalid-1", "Created")
    assert stage.cli("submit", "model-invalid-1", "--queue", queues.normal)[0] == 0
    found = json.loads(stage.cli("status", "--json")[1])
    assert [(queue["name"], queue["about"]) for queue in found["queues"]] == [(queues.urgent, 0), (queues.normal, 1)]
    assert f"  queue:     {queues.normal}" in stage.cli("explain", "invalid-1")[1].splitlines()
    stage.start()
    stage.wait_status("invalid-1", "Failed")
    assert queues.jobs() == {queues.normal: 1}
    assert json.loads(stage.cli("list", "--json")[1])["ended"]["rows"][0]["queue"] == queues.normal
    stage.wait(queues.drained)
    stage.processes[-1].stop()

    stage.portal.set_model("invalid-1", "Reconfigure")
    assert stage.cli("retry", "model-invalid-1")[0] == 0
    assert [pair.requests.depth() for pair in queues.pairs.values()] == [0, 1]
    code, _, err = stage.cli("retry", "model-invalid-1", QUEUE_NAMES=f"{queues.urgent},another")
    assert code == 1
    assert f"came from queue {queues.normal}, which is not read here any more" in err
