"""instead: how long N messages wait on a quiet queue, and how late the portal learns that N trainings were killed"""

from __future__ import annotations

import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from local_stack.http_json import OPENER
from local_stack.processes import wait_until
from local_stack.stack import JOB_TEMPLATE, NAMESPACE, Stack, trainer_of

# Seconds between two messages. The queue need not have been quiet for long: both dispatchers always make the pause that
# an operator's make on a quiet queue, and where in it a message comes is left to chance.
_APART = (1.0, 3.0)
# Seconds for which a training runs before it is killed, so that each is alone: at least, and more for each of them.
_RUNS, _MORE = 5.0, 0.4
_IMAGE = "latency/killed:1"


def run(count: int, apart: tuple[float, float] = _APART) -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        waits = _of_messages(folder / "messages", count, apart)
        _print(f"message sent until its Job is resumed, {count} on a quiet queue with two dispatchers", waits)
        waits = _of_killed(folder / "killed", count)
        _print(f"container killed until the portal shows Failed, {count} without a retry", waits)


def _of_messages(folder: Path, count: int, apart: tuple[float, float]) -> list[float]:
    waits: list[float] = []
    with Stack(folder, gpus=0) as stack, stack.queue() as queue, _resumed_jobs(stack) as resumed:
        for name in ("one", "other"):
            _start_dispatcher(stack, name, POLL_MIN_SECONDS="1", POLL_MAX_SECONDS="1")
        for number in range(count):
            time.sleep(random.uniform(*apart))
            request = _request(stack, number)
            began = time.monotonic()
            queue.send_message(request)
            waits.append(next(at for name, at in resumed if name == f"model-{number}") - began)
    return waits


@contextmanager
def _resumed_jobs(stack: Stack) -> Iterator[Iterator[tuple[str, float]]]:
    """Name of each Job that is not suspended, and when it was seen: by a watch, since to ask costs it time."""
    path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs?watch=true"
    with OPENER.open(stack.cluster.url + path, timeout=60.0) as events:
        jobs = (json.loads(line)["object"] for line in events)
        yield ((job["metadata"]["name"], time.monotonic()) for job in jobs if not job["spec"]["suspend"])


def _start_dispatcher(stack: Stack, name: str, **settings: str) -> None:
    """With an operator's settings: the demo's are quicker."""
    stack.start_dispatcher(name=name, RESYNC_SECONDS="600", STATUS_PROGRESS_SECONDS="30", LOG_LEVEL="info", **settings)


def _request(stack: Stack, number: int) -> str:
    """A message for a new model, which the portal knows."""
    stack.portal.set_model(str(number), "Created")
    return json.dumps({"task": "train", "model_container_name": f"model-{number}"})


def _of_killed(folder: Path, count: int) -> list[float]:
    """Trainings that note the time and kill themselves, one after the other, where no further attempt is allowed."""
    folder.mkdir()
    ends = folder / "ends"
    template = yaml.safe_load(JOB_TEMPLATE.read_text(encoding="utf-8"))
    template["spec"]["backoffLimit"] = 0
    # Each model's number is the seconds that it waits for its turn.
    turn = f'n=${{MODEL_CONTAINER#model-}}; sleep $(awk "BEGIN {{print {_RUNS} + $n * {_MORE}}}")'
    end = f'echo "$n $(date +%s.%N)" >> {ends}; kill -KILL $$'
    trainer_of(template).update(image=_IMAGE, command=["sh", "-c", f"{turn}; {end}"])
    path = folder / "template.yaml"
    path.write_text(yaml.safe_dump(template), encoding="utf-8")
    with Stack(folder / "stack", gpus=count, template=path) as stack:
        _start_dispatcher(stack, "one")
        for number in range(count):
            stack.queue().send_message(_request(stack, number))

        def told() -> dict[str, float]:
            time.sleep(1.0)  # reading them costs the portal as much as some calls
            entries = {number: model.history[-1] for number, model in stack.portal.models().items()}
            return {number: entry.wall for number, entry in entries.items() if entry.status == "Failed"}

        shown = wait_until(lambda: found if len(found := told()) == count else None, 120 + 3 * count * _MORE)
    ended = dict(line.split() for line in ends.read_text(encoding="utf-8").splitlines())
    return [shown[number] - float(ended[number]) for number in shown]


def _print(what: str, waits: list[float]) -> None:
    waits.sort()
    last = waits[math.ceil(0.99 * len(waits)) - 1]
    print(f"{what}:")
    print(f"p50 {statistics.median(waits):.2f} s, p99 {last:.2f} s, longest {waits[-1]:.2f} s")
    print("all: " + " ".join(f"{seconds:.2f}" for seconds in waits), flush=True)
