"""What the tests share: one Azurite, one stand-in portal, one stand-in cluster for each pytest-xdist worker.

Tests keep out of each other's way by names of their own (`queue_name`, `container_name`, `model_id`), not by
clearing. To wait for something: `local_stack.processes.wait_until(condition, timeout)`.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import responses

from local_stack.azurite import Azurite, AzuriteMissing
from local_stack.cluster.client import StandInCluster, start_cluster
from local_stack.portal.client import StandInPortal, start_portal
from tests.world import browser
from tests.world.dispatcher_process import SCRIPT_IMAGE, Stage

# As in the trainer's image, for this process and those it starts, before torch is imported: threads that spin while
# they wait take the cores from the tests beside.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# No law is about speed: this machine has other work, too.
hypothesis.settings.register_profile(
    "laws", deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("laws")

# Names of the images that the shared stand-in cluster has; any other name is an image pull error.
TRAINER_IMAGE = "trainer:local"
SHELL_IMAGE = "shell:local"


# Of a parameter's text in a test's name. Names go to each worker, back with each report, and into the environment of
# every process that a test starts: one of many megabytes, as a parameter that is too long on purpose, costs them all.
_LONGEST_NAME = 80


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Modules and tests stay to the end: each worker would look through a million objects again and again in vain."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest first: `make test` gives a worker a file at a time, and ends with the last of them."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A long text's beginning; pytest numbers names that are the same."""
    if not isinstance(val, str | bytes) or len(val) <= _LONGEST_NAME:
        return None
    return ascii(val[:_LONGEST_NAME])


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A running Azurite (queue, blob): `.connection_string`, `.blob_endpoint`, `.queue_endpoint`."""
    try:
        storage = Azurite(log=tmp_path_factory.mktemp("azurite") / "azurite.log").start()
    except AzuriteMissing as error:
        pytest.skip(str(error))
    yield storage
    storage.stop()


@pytest.fixture(scope="session")
def _portal_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInPortal]:
    with start_portal(tmp_path_factory.mktemp("portal"), "key-" + secrets.token_hex(8)) as portal:
        yield portal


@pytest.fixture
def portal(_portal_process: StandInPortal) -> Iterator[StandInPortal]:
    """The worker's stand-in portal, without faults and recorded calls of the test before."""
    _portal_process.clear_faults()
    _portal_process.clear_calls()
    yield _portal_process
    _portal_process.clear_faults()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInCluster]:
    """The worker's stand-in cluster: two GPUs, images `trainer:local` and `shell:local` (no entry point)."""
    if importlib.util.find_spec("local_stack.cluster") is None:
        pytest.skip("the stand-in cluster is not there")
    images = {TRAINER_IMAGE: ["python", "-m", "trainer_image"], SHELL_IMAGE: None}
    with start_cluster(tmp_path_factory.mktemp("cluster"), "--gpus", "2", images=images) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _stage_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInCluster]:
    quick = ("--job-backoff", "0.5", "--pull-backoff", "0.5", "--retry", "0.2")
    with start_cluster(
        tmp_path_factory.mktemp("stages"), "--gpus", "8", *quick, images={SCRIPT_IMAGE: None}
    ) as cluster:
        yield cluster


@pytest.fixture
def stage(tmp_path: Path, azurite: Azurite, portal: StandInPortal, _stage_cluster: StandInCluster) -> Iterator[Stage]:
    """Dispatcher processes of this test's own between Azurite, the stand-in portal and a stand-in cluster of 8 GPUs."""
    made = Stage(tmp_path, azurite, portal, _stage_cluster)
    yield made
    made.cluster.clear_faults()
    made.cluster.deny()
    made.stop()


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """A command that was run in the test's own process set the level: the next test hears warnings again."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    """A portal that answers as the test says; nothing leaves the process."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


# Not for the whole session: Playwright keeps an event loop in the thread, and the tests after it may want their own.
@pytest.fixture(scope="module")
def _chromium() -> Iterator[Any]:
    with browser.launched() as chromium:
        yield chromium


@pytest.fixture
def open_tab(_chromium: Any) -> Iterator[Callable[..., browser.Tab]]:
    """`open_tab(url, dark=False, width=1280, height=900)`: a page in Chromium, closed with the test."""
    with ExitStack() as tabs:

        def open_(url: str, *, dark: bool = False, width: int = 1280, height: int = 900) -> browser.Tab:
            return tabs.enter_context(browser.tab(_chromium, url, dark=dark, width=width, height=height))

        yield open_


@pytest.fixture
def model_id() -> str:
    """A model id that no other test uses."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def queue_name() -> str:
    """A queue name that no other test uses; nothing is created."""
    return f"q-{secrets.token_hex(6)}"


@pytest.fixture
def container_name(model_id: str) -> str:
    """The model container's name of `model_id`; nothing is created."""
    return f"model-{model_id}"


@pytest.fixture
def dataset_name() -> str:
    """A dataset container's name that no other test uses; nothing is created."""
    return f"dataset-{secrets.token_hex(6)}"
