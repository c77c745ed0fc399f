"""The status at the portal: look first, one writer at a time, never a late Processing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from local_stack.processes import wait_until
from portal_client import messages, reporting
from portal_client.errors import ModelUnknown, PortalError, PortalRefused, PortalUnauthorized, PortalUnavailable
from portal_client.messages import COMPLETED, STARTED
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.world.trainer_fakes import FakePortal
from trainer_image.contract import Progress
from trainer_image.errors import Cancelled, StatusRefused, StatusUnavailable, TrainerError
from trainer_image.run.status_tracker import StatusTracker
from trainer_image.stop import Stop

S = ProcessingStatus
DOWN = PortalUnavailable("The portal does not answer")


def tracker(portal: FakePortal, stop: Stop | None = None, **options: object) -> StatusTracker:
    defaults: dict[str, object] = {
        "dispatched": True,
        "interval": 3600.0,
        "report_seconds": 0.0,
        "start_seconds": 0.0,
        "before": S.CREATED,
    }
    return StatusTracker(portal, "123", stop or Stop(), **{**defaults, **options})  # type: ignore[arg-type]


@contextmanager
def tracking(portal: FakePortal, stop: Stop | None = None, **options: object) -> Iterator[StatusTracker]:
    it = tracker(portal, stop, **options)
    assert it.begin()
    try:
        yield it
    finally:
        it.close()


@pytest.mark.parametrize(
    ("status", "dispatched", "expected", "calls"),
    [
        (S.CREATED, True, True, ["GET", "PUT Processing"]),
        (S.RECONFIGURE, True, True, ["GET", "PUT Processing"]),
        (S.PROCESSING, True, True, ["GET"]),
        (S.COMPLETED, True, False, ["GET"]),
        (S.FAILED, True, Cancelled, ["GET"]),
        (S.CREATED, False, True, ["GET", "PUT Processing"]),
        (S.RECONFIGURE, False, True, ["GET", "PUT Processing"]),
        (S.PROCESSING, False, StatusRefused, ["GET"]),
        (S.COMPLETED, False, StatusRefused, ["GET"]),
        (S.FAILED, False, StatusRefused, ["GET"]),
    ],
)
def test_who_may_begin(
    status: ProcessingStatus, dispatched: bool, expected: bool | type[TrainerError], calls: list[str]
) -> None:
    portal = FakePortal(status)
    it = tracker(portal, dispatched=dispatched)
    if isinstance(expected, bool):
        assert it.begin() is expected
        it.close()
    else:
        with pytest.raises(expected):
            it.begin()
    assert portal.calls == calls


def test_the_first_update_says_what_the_document_says() -> None:
    portal = FakePortal()
    with tracking(portal, dispatched=False):
        assert portal.puts == [("Processing", "Model training started")]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (DOWN, StatusUnavailable),
        (ModelUnknown("unknown"), StatusRefused),
        (PortalUnauthorized("no"), StatusUnavailable),
    ],
)
def test_standalone_is_blocked_when_the_status_cannot_be_read(fault: PortalError, expected: type[TrainerError]) -> None:
    portal = FakePortal()
    portal.down = fault
    with pytest.raises(expected, match="Training aborted"):
        tracker(portal, dispatched=False).begin()
    assert portal.puts == []


def test_a_dispatched_training_goes_on_without_the_portal() -> None:
    portal = FakePortal(S.PROCESSING)
    portal.down = DOWN
    with tracking(portal) as it:
        portal.down = None
        assert it.report(S.COMPLETED, COMPLETED) is None
    assert portal.status is S.COMPLETED


def test_training_goes_on_when_the_start_cannot_be_reported_and_it_is_sent_later() -> None:
    portal = FakePortal()
    portal.faults = [None, DOWN]
    with tracking(portal, interval=0.01):
        wait_until(lambda: portal.puts == [("Processing", STARTED)], timeout=10)


def test_progress_is_reported_once_and_only_when_it_changed() -> None:
    portal = FakePortal(S.PROCESSING)
    with tracking(portal, interval=0.01) as it:
        it.progress(Progress("Epoch 1 of 2", step=1))
        wait_until(lambda: len(portal.puts) == 1, timeout=10)
        looks = len(portal.calls)
        wait_until(lambda: len(portal.calls) > looks + 3, timeout=10)
        it.progress(Progress("Epoch 2 of 2", step=2))
        wait_until(lambda: len(portal.puts) == 2, timeout=10)
    assert portal.puts == [("Processing", "Epoch 1 of 2"), ("Processing", "Epoch 2 of 2")]
    puts = [n for n, call in enumerate(portal.calls) if call.startswith("PUT")]
    assert all(portal.calls[n - 1] == "GET" for n in puts), "every write looks first"


@pytest.mark.parametrize("status", [S.CREATED, S.RECONFIGURE, S.FAILED, S.COMPLETED])
def test_a_model_that_left_processing_stops_the_training(
    status: ProcessingStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "PLAUSIBLE_LAG", 0.05)
    portal, stop = FakePortal(S.PROCESSING), Stop()
    with tracking(portal, stop, interval=0.01) as it:
        it.progress(Progress("Epoch 1", step=1))
        wait_until(lambda: bool(portal.puts), timeout=10)
        portal.status = status
        wait_until(lambda: stop.reason == "cancelled", timeout=10)
    assert portal.status is status


@pytest.mark.parametrize("before", [S.CREATED, S.RECONFIGURE, None])
def test_an_old_answer_after_our_processing_stops_no_healthy_training(before: ProcessingStatus | None) -> None:
    """What stood before our own write comes once more, from a cache or a replica."""
    portal, stop = FakePortal(S.PROCESSING), Stop()
    with tracking(portal, stop, interval=0.01, before=before) as it:
        for number in range(3):
            it.progress(Progress(f"Epoch {number}", step=number))
            wait_until(lambda n=number: portal.puts[-1:] == [("Processing", f"Epoch {n}")], timeout=10)  # type: ignore[misc]
            portal.status = before or S.CREATED
            looks = len(portal.calls)
            wait_until(lambda n=looks: len(portal.calls) > n + 3, timeout=10)  # type: ignore[misc]
            portal.status = S.PROCESSING
    assert not stop.is_set()
    assert len(portal.puts) == 3, "and nothing is written over what may be somebody's"


@pytest.mark.parametrize("old", [S.COMPLETED, S.FAILED])
def test_the_end_of_the_training_before_is_no_end_of_this_one(
    old: ProcessingStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer_image.run.status_tracker.LOOK_AGAIN", 0.02)
    portal = FakePortal(old)
    threading.Timer(0.1, lambda: setattr(portal, "status", S.PROCESSING)).start()
    with tracking(portal, before=S.RECONFIGURE) as it:
        assert it.report(S.COMPLETED, COMPLETED) is None
    assert portal.puts == [("Completed", COMPLETED)]


def test_an_end_that_stays_there_is_believed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer_image.run.status_tracker.LOOK_AGAIN", 0.02)
    monkeypatch.setattr(reporting, "PLAUSIBLE_LAG", 0.1)
    assert tracker(FakePortal(S.COMPLETED), before=S.RECONFIGURE).begin() is False


def test_an_outage_while_training_stops_nothing() -> None:
    portal, stop = FakePortal(S.PROCESSING), Stop()
    with tracking(portal, stop, interval=0.005) as it:
        portal.down = DOWN
        looks = len(portal.calls)
        wait_until(lambda: len(portal.calls) > looks + 3, timeout=10)
        portal.down = None
        it.progress(Progress("Epoch 1", step=1))
        wait_until(lambda: bool(portal.puts), timeout=10)
    assert not stop.is_set()


def test_a_fault_of_the_reporter_stops_nothing() -> None:
    class Odd(FakePortal):
        def get_model_status(self, model_id: str) -> ModelStatus:
            super().get_model_status(model_id)
            raise RuntimeError("odd") if len(self.calls) in (2, 3) else DOWN

    portal, stop = Odd(S.PROCESSING), Stop()
    with tracking(portal, stop, interval=0.005):
        wait_until(lambda: len(portal.calls) > 5, timeout=10)
    assert not stop.is_set()


def test_a_late_processing_never_covers_the_end() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(FakePortal):
        def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
            if status is S.PROCESSING:
                entered.set()
                go_on.wait(10)
            super().update_model_status(model_id, status, message)

    portal = Slow(S.PROCESSING)
    with tracking(portal, interval=0.005) as it:
        it.progress(Progress("Epoch 1", step=1))
        assert entered.wait(10)
        threading.Timer(0.05, go_on.set).start()
        assert it.report(S.COMPLETED, COMPLETED) is None
    assert [status for status, _ in portal.puts] == ["Processing", "Completed"]


@pytest.mark.parametrize(
    ("there", "reported"),
    [(S.PROCESSING, True), (S.CREATED, False), (S.RECONFIGURE, False), (S.COMPLETED, False), (S.FAILED, False)],
)
def test_the_end_is_reported_only_where_nobody_has_moved_on(
    there: ProcessingStatus, reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "PLAUSIBLE_LAG", 0.1)
    portal = FakePortal(S.PROCESSING)
    with tracking(portal, report_seconds=60.0) as it:
        portal.status = there
        it.report(S.FAILED, "why")
    assert portal.puts == ([("Failed", messages.failed("why"))] if reported else [])


def test_the_end_is_reported_when_an_old_answer_has_gone() -> None:
    portal = FakePortal(S.PROCESSING)
    with tracking(portal, report_seconds=60.0) as it:
        portal.status = S.CREATED
        threading.Timer(0.2, lambda: setattr(portal, "status", S.PROCESSING)).start()
        assert it.report(S.COMPLETED, COMPLETED) is None
    assert portal.puts == [("Completed", COMPLETED)]


def test_an_end_whose_words_are_refused_is_reported_by_its_code() -> None:
    portal = FakePortal(S.PROCESSING)
    with tracking(portal) as it:
        portal.faults = [None, PortalRefused("too long", status_code=400), PortalRefused("too long", status_code=400)]
        assert it.report(S.FAILED, "Failed to read <x>", code="DatasetInvalid") is None
    assert portal.puts == [("Failed", "DatasetInvalid")]


def test_progress_whose_words_are_refused_ends_no_later_progress() -> None:
    portal = FakePortal(S.PROCESSING)
    with tracking(portal, interval=0.01) as it:
        portal.faults = [None, PortalRefused("a firewall", status_code=400)]
        it.progress(Progress("Epoch <1>", step=1))
        wait_until(lambda: portal.puts == [("Processing", "Epoch 1")], timeout=10)
        it.progress(Progress("Epoch 2", step=2))
        wait_until(lambda: portal.puts[-1] == ("Processing", "Epoch 2"), timeout=10)


def test_the_end_is_reported_when_processing_was_never_acknowledged() -> None:
    portal = FakePortal()
    portal.faults = [None, DOWN]
    with tracking(portal) as it:
        it.report(S.COMPLETED, COMPLETED)
    assert portal.puts == [("Completed", COMPLETED)]


def test_the_end_is_repeated_until_the_portal_answers() -> None:
    portal = FakePortal(S.PROCESSING)
    with tracking(portal, report_seconds=60.0) as it:
        portal.faults = [DOWN, None, PortalUnavailable("cut", ambiguous=True)]
        assert it.report(S.COMPLETED, COMPLETED) is None
    assert portal.puts == [("Completed", COMPLETED)]


def test_a_portal_that_stays_away_is_given_up() -> None:
    portal = FakePortal(S.PROCESSING)
    with tracking(portal) as it:
        portal.down = DOWN
        assert it.report(S.COMPLETED, COMPLETED)


def test_an_end_waits_for_a_key_that_is_exchanged_longer_than_for_a_portal_that_is_away() -> None:
    refused = PortalUnauthorized("The portal does not accept the API key")
    portal = FakePortal(S.PROCESSING)
    with tracking(portal, report_seconds=0.0, key_seconds=60.0) as it:
        portal.faults = [refused, refused]
        assert it.report(S.COMPLETED, COMPLETED) is None
    assert portal.puts == [("Completed", COMPLETED)]
    with tracking(FakePortal(S.PROCESSING), report_seconds=0.0, key_seconds=60.0) as it:
        it.portal.faults = [DOWN]  # type: ignore[attr-defined]
        assert it.report(S.COMPLETED, COMPLETED)
    with tracking(FakePortal(S.PROCESSING), report_seconds=0.0, key_seconds=0.2) as it:
        it.portal.down = refused  # type: ignore[attr-defined]
        assert it.report(S.COMPLETED, COMPLETED)


def test_a_refusal_is_not_repeated() -> None:
    portal = FakePortal(S.PROCESSING)
    with tracking(portal, report_seconds=60.0) as it:
        portal.calls.clear()
        portal.down = ModelUnknown("unknown")
        assert it.report(S.COMPLETED, COMPLETED)
    assert portal.calls == ["GET"]


def test_a_stop_cuts_the_repetition_short() -> None:
    portal, stop = FakePortal(S.PROCESSING), Stop()
    with tracking(portal, stop, report_seconds=3600.0) as it:
        portal.down = PortalUnavailable("busy", retry_after=3600.0)
        threading.Timer(0.05, lambda: stop.set("terminated")).start()
        assert it.report(S.COMPLETED, COMPLETED)


def test_the_whole_patience_is_used() -> None:
    """With growing pauses alone the last try came after half of it."""
    asked: list[float] = []

    class Away(FakePortal):
        def get_model_status(self, model_id: str) -> ModelStatus:
            asked.append(time.monotonic())
            raise DOWN

    with pytest.raises(StatusUnavailable):
        tracker(Away(), dispatched=False, report_seconds=60.0, start_seconds=1.0).begin()
    assert 1.0 <= asked[-1] - asked[0] < 3.0
    assert len(asked) == 3
