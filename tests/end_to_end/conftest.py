"""One whole house for the end-to-end tests: Azurite, stand-in portal, stand-in cluster, dispatcher, real trainings.

The demo's requests are sent once, at the start, and each test waits for what it is about.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator

import pytest
import yaml
from house import House

from local_stack.azurite import AzuriteMissing, install
from local_stack.demo import run
from local_stack.demo.requests import REQUESTS, Outcome
from local_stack.demo.watch import Watch
from local_stack.stack import Stack, trainer_of

PARTS = ("local_stack.portal.__main__", "local_stack.cluster", "dispatcher.__main__", "trainer_image.__main__")


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Everything started, the demo's requests sent, the duplicate while the first one runs."""
    for part in PARTS:
        if importlib.util.find_spec(part) is None:
            pytest.skip(f"{part} is not there")
    try:
        install()
    except AzuriteMissing as error:
        pytest.skip(str(error))
    with Stack(tmp_path_factory.mktemp("house")) as stack:
        _allow_teams_of_programs(stack)
        run.prepare(stack, REQUESTS)
        house = House(stack, stack.start_dispatcher(), Watch(stack, REQUESTS))
        for request in REQUESTS:
            if (first := request.after) is not None:
                house.wait(
                    lambda seen, first=first: seen.requests[first].job in ("running", "succeeded"),  # type: ignore[misc]
                    f"{first} to run",
                )
            stack.queue().send_message(request.message)
            house.watch.sent[request.name] = time.time()
        yield house


def _allow_teams_of_programs(stack: Stack) -> None:
    stack.settings["MAX_NODES"] = "2"
    template = yaml.safe_load(stack.job_template.read_text(encoding="utf-8"))
    trainer_of(template)["env"].append({"name": "ALLOW_COMMAND", "value": "on"})
    stack.job_template.write_text(yaml.safe_dump(template, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="session")
def settled(house: House) -> dict[str, Outcome]:
    """What became of each of the demo's requests, when nothing more was to come."""
    return house.watch.outcomes(house.wait(house.watch.settled, "all requests to come to rest"))
