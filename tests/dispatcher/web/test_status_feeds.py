"""dispatcher.web.status_feeds: who is asked for the status page, how often, and what is made of the answers."""

from __future__ import annotations

import threading
from unittest.mock import Mock

import pytest

from dispatcher.decisions.views.without_job import NOT_ASKED_YET, NOT_TRACKED, PortalWord
from dispatcher.queue.messages import PeekedMessage, QueuePair, QueueUnavailable
from dispatcher.queue.poison import PoisonEntry, make_entry
from dispatcher.web.status_feeds import StatusFeeds
from portal_client.errors import ModelUnknown, PortalUnavailable
from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.world.builders import FakeClock

ENTRY = make_entry(PoisonEntry("NotJson", "no", "p", 1, "1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z", "x"))


class Queue:
    def __init__(self, *texts: str) -> None:
        self.messages = [PeekedMessage(f"m{n}", text, 0, 1.0) for n, text in enumerate(texts)]
        self.down = False

    def peek(self) -> list[PeekedMessage]:
        if self.down:
            raise QueueUnavailable("Cannot peek into queue requests: it is down")
        return self.messages

    def depth(self) -> int:
        return len(self.messages) + 40


class Portal:
    """answers: by the model's id; asked: every id, in order."""

    def __init__(self) -> None:
        self.answers: dict[str, ModelStatus | Exception] = {}
        self.asked: list[str] = []

    def says(self, model_id: str, message: str, status: ProcessingStatus = ProcessingStatus.PROCESSING) -> None:
        self.answers[model_id] = ModelStatus(status, message)

    def get_model_status(self, model_id: str) -> ModelStatus:
        self.asked.append(model_id)
        answer = self.answers[model_id]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Still(StatusFeeds):
    """Without a thread: the test takes its turns."""

    def _run(self) -> None:
        """Nothing: `look` starts a thread that ends at once."""


class Room:
    """Feeds whose clock the test moves, and whose turns it takes. models: the ids of those that run."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.clock = FakeClock()
        self.queue, self.poison, self.portal = Queue("a"), Queue(ENTRY), Portal()
        self.models: list[str] = []
        self.feeds = Still(
            [QueuePair("requests", self.queue, self.poison)],
            self.portal,
            progress_every=30.0,
            stopping=self.stopping,
            clock=lambda: 5000.0,
            monotonic=self.clock,
            call_every=0.0,
        )

    def ask(self) -> None:
        """The portal's turn, just after somebody got a page with the models."""
        self.feeds.show([(f"uid-{model}", model) for model in self.models])
        self.feeds.ask_portal()

    def hear(self, model: str, *messages: str) -> list[tuple[int, float]]:
        """The curve after the portal has said these, one after the other."""
        if model not in self.models:
            self.models.append(model)
        for message in messages:
            self.portal.says(model, message)
            self.clock.advance(31)
            self.ask()
        return list(self.feeds.look()[1][f"uid-{model}"].losses)


@pytest.fixture
def room() -> Room:
    return Room()


def test_the_first_look_wakes_the_thread_and_waits_for_its_news() -> None:
    stopping = threading.Event()
    feeds = StatusFeeds([QueuePair("a", Queue("a"), Queue(ENTRY))], None, progress_every=30.0, stopping=stopping)
    facts, _ = feeds.look(patience=10.0)
    stopping.set()
    assert [message.text for message in facts.waiting] == ["a"]
    assert [entry.code for entry in facts.poison] == ["NotJson"]
    assert (facts.depth, facts.poison_depth, facts.problem) == (41, 41, "")


def test_nobody_is_asked_while_nobody_looks(room: Room) -> None:
    room.portal.says("1", "Epoch 1 of 2")
    assert not room.feeds.turn()
    assert room.portal.asked == []
    room.feeds.look()
    room.clock.advance(179)
    room.feeds.show([("uid-1", "1")])
    assert room.feeds.turn()
    assert room.portal.asked == ["1"]
    room.clock.advance(2)
    assert not room.feeds.turn()


def test_the_portals_word_on_a_model_without_a_job_is_asked_for_and_kept_until_nobody_looks(room: Room) -> None:
    room.portal.says("1", "done", ProcessingStatus.COMPLETED)
    room.portal.answers["2"] = ModelUnknown("no model 2")
    room.portal.answers["3"] = PortalUnavailable("the portal is away")
    room.feeds.look()
    room.feeds.show([(f"model-{n}", str(n)) for n in (1, 2, 3)])
    assert room.feeds.word("model-1") == (NOT_ASKED_YET, None)
    room.feeds.ask_portal()
    assert room.feeds.word("model-1") == (PortalWord("Completed", "done"), 5000.0)
    assert room.feeds.word("model-2")[0] == PortalWord("", "the portal has no such model")
    assert room.feeds.word("model-3")[0] == PortalWord("", "the portal is away", answered=False)
    assert room.feeds.word("model-4")[0] == room.feeds.word("model-3")[0], "nobody is asked for a while"
    room.clock.advance(31)
    room.feeds.show([("model-1", "1")])
    room.feeds.ask_portal()
    assert room.feeds.word("model-4") == (NOT_ASKED_YET, None), "it answers again"
    room.feeds.show((f"uid-{n}", str(n)) for n in range(500))
    assert room.feeds.word("model-1") == (NOT_ASKED_YET, None), "others are on pages now: what is kept is bounded"
    room.clock.advance(181)
    room.feeds.look()
    assert room.feeds.word("model-3") == (NOT_ASKED_YET, None)


def test_without_tracking_the_page_says_so() -> None:
    feeds = Still([QueuePair("a", Queue(), Queue())], None, progress_every=30.0, stopping=threading.Event())
    assert feeds.word("model-1") == (NOT_TRACKED, None)


def test_a_defect_is_logged_and_ends_nothing(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    room.feeds.look()
    room.feeds.show([("uid-0", "never heard of")])  # the portal's fake has no answer for it: KeyError
    assert room.feeds.turn()
    assert "status page cannot be updated" in caplog.text
    assert room.feeds.look()[0].depth == 41


def test_a_queue_out_of_reach_is_a_sentence(room: Room) -> None:
    room.feeds.look()
    room.queue.down = True
    room.feeds.ask_queues()
    facts, _ = room.feeds.look()
    assert (facts.problem, facts.depth, facts.waiting) == ("Cannot peek into queue requests: it is down", None, ())


def test_a_model_is_asked_for_once_in_an_interval_and_those_longest_unasked_first(room: Room) -> None:
    room.models = [str(n) for n in range(50)]
    for model in room.models:
        room.portal.says(model, "Epoch 1 of 2")
    for _ in range(4):
        room.ask()
        room.clock.advance(5)
    assert sorted(room.portal.asked) == sorted(room.models)
    room.clock.advance(16)
    room.ask()
    assert room.portal.asked[50:] == room.models[:20]


def test_an_outage_of_the_portal_costs_one_call_an_interval(room: Room) -> None:
    room.models = ["1", "2", "3"]
    room.portal.answers = dict.fromkeys(room.models, PortalUnavailable("The portal does not answer", ambiguous=False))
    for _ in range(10):
        room.ask()
        room.clock.advance(10)
    assert len(room.portal.asked) == 4
    assert room.feeds.look()[1] == {}


def test_a_portal_that_asks_for_patience_gets_it(room: Room) -> None:
    room.models = ["1"]
    room.portal.answers["1"] = PortalUnavailable("Too many requests", retry_after=100.0)
    for _ in range(10):
        room.ask()
        room.clock.advance(10)
    assert len(room.portal.asked) == 1


def test_a_portal_that_knows_none_of_the_models_is_not_asked_for_all_of_them_in_one_breath(room: Room) -> None:
    room.models = ["1", "2", "3"]
    room.portal.answers = dict.fromkeys(room.models, ModelUnknown("The portal knows no such model"))
    stopping = Mock()
    stopping.wait.side_effect = [False, True]
    room.feeds.stopping = stopping
    room.ask()
    assert room.portal.asked == ["1", "2"]


def test_one_model_that_the_portal_does_not_know_keeps_nobody_from_the_others(room: Room) -> None:
    room.models = ["lost", "2"]
    room.portal.answers["lost"] = ModelUnknown("The portal knows no model lost")
    room.portal.says("2", "Epoch 1 of 2")
    room.ask()
    heard = room.feeds.look()[1]
    assert {uid: (each.message, each.at) for uid, each in heard.items()} == {"uid-2": ("Epoch 1 of 2", 5000.0)}


def test_what_the_portal_says_under_another_status_is_no_progress(room: Room) -> None:
    room.models = ["1"]
    room.portal.says("1", "Model training completed successfully", ProcessingStatus.COMPLETED)
    room.ask()
    assert room.feeds.look()[1] == {}


@pytest.mark.parametrize(
    ("messages", "curve"),
    [
        (["Epoch 1 of 9, loss 0.9", "Epoch 1 of 9, loss 0.9", "Epoch 4 of 9, loss 0.5"], [(1, 0.9), (4, 0.5)]),
        (["Epoch 1 of 9, loss 0.9", "Epoch 2 of 9, step 3 of 5", "Restoring"], [(1, 0.9)]),
        (["Epoch 8 of 9, loss 0.2", "Epoch 1 of 9, step 1 of 5", "Epoch 1 of 9, loss 0.8"], [(1, 0.8)]),
        (["Epoch 5 of 9, loss 0.2", "Epoch 2 of 9, loss 0.1, training on all rows"], [(2, 0.1)]),
    ],
)
def test_a_curve_grows_by_epochs_and_begins_anew_with_the_training(
    room: Room, messages: list[str], curve: list[tuple[int, float]]
) -> None:
    assert room.hear("1", *messages) == curve


def test_a_long_curve_is_thinned_and_keeps_its_ends_and_order(room: Room) -> None:
    curve = room.hear("1", *(f"Epoch {n} of 900, loss {n}" for n in range(1, 901)))
    assert len(curve) <= 60
    assert curve[0] == (1, 1.0)
    assert curve[-1] == (900, 900.0)
    assert curve == sorted(curve)


def test_of_ten_thousand_running_models_only_those_on_somebodys_page_are_asked_for(room: Room) -> None:
    for model in ("first", "second"):
        room.portal.says(model, "Epoch 1 of 2")
    room.feeds.show([("uid-first", "first")])
    room.feeds.ask_portal()
    room.clock.advance(31)
    room.feeds.show([("uid-second", "second")])
    room.feeds.ask_portal()
    assert room.portal.asked == ["first", "second"]
    assert set(room.feeds.look()[1]) == {"uid-first", "uid-second"}  # whoever turns back finds the curve


def test_curves_are_bounded_and_those_longest_on_no_page_go_first(room: Room) -> None:
    room.hear("1", "Epoch 1 of 2, loss 1")
    room.feeds.show([(f"uid-x{n}", f"x{n}") for n in range(499)])
    assert set(room.feeds.look()[1]) == {"uid-1"}
    room.feeds.show([("uid-one-more", "one-more")])
    assert room.feeds.look()[1] == {}
    room.feeds._note("uid-1", "Epoch 2 of 2, loss 1")  # the portal's late answer
    assert room.feeds.look()[1] == {}


def test_after_a_rest_the_queues_are_not_known_until_they_were_read_again(room: Room) -> None:
    room.feeds.look()
    room.feeds.ask_queues()
    assert room.feeds.look()[0].depth == 41
    room.clock.advance(181)
    assert room.feeds.look()[0].depth is None


def test_without_status_tracking_there_is_nobody_to_ask(room: Room) -> None:
    room.models = ["1"]
    room.feeds.portal = None
    room.ask()
    assert (room.portal.asked, room.feeds.look()[1]) == ([], {})
