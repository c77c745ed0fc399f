"""instead: how long N messages, one by one on a quiet queue with two dispatchers, wait until their Jobs are resumed"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from pathlib import Path

from local_stack.stack import NAMESPACE, Stack

# Seconds for which the queue is quiet before a message: after 15 the pauses are at their longest.
_QUIET = (15.0, 17.0)


def run(messages: int, quiet: tuple[float, float] = _QUIET) -> None:
    """Print the median, the longest and all that lies between."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), gpus=0) as stack:
        for name in ("one", "other"):
            stack.start_dispatcher(
                name=name, RESYNC_SECONDS="60", STATUS_PROGRESS_SECONDS="30", POLL_MAX_SECONDS="1", LOG_LEVEL="info"
            )
        waits = sorted(_wait(stack, number, random.uniform(*quiet)) for number in range(messages))
    print(f"message sent until its Job is resumed, {messages} on a quiet queue with two dispatchers:")
    print(f"median {statistics.median(waits):.2f} s, longest {waits[-1]:.2f} s")
    print("all: " + " ".join(f"{seconds:.2f}" for seconds in waits))


def _wait(stack: Stack, number: int, quiet: float) -> float:
    stack.portal.set_model(str(number), "Created")
    time.sleep(quiet)
    began = time.monotonic()
    stack.queue().send_message(json.dumps({"task": "train", "model_container_name": f"model-{number}"}))

    def resumed() -> bool:
        jobs = stack.cluster.jobs(NAMESPACE)
        return any(job["metadata"]["name"] == f"model-{number}" and not job["spec"]["suspend"] for job in jobs)

    while not resumed():
        time.sleep(0.01)
    return time.monotonic() - began
