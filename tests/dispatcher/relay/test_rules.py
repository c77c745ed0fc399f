"""dispatcher.relay.rules: what is asked for, what is passed on, and how a failure is told."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from dispatcher.relay import rules
from dispatcher.relay.rules import Read, Reply, Write
from dispatcher.relay.tokens import Claims
from portal_client import errors
from portal_client.statuses import ProcessingStatus
from tests.dispatcher.relay.relay_world import OTHER_RUN, RUN, a_job
from tests.world.pages import section
from tests.world.repository import ROOT, read

S = ProcessingStatus
OURS = Claims("1", RUN)
UPDATE = "/api/external/models/status"
STATUS = "/api/external/models/1/status"


def update(**more: object) -> bytes:
    return json.dumps({"ModelId": "1", "Status": 1, "Message": "m", **more}).encode()


@pytest.mark.parametrize(
    ("method", "target", "body", "wish"),
    [
        ("GET", STATUS, b"", Read()),
        ("PUT", UPDATE, update(), Write(S.PROCESSING, "m")),
        ("PUT", UPDATE, update(Status=2), Write(S.COMPLETED, "m")),
        ("PUT", UPDATE, update(Status="Failed"), Write(S.FAILED, "m")),
        ("PUT", UPDATE, update(Message=None), Write(S.PROCESSING, "")),
        ("PUT", UPDATE, update(More=[1, {"ModelId": "2"}]), Write(S.PROCESSING, "m")),
    ],
)
def test_what_a_training_may_ask_for(method: str, target: str, body: bytes, wish: object) -> None:
    assert rules.wish_of(method, target, body, OURS) == wish


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/api/external/models/2/status", b"", 403),
        ("GET", "/api/external/models//status", b"", 403),
        ("GET", "/api/external/models/1/../2/status", b"", 403),
        ("GET", "/api/external/models/%31/status", b"", 403),
        ("GET", "/api/external/models/1%2f..%2f2/status", b"", 403),
        ("GET", f"{STATUS}?id=2", b"", 404),
        ("GET", f"{STATUS}/", b"", 404),
        ("GET", f"/x/..{STATUS}", b"", 404),
        ("GET", f"http://portal.example.com{STATUS}", b"", 404),
        ("GET", "/", b"", 404),
        ("GET", UPDATE, b"", 405),
        ("PUT", STATUS, update(), 405),
        ("DELETE", STATUS, b"", 405),
        ("PUT", f"{UPDATE}?ModelId=2", update(), 404),
        ("PUT", UPDATE, update(ModelId="2"), 403),
        ("PUT", UPDATE, update(ModelId="1 "), 403),
        ("PUT", UPDATE, b'{"ModelId": "1", "Status": 1, "ModelId": "2"}', 403),
        ("PUT", UPDATE, update(Status=0), 403),
        ("PUT", UPDATE, update(Status="Reconfigure"), 403),
        ("PUT", UPDATE, update(Status=5), 400),
        ("PUT", UPDATE, update(Status=True), 400),
        ("PUT", UPDATE, update(Status=1.5), 400),
        ("PUT", UPDATE, update(Status=10**400), 400),
        ("PUT", UPDATE, update(ModelId=1), 400),
        ("PUT", UPDATE, update(Message=["m"]), 400),
        ("PUT", UPDATE, b"", 400),
        ("PUT", UPDATE, b"[]", 400),
        ("PUT", UPDATE, b"\xff", 400),
        ("PUT", UPDATE, b"[" * 60_000, 400),
        ("PUT", UPDATE, b'{"modelid": "1", "status": 1}', 400),
    ],
)
def test_what_is_not_the_runs_own_is_refused(method: str, target: str, body: bytes, status: int) -> None:
    refused = rules.wish_of(method, target, body, OURS)
    assert isinstance(refused, Reply)
    assert refused.status == status
    assert refused.result in ("forbidden", "malformed")
    assert json.loads(refused.body)["detail"]


@pytest.mark.parametrize(
    ("headers", "method", "token"),
    [
        ({"x-api-key": ["t"]}, "auto", "t"),
        ({"authorization": ["Bearer t"]}, "auto", "t"),
        ({"authorization": ["bearer  t"]}, "bearer", "t"),
        ({"x-api-key": ["t"]}, "x-api-key", "t"),
        ({"x-api-key": ["t"]}, "bearer", None),
        ({"authorization": ["Bearer t"]}, "x-api-key", None),
        ({"authorization": ["Basic t"]}, "auto", ""),
        ({"x-api-key": ["t", "t"]}, "auto", None),
        ({"x-api-key": ["t"], "authorization": ["Bearer u"]}, "auto", None),
        ({}, "auto", None),
    ],
)
def test_the_token_is_in_one_header_that_the_setting_names(
    headers: dict[str, list[str]], method: str, token: str | None
) -> None:
    assert rules.token_of(headers, method) == token


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (a_job(), None),
        (a_job(launched=False), None),
        (a_job(deleted_at=1.8e9), None),
        (None, 410),
        (a_job(run_id=OTHER_RUN), 410),
        (a_job(reported=True), 410),
        (a_job(reported=True, finalizer=True), 410),
        (a_job(finalizer=False), 503),
        (a_job(run_id=None), 503),
        (a_job(managed=False), 503),
        (a_job(message_id=None), 503),
    ],
)
def test_a_run_is_heard_while_it_is_its_jobs_and_that_is_not_reported(job: Any, status: int | None) -> None:
    refused = rules.over(job, OURS)
    assert (refused and refused.status) == status


WRITES = {
    # shown, sent: acknowledged, not acknowledged
    (S.CREATED, S.PROCESSING): (False, True),
    (S.CREATED, S.COMPLETED): (False, True),
    (S.CREATED, S.FAILED): (False, True),
    (S.RECONFIGURE, S.PROCESSING): (False, True),
    (S.RECONFIGURE, S.COMPLETED): (False, True),
    (S.RECONFIGURE, S.FAILED): (False, True),
    (S.PROCESSING, S.PROCESSING): (True, True),
    (S.PROCESSING, S.COMPLETED): (True, True),
    (S.PROCESSING, S.FAILED): (True, True),
    (S.COMPLETED, S.PROCESSING): (False, False),
    (S.COMPLETED, S.COMPLETED): (True, True),
    (S.COMPLETED, S.FAILED): (False, False),
    (S.FAILED, S.PROCESSING): (False, False),
    (S.FAILED, S.COMPLETED): (False, False),
    (S.FAILED, S.FAILED): (True, True),
}


@pytest.mark.parametrize(("shown", "sent"), WRITES)
@pytest.mark.parametrize("acknowledged", [True, False])
def test_no_outcome_is_overwritten_and_nobodys_move_undone(
    shown: ProcessingStatus, sent: ProcessingStatus, acknowledged: bool
) -> None:
    refused = rules.before_write(Write(sent, "m"), shown, a_job(acknowledged=acknowledged), None)
    assert (refused is None) == WRITES[shown, sent][0 if acknowledged else 1]
    assert refused is None or (refused.status, refused.result) == (409, "conflict")


@pytest.mark.parametrize("told", [S.COMPLETED, S.FAILED])
@pytest.mark.parametrize("sent", [S.PROCESSING, S.COMPLETED, S.FAILED])
def test_after_an_outcome_only_the_same_may_be_repeated(told: ProcessingStatus, sent: ProcessingStatus) -> None:
    refused = rules.before_write(Write(sent, "m"), S.PROCESSING, a_job(), told)
    assert (refused is None) == (sent is told)


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (errors.PortalUnavailable("m"), True),
        (errors.PortalUnavailable("m", status_code=503), True),
        (errors.PortalUnauthorized("m", status_code=401), True),
        (errors.PortalUnauthorized("m", status_code=403), True),
        (errors.PortalUnavailable("m", status_code=403), False),
        (errors.PortalUnavailable("m", status_code=500), False),
        (errors.PortalRefused("m", status_code=422), False),
        (errors.WriteConflict("m", status_code=409), False),
        (errors.NotAcknowledged("m", status_code=200), False),
        (errors.NotAcknowledged("m"), False),
    ],
)
def test_what_a_training_writes_never_looks_like_an_outage(error: errors.PortalError, outage: bool) -> None:
    assert rules.shows_an_outage(error) is outage


def test_every_sentence_of_the_relay_is_explained() -> None:
    """By its beginning, as far as it is the same for all."""
    text = " ".join(section(read("docs/troubleshoot.md"), "What the relay answers").split())
    source = "".join(
        (ROOT / "dispatcher" / "relay" / name).read_text(encoding="utf-8") for name in ("rules.py", "relay.py")
    )
    calls = re.findall(r'(?:refusal\([0-9]+, "(\w+)", |unavailable\()\s*f?"((?:[^"\\]|\\.)+)"', source)
    told = [re.split(r"\{|: |, |; ", sentence)[0].strip() for result, sentence in calls if result != "malformed"]
    assert len(told) > 12
    assert [sentence for sentence in told if sentence not in text] == []
