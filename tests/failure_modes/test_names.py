"""Failure modes of names: what a model may be called, and what it must not smuggle in."""

from __future__ import annotations

import json
import re

import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.cluster import names
from dispatcher.launch.job_spec import JobDefaults, build_job
from dispatcher.launch.request import Bounds, MalformedRequest, decode
from portal_client.client import PortalClient
from portal_client.model_ids import InvalidContainerName, extract_model_id
from tests.world.builders import T0
from tests.world.simulated.dispatcher import TEMPLATE

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
IDS = st.from_regex(r"[a-z0-9](?:-?[a-z0-9]){0,56}", fullmatch=True).filter(lambda text: len(text) <= 57)


def job_of(model_id: str) -> dict[str, object]:
    request = decode(json.dumps({"task": "train", "model_container_name": f"model-{model_id}"}), Bounds(8, 600))
    return build_job(TEMPLATE, request, message_id="m", queued_at=T0, defaults=JobDefaults({}, 600))


@settings(max_examples=60, deadline=None)
@given(st.sets(IDS, min_size=2, max_size=6))
def test_f37_distinct_models_have_distinct_valid_names_for_jobs_and_pods(ids: set[str]) -> None:
    jobs = {model_id: job_of(model_id) for model_id in ids}
    found = {job["metadata"]["name"] for job in jobs.values()}  # type: ignore[index]
    assert len(found) == len(ids)
    assert all(LABEL.fullmatch(name) for name in found)
    for model_id, job in jobs.items():
        pod = job["spec"]["template"]["metadata"]  # type: ignore[index]
        # The Job controller makes the pod's name of the Job's first 58 characters and 5 at random; who it belongs to
        # is told by this label and by its owner's uid, never by its name.
        assert pod["labels"][names.MODEL_ID] == model_id
        assert LABEL.fullmatch(model_id)


@pytest.mark.parametrize("length", [57, 58])
def test_f37_the_longest_name_is_azures_and_one_more_is_refused(length: int) -> None:
    name = "model-" + "a" * length
    if length == 57:
        assert len(name) == 63
        assert extract_model_id(name) == "a" * 57
    else:
        with pytest.raises(InvalidContainerName, match="63"):
            extract_model_id(name)


TRICKS = [
    "model-1\n",
    "model-\u0661\u0662",
    "model-1_0",
    "model- 7 ",
    "model-../1",
    "model-1%2f..",
    "model-1?x=1",
    "model-1#x",
    "model-A",
    "model--1",
    "model-1-",
    "model-1--2",
    "model-",
    "model-" + "9" * 5000,
    "MODEL-1",
    "training-1",
]


@pytest.mark.parametrize("name", TRICKS, ids=ascii)
def test_f38_a_name_with_a_trick_is_refused_before_anything_is_done(name: str) -> None:
    with pytest.raises(InvalidContainerName):
        extract_model_id(name)
    with pytest.raises(MalformedRequest) as told:
        decode(json.dumps({"task": "train", "model_container_name": name}), Bounds(8, 600))
    assert told.value.code == "InvalidContainerName"


def test_f38_leading_zeros_are_another_model() -> None:
    assert (extract_model_id("model-007"), extract_model_id("model-7")) == ("007", "7")


@responses.activate
def test_f38_an_id_is_quoted_wherever_it_came_from() -> None:
    responses.add(responses.GET, re.compile(r".*"), json={"status": "Created", "message": ""})
    client = PortalClient("https://portal.example.com", "key-0123456789", "x-api-key")
    client.get_model_status("../x?y#z%2f")
    assert "/models/..%2Fx%3Fy%23z%252f/status" in (responses.calls[0].request.url or "")


@pytest.mark.parametrize("other", ["2", 2, "01", True, ["1"]])
def test_f38_fields_that_disagree_are_refused(other: object) -> None:
    body = {"task": "train", "model_container_name": "model-1", "model_id": other}
    with pytest.raises(MalformedRequest) as told:
        decode(json.dumps(body), Bounds(8, 600))
    assert told.value.code == "InvalidField"


@pytest.mark.parametrize("same", ["1", 1, None])
def test_f38_fields_that_agree_are_taken(same: object) -> None:
    body = {"task": "train", "model_container_name": "model-1", "model_id": same}
    assert decode(json.dumps(body), Bounds(8, 600)).model_id == "1"
