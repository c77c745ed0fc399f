"""`dispatcher check --portal`: how a portal differs from docs/portal.md is said, and the model can be walked again."""

from __future__ import annotations

import secrets

import pytest
import yaml
from jsonschema import ValidationError, validate

from dispatcher.cli.checks.portal_walk import PortalWalk
from local_stack.portal.client import StandInPortal
from portal_client.client import PortalClient
from portal_client.errors import PortalUnavailable
from portal_client.model_ids import MAX_LENGTH, MODEL_PREFIX, extract_model_id
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.world.repository import read

STEPS = [
    "status before",
    "a model that is not there",
    "a wrong key",
    "Processing",
    "progress",
    "Failed",
    "the same outcome once more",
    "a long sentence with signs",
    "Reconfigure",
]


def walk_of(portal: StandInPortal, model: str, lag: float = 60.0) -> PortalWalk:
    """Its time passes in its pauses alone."""
    passed = [0.0]

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    asking, stranger = (PortalClient(portal.url, key) for key in (portal.api_key, "wrong-key-0123456789"))
    return PortalWalk(asking, stranger, model, "no-such-model", lag, lambda: passed[0], sleep)


def walked(portal: StandInPortal, model: str, lag: float = 60.0) -> dict[str, tuple[str, str]]:
    """Name → result and sentence of each step, and of what is left."""
    walk = walk_of(portal, model, lag)
    found = {result.name: (result.result, result.sentence) for result in walk.results()}
    if (left := walk.leave()) is not None:
        found[left.name] = left.result, left.sentence
    return found


@pytest.fixture
def model(portal: StandInPortal) -> str:
    name = secrets.token_hex(4)
    portal.set_model(name)
    return name


def test_a_portal_as_documented_passes_every_step_twice(portal: StandInPortal, model: str) -> None:
    for _ in range(2):
        found = walked(portal, model)
        assert list(found) == STEPS
        assert {result for result, _ in found.values()} == {"ok"}
        assert portal.status(model)[0] == "Reconfigure"
    shown = [entry.status for entry in portal.model(model).history]
    assert shown[:6] == ["Created", "Processing", "Processing", "Failed", "Failed", "Failed"]


@pytest.mark.parametrize("status", ["Processing", "Completed", "Failed"])
def test_a_model_that_somebody_uses_is_not_touched(portal: StandInPortal, model: str, status: str) -> None:
    portal.set_model(model, status)
    found = walked(portal, model)
    assert list(found) == STEPS[:1]
    assert found["status before"][0] == "failed"
    assert f"is {status}" in found["status before"][1]
    assert portal.calls(method="PUT") == []


@pytest.mark.parametrize(
    ("fault", "step", "result", "words"),
    [
        ({"kind": "denied", "method": "PUT", "count": 1}, "Processing", "failed", "Created is still shown after 60 s"),
        ({"kind": "status", "status": 403, "method": "PUT", "count": None}, "Processing", "failed", "403"),
        ({"kind": "longer", "status": 400, "most": 500, "count": None}, STEPS[7], "warning", "in fewer and plainer"),
        ({"kind": "login", "method": "GET", "model": "no-such-model", "count": None}, STEPS[1], "failed", "login"),
    ],
    ids=["success that is none", "read only", "narrow column", "login"],
)
def test_what_the_portal_does_otherwise_is_said(
    portal: StandInPortal, model: str, fault: dict[str, object], step: str, result: str, words: str
) -> None:
    portal.add_fault(**fault)  # type: ignore[arg-type]
    found = walked(portal, model)
    assert found[step][0] == result, found
    assert words in found[step][1]
    if result == "failed":
        assert list(found)[: STEPS.index(step) + 1] == STEPS[: STEPS.index(step) + 1]
        assert STEPS[-1] not in found, "it ends there"


def test_a_status_that_is_shown_late_is_waited_for(portal: StandInPortal, model: str) -> None:
    portal.add_fault("stale", seconds=3600.0, model=model, count=4)  # the first looks after Processing
    assert {result for result, _ in walked(portal, model).values()} == {"ok"}


def test_answers_that_alternate_are_remarked_on(portal: StandInPortal, model: str) -> None:
    class Alternating(PortalClient):
        """Two replicas, of which one is behind for ever."""

        turn = 0

        def get_model_status(self, model_id: str) -> ModelStatus:
            self.turn += 1
            late = model_id == model and self.turn > 3 and self.turn % 2
            return ModelStatus(ProcessingStatus.CREATED, "") if late else super().get_model_status(model_id)

    walk = walk_of(portal, model)
    walk.portal = Alternating(portal.url, portal.api_key)
    found = {result.name: result for result in walk.results()}
    assert found["Processing"].result == "warning"
    assert "by the next answer" in found["Processing"].sentence


def test_an_interrupted_walk_leaves_a_model_that_can_be_walked_again(portal: StandInPortal, model: str) -> None:
    walk = walk_of(portal, model)
    results = walk.results()
    while next(results).name != "Processing":
        continue
    left = walk.leave()
    assert left is not None
    assert left.result == "ok"
    assert {result for result, _ in walked(portal, model).values()} == {"ok"}


def test_a_model_that_could_not_be_set_back_is_named(portal: StandInPortal, model: str) -> None:
    walk = walk_of(portal, model)
    results = walk.results()
    while next(results).name != "Failed":
        continue
    portal.add_fault("status", status=503, count=None)
    left = walk.leave()
    assert left is not None
    assert (left.result, model in left.sentence) == ("failed", True)
    with pytest.raises(PortalUnavailable):
        walk.portal.get_model_status(model)


def test_the_openapi_file_describes_the_calls_that_are_made_and_the_answers_that_are_read(
    portal: StandInPortal, model: str
) -> None:
    described = yaml.safe_load(read("docs/portal.openapi.yaml"))
    schemas = {
        name: {"$ref": f"#/components/schemas/{name}"} | described for name in described["components"]["schemas"]
    }
    walked(portal, model)
    for call in portal.calls(method="PUT"):
        assert call.path in described["paths"]
        validate(call.body, schemas["StatusUpdate"])
    paths = {call.path for call in portal.calls(method="GET")}
    template = "/api/external/models/{id}/status"
    assert template in described["paths"]
    assert paths == {template.format(id=name) for name in (model, "no-such-model")}
    validate(portal.call_api("GET", f"{model}/status"), schemas["ModelStatus"])
    with pytest.raises(ValidationError):
        validate({"status": "Done"}, schemas["ModelStatus"])
    pattern = described["paths"][template]["get"]["parameters"][0]["schema"]
    for name in ("1", "a-b", "x" * (MAX_LENGTH - len(MODEL_PREFIX))):
        validate(extract_model_id(MODEL_PREFIX + name), pattern)
    with pytest.raises(ValidationError):
        validate("x" * (MAX_LENGTH - len(MODEL_PREFIX) + 1), pattern)
