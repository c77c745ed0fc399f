"""decisions.views.without_job: the sentence, the holder and the one thing to do of a model without a training Job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.decisions.views import without_job
from dispatcher.decisions.views.phases import Phase
from dispatcher.decisions.views.standing import _BY_PHASE
from dispatcher.decisions.views.without_job import NOT_ASKED_YET, NOT_TRACKED, PortalWord, Trace, Traces, heard
from dispatcher.queue.poison import PoisonEntry
from dispatcher.web.model_rows import poison_trace
from portal_client.errors import ModelUnknown, PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus

CREATED, COMPLETED, FAILED = (PortalWord(word, "said") for word in ("Created", "Completed", "Failed"))
PROCESSING = PortalWord("Processing", "Epoch 1 of 2")
AWAY = PortalWord("", "the portal did not answer within 30 s", answered=False)
NOBODY = PortalWord("", "the portal has no such model")
MESSAGE = Trace("Not taken from the queue yet", None, 100.0)
ENTRY = Trace("task 'sing' is not known", "UnknownTask", 50.0, "m-7")
PLAIN = Traces("model-1", "training", CREATED)


@pytest.mark.parametrize(
    ("traces", "phase", "says", "holder", "advice"),
    [
        (replace(PLAIN, foreign=True), "foreign", "no dispatcher has made it", None, "describe job model-1"),
        (replace(PLAIN, message=MESSAGE), "on the queue", "Not taken from the queue yet", "the dispatcher", "Wait"),
        (replace(PLAIN, message=MESSAGE, portal=NOT_ASKED_YET), "on the queue", "yet", "the dispatcher", "Wait"),
        (replace(PLAIN, message=MESSAGE, portal=NOT_TRACKED), "on the queue", "yet", "the dispatcher", "Wait"),
        (
            replace(PLAIN, message=MESSAGE, portal=COMPLETED),
            *("on the queue", "it will be rejected then: the model is Completed", "the dispatcher", "Reconfigure"),
        ),
        (
            replace(PLAIN, message=MESSAGE, paused="paused since 12:00"),
            *("on the queue", "the intake is paused since 12:00", "a person", "dispatcher resume"),
        ),
        (
            replace(PLAIN, message=MESSAGE, portal=AWAY),
            *("on the queue", "while the portal is out of reach", "the portal", "dispatcher check"),
        ),
        (replace(PLAIN, poison=ENTRY), "refused", "task 'sing' is not known", None, "poison requeue m-7"),
        # An older entry says nothing of a training that came after it.
        (replace(PLAIN, poison=ENTRY, portal=COMPLETED), "completed", "Completed at the portal: said", None, "Nothing"),
        (replace(PLAIN, portal=FAILED), "failed", "and with it the times", None, "set the model to reconfigure"),
        (replace(PLAIN, portal=PROCESSING), "elsewhere", "perhaps another dispatcher's", None, "get jobs -A -l"),
        (PLAIN, "not requested", "without a Job, and no message is for it", None, "submit model-1"),
        (replace(PLAIN, hidden=3), "not requested", "about 3 cannot be seen", None, "Look again in a minute"),
        (replace(PLAIN, portal=AWAY), "not known", "out of reach: the portal did not answer", None, "dispatcher check"),
        (replace(PLAIN, portal=NOT_ASKED_YET), "not known", "the portal is being asked", None, "Wait a moment"),
        (replace(PLAIN, portal=NOBODY), "unknown", "(namespace training) know model-1", None, "dispatcher list"),
    ],
)  # fmt: skip
def test_each_trace_has_its_sentence_and_its_way_out(
    traces: Traces, phase: str, says: str, holder: str | None, advice: str
) -> None:
    found = without_job.standing(traces)
    assert (found.phase, found.holder, found.until) == (phase, holder, None)
    assert says in found.sentence
    assert advice.lower() in found.advice.lower()


def test_a_message_and_an_entry_say_since_when_and_why() -> None:
    waits = without_job.standing(replace(PLAIN, message=replace(MESSAGE, code="NotJson"), poison=ENTRY))
    assert (waits.code, waits.since) == ("NotJson", 100.0)
    refused = without_job.standing(replace(PLAIN, poison=ENTRY))
    assert (refused.code, refused.since) == ("UnknownTask", 50.0)


def test_what_the_portal_answers_is_told_from_no_answer() -> None:
    told = heard(ModelStatus(ProcessingStatus.PROCESSING, "Epoch 1 of 2"))
    assert (told, told.progress, told.may_start) == (PROCESSING, "Epoch 1 of 2", False)
    created = heard(ModelStatus(ProcessingStatus.CREATED, "said"))
    assert (created.progress, created.may_start) == ("", True)
    assert heard(ModelUnknown("no model 1")) == NOBODY
    away = heard(PortalUnavailable("out of reach"))
    assert (away.status, away.message, away.answered) == ("", "out of reach", False)


def test_no_advice_says_of_a_model_that_was_held_back_that_it_is_published() -> None:
    """With `publish: if_better` a training completes whose model is stored alone."""
    ended = without_job.standing(replace(PLAIN, portal=COMPLETED)).advice, _BY_PHASE[Phase.COMPLETED]
    assert not any("published" in advice for advice in ended)


def test_of_entries_in_several_poison_queues_the_newest_is_told_whichever_queue_comes_last() -> None:
    newer, older = (
        PoisonEntry(code, "why", code, 1, "", at, "{}", queue=queue)
        for code, at, queue in (
            ("NotJson", "2026-11-29T10:00:00Z", "urgent"),
            ("UnknownTask", "2026-11-28T10:00:00Z", "normal"),
        )
    )
    told = poison_trace([newer, older])
    assert told is not None
    assert told.code == "NotJson"
