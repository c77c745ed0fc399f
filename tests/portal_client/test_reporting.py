"""portal_client.reporting: the table of what counts as acknowledged, superseded and refused, row by row."""

from __future__ import annotations

import pytest

from portal_client.errors import (
    ModelUnknown,
    NotAcknowledged,
    NotFoundUnexplained,
    PortalError,
    PortalRefused,
    PortalUnauthorized,
    PortalUnavailable,
    StatusUnreadable,
    WriteConflict,
)
from portal_client.reporting import (
    GIVEN_UP_AFTER,
    PLAUSIBLE_LAG,
    OutcomeWrites,
    OwnWrites,
    Step,
    after_failure,
    before_write,
    is_proof,
    may_become_the_words,
    wordings,
    write,
)
from portal_client.statuses import ModelStatus, ProcessingStatus

S = ProcessingStatus
NEVER = OwnWrites(acknowledged=False)
AFTER_CREATED = OwnWrites(True, before=S.CREATED, since=5.0)
AFTER_RECONFIGURE = OwnWrites(True, before=S.RECONFIGURE, since=5.0)
AFTER_NOBODY_KNOWS = OwnWrites(True, since=5.0)
LONG_AFTER = OwnWrites(True, before=S.CREATED, since=3600.0)


@pytest.mark.parametrize(
    ("shown", "own", "doubted_for", "step"),
    [
        # An end that stands there, whoever wrote it.
        (S.COMPLETED, NEVER, None, Step.ACKNOWLEDGED),
        (S.COMPLETED, AFTER_CREATED, None, Step.ACKNOWLEDGED),
        (S.FAILED, NEVER, None, Step.ACKNOWLEDGED),
        (S.FAILED, AFTER_RECONFIGURE, None, Step.ACKNOWLEDGED),
        # Nothing speaks against a write.
        (S.PROCESSING, NEVER, None, Step.WRITE),
        (S.PROCESSING, AFTER_CREATED, 1000.0, Step.WRITE),
        (S.CREATED, NEVER, None, Step.WRITE),
        (S.RECONFIGURE, NEVER, None, Step.WRITE),
        # What cannot have stood there before our own write.
        (S.RECONFIGURE, AFTER_CREATED, None, Step.SUPERSEDED),
        # What may be older than our own write: a cache, a replica.
        (S.CREATED, AFTER_CREATED, None, Step.LOOK_AGAIN),
        (S.CREATED, AFTER_CREATED, PLAUSIBLE_LAG - 1, Step.LOOK_AGAIN),
        (S.RECONFIGURE, AFTER_RECONFIGURE, None, Step.LOOK_AGAIN),
        (S.CREATED, AFTER_RECONFIGURE, None, Step.LOOK_AGAIN),
        (S.CREATED, AFTER_NOBODY_KNOWS, None, Step.LOOK_AGAIN),
        (S.RECONFIGURE, AFTER_NOBODY_KNOWS, None, Step.LOOK_AGAIN),
        (S.CREATED, LONG_AFTER, None, Step.LOOK_AGAIN),
        # A second look, later than any plausible lag of the first and of our write.
        (S.CREATED, LONG_AFTER, PLAUSIBLE_LAG - 1, Step.LOOK_AGAIN),
        (S.CREATED, LONG_AFTER, PLAUSIBLE_LAG, Step.SUPERSEDED),
        (S.CREATED, AFTER_CREATED, PLAUSIBLE_LAG, Step.LOOK_AGAIN),
        (S.RECONFIGURE, OwnWrites(True, before=S.RECONFIGURE, since=PLAUSIBLE_LAG), PLAUSIBLE_LAG, Step.SUPERSEDED),
    ],
)
def test_what_the_portal_shows_decides_before_a_write(
    shown: ProcessingStatus, own: OwnWrites, doubted_for: float | None, step: Step
) -> None:
    assert before_write(shown, own, doubted_for) is step


@pytest.mark.parametrize(
    ("shown", "own", "doubted_for", "step"),
    [
        (S.FAILED, AFTER_RECONFIGURE, None, Step.ACKNOWLEDGED),
        (S.FAILED, NEVER, None, Step.ACKNOWLEDGED),
        # Another end than the one that this training came to.
        (S.COMPLETED, AFTER_CREATED, None, Step.SUPERSEDED),
        (S.COMPLETED, AFTER_RECONFIGURE, None, Step.LOOK_AGAIN),
        (S.COMPLETED, NEVER, None, Step.SUPERSEDED),
        (S.COMPLETED, OwnWrites(False, before=S.RECONFIGURE, since=5.0), None, Step.LOOK_AGAIN),
        (S.COMPLETED, OwnWrites(True, before=S.RECONFIGURE, since=PLAUSIBLE_LAG), PLAUSIBLE_LAG, Step.SUPERSEDED),
        # As for everybody.
        (S.PROCESSING, AFTER_CREATED, None, Step.WRITE),
        (S.CREATED, NEVER, None, Step.WRITE),
        (S.CREATED, AFTER_CREATED, None, Step.LOOK_AGAIN),
        (S.RECONFIGURE, AFTER_CREATED, None, Step.SUPERSEDED),
    ],
)
def test_a_training_that_tells_its_own_end_doubts_another_one_that_may_be_older(
    shown: ProcessingStatus, own: OwnWrites, doubted_for: float | None, step: Step
) -> None:
    assert before_write(shown, own, doubted_for, S.FAILED) is step


@pytest.mark.parametrize(
    ("before", "proofs"),
    [
        (S.CREATED, {S.RECONFIGURE, S.COMPLETED, S.FAILED}),
        (S.RECONFIGURE, set()),
        (None, {S.COMPLETED, S.FAILED}),
    ],
)
def test_what_cannot_have_stood_there_before_proves_at_once_that_somebody_has_moved_on(
    before: ProcessingStatus | None, proofs: set[ProcessingStatus]
) -> None:
    own = OwnWrites(True, before, since=1.0)
    assert {shown for shown in S if shown is not S.PROCESSING and is_proof(shown, own, None)} == proofs
    later = OwnWrites(True, before, since=PLAUSIBLE_LAG)
    assert all(is_proof(shown, later, PLAUSIBLE_LAG) for shown in S if shown is not S.PROCESSING)


DAY = GIVEN_UP_AFTER
RETRYABLE: list[PortalError] = [
    PortalUnavailable("no answer"),
    PortalUnavailable("busy", status_code=503),
    PortalUnavailable("oops", status_code=500),
    PortalUnauthorized("key", status_code=401),
    NotFoundUnexplained("404", status_code=404),
    WriteConflict("409", status_code=409),
    WriteConflict("412", status_code=412),
    WriteConflict("423", status_code=423),
    NotAcknowledged("taken, not shown"),
]
PERHAPS_THE_WORDS: list[PortalError] = [
    PortalRefused("too long", status_code=400),
    PortalRefused("too long", status_code=413),
    PortalRefused("too long", status_code=414),
    PortalRefused("invalid", status_code=422),
    PortalUnavailable("a firewall's page", status_code=403),
    PortalUnauthorized("a firewall's JSON, or no right to write", status_code=403),
    PortalRefused("a firewall's", status_code=406),
    PortalUnavailable("a firewall's, or no PUT at all", status_code=405),
    NotAcknowledged("success: false", status_code=200),
]
REFUSED: list[PortalError] = [
    ModelUnknown("404", status_code=404),
    PortalRefused("410", status_code=410),
    PortalRefused("400", status_code=400),
    StatusUnreadable("Paused"),
]


@pytest.mark.parametrize("error", [*RETRYABLE, *PERHAPS_THE_WORDS, *REFUSED], ids=repr)
@pytest.mark.parametrize("refused_for", [0.0, DAY - 1, DAY, 100 * DAY])
@pytest.mark.parametrize("others_taken", [False, True])
@pytest.mark.parametrize("words_left", [False, True])
def test_how_a_write_failed_decides_what_comes_next(
    error: PortalError, refused_for: float, others_taken: bool, words_left: bool
) -> None:
    perhaps_the_words = any(error is known for known in PERHAPS_THE_WORDS) or error.status_code == 400
    expected = Step.AGAIN
    if words_left and perhaps_the_words:
        expected = Step.SHORTER
    elif not error.retryable and refused_for >= DAY and others_taken:
        expected = Step.GIVEN_UP

    step = after_failure(error, words_left=words_left, refused_for=refused_for, others_taken=others_taken)

    assert step is expected


# --- shorter words ------------------------------------------------------------------------------------------------


def test_words_get_fewer_and_plainer_down_to_the_code() -> None:
    sentence = "Failed to read <table>; DROP TABLE 'x' -- " + "../etc/passwd " * 50
    full, short, code = wordings(sentence, "DatasetInvalid")

    assert full == sentence
    assert len(short) <= 200
    assert short.startswith("Failed to read table DROP TABLE x")
    assert not set(short) & set("<>'\";/()")
    assert code == "DatasetInvalid"
    assert wordings("Model training completed successfully", "Completed") == (
        "Model training completed successfully",
        "Completed",
    )
    assert wordings("…", "Killed") == ("…", "Killed")


class Column:
    """A portal whose column, or firewall, does not take every text."""

    def __init__(self, *errors: PortalError | None) -> None:
        self.errors = list(errors)
        self.tried: list[str] = []

    def get_model_status(self, model_id: str) -> ModelStatus:
        raise NotImplementedError

    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        self.tried.append(message)
        if (error := self.errors.pop(0)) is not None:
            raise error


TEXTS = ("a long sentence", "a short one", "Code")


@pytest.mark.parametrize("error", PERHAPS_THE_WORDS, ids=repr)
def test_a_message_that_is_refused_is_sent_with_fewer_words_at_once(error: PortalError) -> None:
    portal = Column(error, error, None)

    assert write(portal, "1", S.FAILED, TEXTS) == "Code"
    assert portal.tried == list(TEXTS)


def test_when_all_words_are_refused_the_last_refusal_is_told() -> None:
    portal = Column(*PERHAPS_THE_WORDS[:3])

    with pytest.raises(PortalRefused) as caught:
        write(portal, "1", S.FAILED, TEXTS)
    assert caught.value is PERHAPS_THE_WORDS[2]


@pytest.mark.parametrize("error", [*RETRYABLE, PortalRefused("410", status_code=410)], ids=repr)
def test_what_is_no_matter_of_words_is_not_repeated_with_fewer(error: PortalError) -> None:
    portal = Column(error)

    with pytest.raises(type(error)):
        write(portal, "1", S.FAILED, TEXTS)
    assert portal.tried == [TEXTS[0]]


def test_a_500_may_be_an_outage_first_and_a_column_that_is_too_short_then() -> None:
    tried = []
    for failures in range(8):
        portal = Column(PortalUnavailable("oops", status_code=500))
        with pytest.raises(PortalUnavailable):
            write(portal, "1", S.FAILED, TEXTS, failures)
        tried += portal.tried

    assert tried == [TEXTS[number] for number in (0, 0, 0, 0, 1, 2, 0, 1)]


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (PortalUnavailable("oops", status_code=500), True),
        (PortalUnavailable("cut the connection", ambiguous=True), True),
        (PortalUnavailable("cannot be connected to"), False),
        (PortalUnavailable("busy", status_code=503, ambiguous=True), False),
        (PortalRefused("too long", status_code=400), False),
    ],
    ids=repr,
)
def test_a_firewall_may_cut_what_it_dislikes_as_a_column_may_fail(error: PortalError, counts: bool) -> None:
    assert may_become_the_words(error) is counts


# --- whose matter a refusal is ------------------------------------------------------------------------------------


def test_one_refused_model_is_its_own_matter_and_two_are_the_portals_until_one_is_taken() -> None:
    writes = OutcomeWrites()
    writes.refused("1", "no")
    writes.refused("1", "no")
    assert writes.outage() == ""

    writes.refused("2", "not either")
    assert writes.outage() == "no"

    writes.taken("3", 100.0)
    assert writes.outage() == ""

    writes.refused("1", "no")
    writes.forget("1")
    writes.refused("2", "no")
    assert writes.outage() == "", "the first has been given up, or superseded"


def test_only_another_models_outcome_taken_since_shows_that_the_portal_works() -> None:
    writes = OutcomeWrites()
    writes.taken("1", 100.0)
    assert not writes.others_taken("1", 0.0)
    assert writes.others_taken("2", 100.0)
    assert not writes.others_taken("2", 100.1)

    for model in ("2", "3", "1"):
        writes.taken(model, 200.0)
    assert writes.others_taken("1", 200.0)
    assert writes.others_taken("3", 200.0)
