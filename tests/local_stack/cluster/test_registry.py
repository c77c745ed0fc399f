"""Patches, selectors and quantities: the pure parts of the stand-in that many tests rely on."""

from __future__ import annotations

from typing import Any

import pytest

from local_stack.cluster.registry.errors import ApiError
from local_stack.cluster.registry.patches import json_patch, merge_patch, strategic_patch
from local_stack.cluster.registry.quantities import pod_requests, quantity
from local_stack.cluster.registry.resources import JOBS
from local_stack.cluster.registry.selectors import field_matcher, label_matcher

_ENV = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}


@pytest.mark.parametrize(
    ("target", "patch", "wanted"),
    [
        (_ENV, {"env": [{"name": "B", "value": "3"}]}, [("A", "1"), ("B", "3")]),
        (_ENV, {"env": [{"name": "C", "value": "3"}]}, [("A", "1"), ("B", "2"), ("C", "3")]),
        (_ENV, {"env": [{"name": "A", "$patch": "delete"}]}, [("B", "2")]),
        (_ENV, {"env": [{"$patch": "replace"}, {"name": "Z", "value": "9"}]}, [("Z", "9")]),
        (
            _ENV,
            {"$setElementOrder/env": [{"name": "A"}], "env": [{"name": "A", "value": "5"}]},
            [("A", "5"), ("B", "2")],
        ),
    ],
)
def test_lists_with_a_merge_key_merge_by_it(target: Any, patch: Any, wanted: list[tuple[str, str]]) -> None:
    merged = strategic_patch(target, patch)
    assert [(entry["name"], entry["value"]) for entry in merged["env"]] == wanted
    assert len(target["env"]) == 2, "the original must stay as it was"


def test_lists_without_a_merge_key_are_replaced() -> None:
    assert strategic_patch({"args": ["a", "b"]}, {"args": ["c"]}) == {"args": ["c"]}


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [
        ({"spec": {"$patch": "replace", "a": 9}}, {"spec": {"a": 9}}),
        ({"spec": {"$patch": "delete"}}, {"spec": {}}),
        ({"spec": {"$retainKeys": ["b", "c"], "c": 3}}, {"spec": {"b": 2, "c": 3}}),
    ],
)
def test_directives_of_a_strategic_patch_are_followed_and_never_stored(patch: Any, wanted: Any) -> None:
    assert strategic_patch({"spec": {"a": 1, "b": 2}}, patch) == wanted


@pytest.mark.parametrize(("succeeded", "found"), [(None, True), (1, False)])
def test_jobs_are_selected_by_how_many_of_their_pods_succeeded(succeeded: int | None, found: bool) -> None:
    matches = field_matcher(JOBS, "status.successful=0")
    assert matches is not None
    status = {} if succeeded is None else {"succeeded": succeeded}
    assert matches({"metadata": {"name": "a"}, "status": status}) is found


def test_finalizers_are_added_and_removed_one_by_one() -> None:
    added = strategic_patch({"finalizers": ["a/b"]}, {"finalizers": ["c/d", "a/b"]})
    assert added == {"finalizers": ["a/b", "c/d"]}
    assert strategic_patch(added, {"$deleteFromPrimitiveList/finalizers": ["a/b", "c/d"]}) == {}


def test_a_merge_patch_removes_with_null_also_where_nothing_was() -> None:
    assert merge_patch({"a": {"b": 1, "c": 2}}, {"a": {"b": None}, "d": {"e": None}}) == {"a": {"c": 2}, "d": {}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "unknown", "path": "/a"},
    ],
)
def test_a_json_patch_that_cannot_be_applied_is_a_422(operation: dict[str, Any]) -> None:
    document = {"a": 1, "list": []}
    with pytest.raises(ApiError) as caught:
        json_patch(document, [operation])
    assert caught.value.code == 422
    assert document == {"a": 1, "list": []}


def test_a_json_patch_moves_copies_and_appends() -> None:
    operations = [
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "copy", "from": "/list/0", "path": "/first"},
        {"op": "move", "from": "/a", "path": "/b~1c"},
    ]
    assert json_patch({"a": 1, "list": [2]}, operations) == {"list": [2, 3], "first": 2, "b/c": 1}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("a=1", True),
        ("a==1,b!=3", True),
        ("a in (1, 2),!c", True),
        ("a notin (1)", False),
        ("c", False),
        ("c!=1", True),
    ],
)
def test_label_selectors_choose(selector: str, matches: bool) -> None:
    found = label_matcher(selector)
    obj = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    assert (found is None or found(obj)) is matches


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("500m", 0.5), ("24Mi", 24 * 1024**2), ("1.5Gi", 1.5 * 1024**3), ("2k", 2000), ("1e3", 1000)],
)
def test_quantities_are_numbers(text: str, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1GiB", "one"])
def test_what_is_no_quantity_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.*$"):
        quantity(text)


def test_a_pods_requests_are_the_sum_or_the_largest_init_container() -> None:
    def container(amount: str) -> dict[str, Any]:
        return {"resources": {"limits": {"nvidia.com/gpu": amount}}}

    spec = {"containers": [container("1"), container("2")], "initContainers": [container("5")]}
    assert pod_requests(spec) == {"nvidia.com/gpu": 5.0}
