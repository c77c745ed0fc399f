"""Options and fixtures: `pytest tests/contracts --kubeconfig FILE --namespace NS --image IMAGE` for a real cluster."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_stack.cluster.client import StandInCluster, start_cluster
from tests.world.kube import Kube


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contracts", "the cluster that the contracts are held against; none: the stand-in")
    group.addoption("--kubeconfig", help="kubeconfig of a real cluster")
    group.addoption("--namespace", default="default", help="an existing namespace of it, for this run's objects")
    group.addoption("--image", default="busybox:1.36", help="an image with sh and sleep that its nodes can pull")


def _option(config: pytest.Config, name: str, default: str | None = None) -> str | None:
    # Plain `pytest` loads this file too late for its options to be registered.
    value: str | None = config.getoption(name, default=default)
    return value


@pytest.fixture(scope="session")
def _stand_in(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StandInCluster | None]:
    if _option(request.config, "--kubeconfig"):
        yield None
        return
    quick = ("--job-backoff", "0.5", "--pull-backoff", "0.3", "--retry", "0.2", "--crash-backoff", "0.2")
    folder = tmp_path_factory.mktemp("contracts")
    with start_cluster(folder, "--gpus", "8", "--namespace", "contracts", *quick, images={"busybox:1.36": None}) as it:
        yield it


@pytest.fixture(scope="session")
def kube(request: pytest.FixtureRequest, _stand_in: StandInCluster | None) -> Kube:
    """The cluster under test, by its plain API."""
    if _stand_in is not None:
        return Kube(_stand_in.kubeconfig, "contracts", "busybox:1.36")
    kubeconfig = _option(request.config, "--kubeconfig")
    assert kubeconfig
    namespace = _option(request.config, "--namespace", "default") or "default"
    return Kube(Path(kubeconfig), namespace, _option(request.config, "--image") or "busybox:1.36")


@pytest.fixture
def stand_in(_stand_in: StandInCluster | None) -> Iterator[StandInCluster]:
    """The stand-in's faults; a test that needs them is skipped on a real cluster."""
    if _stand_in is None:
        pytest.skip("only the stand-in can be told to do this")
    yield _stand_in
    _stand_in.clear_faults()
    _stand_in.deny()


@pytest.fixture
def job(kube: Kube) -> Iterator[Callable[[], str]]:
    """Names for Jobs; what was created under them is gone after the test."""
    names: list[str] = []

    def new() -> str:
        names.append(f"model-{kube.run}{secrets.token_hex(3)}")
        return names[-1]

    yield new
    for name in names:
        kube.clear(name)
