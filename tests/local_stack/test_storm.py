"""A small storm with real processes; and a judge that sees what the storm is there to find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from local_stack.azurite import AzuriteMissing, install
from local_stack.portal.client import Model
from local_stack.portal.history import Entry
from local_stack.storm import __main__
from local_stack.storm.judge import DOUBLED, LOST, WRONG, Evidence, judge
from local_stack.storm.plan import KINDS, Request, make_plan
from local_stack.storm.record import SeenJob
from portal_client import messages

pytestmark = pytest.mark.long

_BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.timeout(500)
def test_killed_dispatchers_and_failing_parts_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    try:
        install()
    except AzuriteMissing as error:
        pytest.skip(str(error))
    # The time is the longest that it may take; it takes the bad weather's and what is left to do then.
    options = __main__.Options(requests=150, kills=6, seconds=440, stormy=25, calm=0, seed=7, folder=tmp_path / "storm")
    lines: list[str] = []
    verdicts = __main__.run(options, lines.append)
    text = "\n".join(lines)
    assert verdicts.findings == [], text
    assert "killed 6" in text, text


def _entry(status: str, message: str = "", by: str = "api") -> Entry:
    return Entry(status, message, by, 0.0, 0.0)


def _model(*history: Entry) -> Model:
    return Model(history[-1].status, history[-1].message, history)


def _job(uid: str = "uid-1", message: str = "message-1") -> SeenJob:
    return SeenJob(uid, "model-1", message, launched=True, finished=True, finalizer=False, reported={"code": "C"})


_REQUEST = Request(_BY_NAME["completes"], 1, "1", "{}", "Created", ids=["message-1"])
_GOOD = (_entry("Created", by="control"), _entry("Processing"), _entry("Completed", messages.COMPLETED))
_RIGHT = Evidence({"1": _model(*_GOOD)}, {"uid-1": _job()}, {"uid-1": "1"}, set(), [], 0)


def _found(seen: Evidence, request: Request = _REQUEST) -> list[str]:
    return [finding.kind for finding in judge([request], seen).findings]


def test_what_went_as_planned_is_no_finding() -> None:
    assert _found(_RIGHT) == []


@pytest.mark.parametrize(
    ("history", "found"),
    [
        ((*_GOOD[:2],), [LOST]),
        ((*_GOOD[:2], _entry("Failed", "why")), [WRONG]),
        ((*_GOOD[:2], _entry("Completed", "another sentence")), [WRONG]),
        ((*_GOOD, _entry("Processing")), [WRONG, LOST]),
        ((*_GOOD[:2], _entry("Failed", "why"), _GOOD[2]), [WRONG]),
        ((*_GOOD, _entry("Processing"), _GOOD[2]), []),
        ((*_GOOD, _GOOD[2]), []),
    ],
    ids=["never ended", "failed", "wrong words", "covered for good", "overwritten", "said again", "said twice"],
)
def test_the_portals_history_is_judged_entry_by_entry(history: tuple[Entry, ...], found: list[str]) -> None:
    assert sorted(_found(replace(_RIGHT, models={"1": _model(*history)}))) == sorted(found)


def test_the_code_alone_is_right_where_the_portal_takes_no_words() -> None:
    spoken = {"1": _model(*_GOOD[:2], _entry("Completed", "Code"))}
    job = replace(_job(), reported={"code": "Code"})
    assert _found(replace(_RIGHT, models=spoken, jobs={"uid-1": job})) == []
    assert _found(replace(_RIGHT, models=spoken, jobs={"uid-1": replace(job, reported={"code": "Codex"})})) == [WRONG]
    assert _found(replace(_RIGHT, models={"1": _model(*_GOOD[:2], _entry("Failed", "Code"))}, jobs={"uid-1": job}))


def test_a_model_whose_job_a_policy_denies_is_told_so() -> None:
    denied = Request(_BY_NAME["is denied by a policy"], 1, "1", "{}", "Created", ids=["message-1"])
    told = (_GOOD[0], _entry("Failed", "The cluster refuses this training. No"))
    entry = {"message_id": "message-1", "code": "JobRefused"}
    seen = Evidence({"1": _model(*told)}, {}, {}, set(), [entry], 0)
    assert _found(seen, denied) == []
    assert _found(replace(seen, poison=[]), denied) == [], "a crash came between the portal and the poison queue"
    assert _found(replace(seen, models={"1": _model(_GOOD[0])}), denied) == [LOST]
    assert _found(replace(seen, jobs={"uid-1": _job()}, started={"uid-1": "1"}), denied) == [DOUBLED]


def test_a_message_that_was_trained_twice_is_doubled() -> None:
    twice = replace(_RIGHT, jobs={"uid-1": _job(), "uid-2": _job("uid-2")}, started={"uid-1": "1", "uid-2": "1"})
    assert _found(twice) == [DOUBLED]


def test_two_messages_of_one_request_that_were_both_trained_are_doubled() -> None:
    jobs = {"uid-1": _job(), "uid-2": _job("uid-2", "message-2")}
    copied = replace(_REQUEST, ids=["message-1", "message-2"])
    assert _found(replace(_RIGHT, jobs=jobs, started=dict.fromkeys(jobs, "1")), copied) == [DOUBLED]


def test_a_job_that_only_its_pod_was_seen_of_counts_as_a_training() -> None:
    assert _found(replace(_RIGHT, jobs={})) == []
    assert _found(replace(_RIGHT, started={"uid-1": "1", "uid-2": "1"})) == [DOUBLED]


def test_a_job_that_is_held_or_unreported_is_lost() -> None:
    assert _found(replace(_RIGHT, jobs={"uid-1": replace(_job(), finalizer=True)})) == [LOST]
    assert _found(replace(_RIGHT, jobs={"uid-1": replace(_job(), reported=None)})) == [LOST]


def test_the_poison_queue_has_the_bad_messages_and_no_other() -> None:
    entry = {"message_id": "message-1", "code": "ModelUnknown"}
    assert _found(replace(_RIGHT, poison=[entry])) == [WRONG]
    unknown = Request(_BY_NAME["is not known to the portal"], 1, "1", "{}", None, ids=["message-1"])
    nothing = Evidence({}, {}, {}, set(), [], 0)
    assert _found(nothing, unknown) == [LOST]
    assert _found(replace(nothing, poison=[entry, entry]), unknown) == []
    assert _found(replace(nothing, poison=[{**entry, "code": "NotJson"}]), unknown) == [WRONG]


def test_a_model_that_may_not_start_is_left_alone() -> None:
    ended = Request(_BY_NAME["is Completed already"], 1, "1", "{}", "Completed", ids=["message-1"])
    alone = Evidence({"1": _model(_entry("Completed", by="control"))}, {}, {}, set(), [], 0)
    assert _found(alone, ended) == []
    assert _found(replace(alone, models={"1": _model(_entry("Completed", by="control"), _entry("Failed"))}), ended)


def test_messages_that_are_left_on_the_queue_are_lost() -> None:
    assert _found(replace(_RIGHT, on_queue=2)) == [LOST]


def test_a_seed_repeats_the_plan_and_every_kind_is_in_it() -> None:
    plan = make_plan(11, 100)
    assert plan == make_plan(11, 100)
    assert plan != make_plan(12, 100)
    for count, requests in ((100, plan), (1000, make_plan(11, 1000))):
        assert {kind.name for kind in KINDS if kind.least <= count} <= {request.kind.name for request in requests}
    assert len({request.model_id for request in plan if request.model_id}) == sum(bool(r.model_id) for r in plan)
