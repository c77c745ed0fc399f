"""One dispatcher process in the world: the real stages on fake ports, with nothing of its own that outlives it."""

from __future__ import annotations

import itertools
from pathlib import Path

from dispatcher import names
from dispatcher.gate import Gate
from dispatcher.intake import Intake
from dispatcher.job_spec import JobDefaults, load_template
from dispatcher.kubernetes_jobs import ClusterError
from dispatcher.launcher import Launcher
from dispatcher.locks import ModelLocks
from dispatcher.metrics import Metrics
from dispatcher.reconciler import Reconciler
from dispatcher.reporter import Reporter
from dispatcher.training_request import Bounds
from dispatcher.view import ClusterView
from dispatcher.waiting import Limits
from dispatcher.workqueue import WorkQueue
from portal_client.errors import PortalError
from tests.crashes.world import Crash, FakeCluster, FakePortal, FakeQueue, VirtualEvent, World

VISIBILITY = 100.0
TEMPLATE = load_template(
    Path(__file__).parents[2].joinpath("manifests/base/job-template.yaml").read_text(), image="trainer:1"
)
_numbers = itertools.count(1)


class Process:
    """Build it to start it; drop it to kill it."""

    def __init__(self, world: World, name: str = "") -> None:
        self.world = world
        self.name = name or f"dispatcher-{next(_numbers)}"
        self.cluster = FakeCluster(world, self.name)
        portal = FakePortal(world, self.name)
        metrics = Metrics()
        locks = ModelLocks()
        stopping = VirtualEvent(world)

        def monotonic() -> float:
            return world.now

        self.work = WorkQueue(clock=monotonic)
        self.view = ClusterView(lambda key: None, clock=monotonic)
        self.launcher = Launcher(
            self.cluster,
            portal,
            TEMPLATE,
            JobDefaults({}, 3600),
            put_budget=VISIBILITY * 0.4,
            stopping=stopping,
            clock=world.epoch,
        )
        self.reporter = Reporter(self.cluster, portal, metrics, ttl=120, clock=world.epoch)
        self.reconciler = Reconciler(
            self.work,
            self.view,
            self.cluster,
            self.launcher,
            self.reporter,
            locks,
            limits=Limits(600, 300, 3600, 300, 3600),
            progress_every=30,
            take_on_after=VISIBILITY * 1.5,
            clock=world.epoch,
            monotonic=monotonic,
        )
        self.intake = Intake(
            FakeQueue(world, self.name),
            FakeQueue(world, self.name),
            self.launcher,
            locks,
            Gate(30, clock=monotonic),
            metrics,
            bounds=Bounds(8, 3600),
            free_slots=lambda: 1000,
            visibility_timeout=VISIBILITY,
            concurrency=4,
            max_deliveries=5,
            poll_min=1,
            poll_max=1,
            shutdown_grace=1,
            probe=lambda model_id: lambda: portal.get_model_status(model_id),
            stopping=stopping,
        )

    def tick(self) -> None:
        """What the loops do when each has its turn: list, receive a batch, look at every Job. May raise Crash."""
        try:
            self.refresh()
        except ClusterError:
            return
        self.intake.once()
        try:
            self.refresh()
        except ClusterError:
            return
        for name in self.view.names():
            try:
                self.reconciler.reconcile(name)
            except (PortalError, ClusterError):
                continue

    def refresh(self) -> None:
        self.view.replace("jobs", self.cluster.list_jobs(names.SELECTOR).items)
        self.view.replace("pods", self.cluster.list_pods(names.SELECTOR).items)


def run_until_settled(world: World, process: Process, most: int = 60) -> None:
    """Tick without faults until every message is consumed and every Job reported and gone."""
    for _ in range(most):
        process.tick()
        world.advance(30)
        if not world.messages and not world.jobs:
            return
    raise AssertionError(f"not settled: messages {list(world.messages)}, jobs {list(world.jobs.values())}")


__all__ = ["Crash", "Process", "World", "run_until_settled"]
