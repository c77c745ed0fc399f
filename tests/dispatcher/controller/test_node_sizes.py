"""controller.node_sizes: an optional right is used where it is there, seldom, and missed by nobody where it is not."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.cluster.errors import ClusterForbidden, ClusterUnavailable
from dispatcher.cluster.objects import Node, NodeStatus
from dispatcher.controller.node_sizes import NodeSizes
from tests.world.builders import FakeClock


class Nodes:
    """Allocatable of each; or the error that a list ends with."""

    def __init__(self, *found: dict[str, str]) -> None:
        self.found: Iterable[dict[str, str]] | Exception = found
        self.asked = 0

    def __call__(self) -> list[Node]:
        self.asked += 1
        if isinstance(self.found, Exception):
            raise self.found
        return [Node(status=NodeStatus(allocatable=each)) for each in self.found]


def test_the_largest_is_told_for_each_resource_and_listed_once_in_ten_minutes() -> None:
    nodes, clock = Nodes({"nvidia.com/gpu": "4", "memory": "64Gi"}, {"nvidia.com/gpu": "8"}, {}), FakeClock()
    sizes = NodeSizes(nodes, clock)
    for _ in range(3):
        assert sizes.largest()["nvidia.com/gpu"] == 8
    assert nodes.asked == 1
    nodes.found = [{"nvidia.com/gpu": "16"}]
    clock.advance(600)
    assert sizes.largest() == {"nvidia.com/gpu": 16}


def test_without_the_right_nothing_is_known_and_it_is_seldom_asked_for() -> None:
    nodes, clock = Nodes(), FakeClock()
    nodes.found = ClusterForbidden("may not list nodes")
    sizes = NodeSizes(nodes, clock)
    for _ in range(6):
        assert sizes.largest() == {}
        clock.advance(590)
    assert nodes.asked == 1
    nodes.found = ClusterUnavailable("no answer")
    clock.advance(100)
    assert sizes.largest() == {}
    nodes.found = [{"nvidia.com/gpu": "8"}]
    clock.advance(600)
    assert sizes.largest() == {"nvidia.com/gpu": 8}, "an outage is over soon"
