"""The switch by which people pause the intake: read, kept through outages, answered."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.errors import ClusterError, ClusterForbidden, ClusterUnavailable, ObjectNotFound
from dispatcher.decisions.pauses import (
    Pause,
    answer_of,
    answers,
    pause_of,
    pauses_of_queues,
    switched_off,
    switched_on,
)
from dispatcher.intake.pause_switch import PauseSwitch

PAUSE = Pause("2026-01-01T00:00:00Z", "0a1b", "upgrade", "ada@laptop")


class OneConfigMap:
    """data: None where there is none; error: what every call raises."""

    def __init__(self) -> None:
        self.data: dict[str, str] | None = {}
        self.error: ClusterError | None = None
        self.patches = 0

    def get_config_map(self, name: str) -> Mapping[str, str] | None:
        assert name == names.PAUSE
        if self.error:
            raise self.error
        return self.data

    def patch_config_map(self, name: str, data: Mapping[str, str | None] | None) -> None:
        if self.error or self.data is None:
            raise self.error or ObjectNotFound("gone")
        self.patches += 1
        kept = {**self.data, **data} if data is not None else {}
        self.data = {key: value for key, value in kept.items() if value is not None}


@pytest.fixture
def there() -> OneConfigMap:
    return OneConfigMap()


def a_switch(there: OneConfigMap, in_hand: list[int]) -> PauseSwitch:
    return PauseSwitch(there, "a", lambda: in_hand[0], stopping=threading.Event())


@pytest.mark.parametrize(
    ("data", "is_paused"),
    [
        (None, False),
        ({}, False),
        ({"reason": "left over"}, False),
        ({"paused": ""}, False),
        ({"paused": " False "}, False),
        ({"paused": "true"}, True),
        ({"paused": "2026-01-01T00:00:00Z"}, True),
    ],
)
def test_what_pauses_is_the_one_key_also_when_it_is_set_by_hand(data: dict[str, str] | None, is_paused: bool) -> None:
    assert (pause_of(data) is not None) is is_paused


def test_who_writes_there_does_not_write_lines_of_the_log() -> None:
    found = pause_of({"paused": "now", "reason": "a\nFORGED line \x1b[31m" + "x" * 10_000})
    assert found is not None
    assert "\n" not in found.sentence
    assert "\x1b" not in found.sentence
    assert len(found.sentence) < 500


def test_a_pause_of_one_queue_holds_that_one_alone_and_says_how_it_ends(
    there: OneConfigMap, caplog: pytest.LogCaptureFixture
) -> None:
    switch = a_switch(there, [0])
    there.patch_config_map(names.PAUSE, switched_on({}, Pause("12:00", "ab", "too many", "ada", "normal")))
    switch.look()
    assert (switch.holds("normal"), switch.holds("urgent"), switch.pause) == (True, False, None)
    [line] = [r.message for r in caplog.records]
    assert line == (
        "Intake from queue normal is paused since 12:00 by ada: too many; `dispatcher resume --queue normal` ends it"
    )
    caplog.clear()
    there.patch_config_map(names.PAUSE, switched_off(there.data or {}, "normal"))
    switch.look()
    assert not switch.holds("normal")
    assert [r.message for r in caplog.records] == ["Intake from queue normal continues: `dispatcher resume`"]
    assert there.data == {}


@pytest.mark.parametrize(("ended", "stays"), [("", "normal"), ("normal", "")])
def test_the_pauses_of_all_and_of_one_queue_end_each_by_its_own_resume(
    there: OneConfigMap, ended: str, stays: str
) -> None:
    for queue in ("", "normal"):
        there.patch_config_map(names.PAUSE, switched_on(there.data or {}, Pause("12:00", "ab", queue=queue)))
    there.patch_config_map(names.PAUSE, switched_off(there.data or {}, ended))
    assert pause_of(there.data, ended) is None
    assert pause_of(there.data, stays) == Pause("12:00", "ab", queue=stays)
    assert set(pauses_of_queues(there.data)) == {stays} - {""}


def test_a_start_receives_nothing_before_it_has_read_the_switch(there: OneConfigMap) -> None:
    there.error = ClusterUnavailable("out of reach")
    switch = a_switch(there, [0])
    assert switch.holds("urgent")
    switch.look()
    assert switch.holds("urgent"), "it may be paused"
    there.error = None
    switch.look()
    assert not switch.holds("urgent")


def test_what_cannot_be_read_leaves_the_last_known_state_and_is_said_once(
    there: OneConfigMap, caplog: pytest.LogCaptureFixture
) -> None:
    switch = a_switch(there, [0])
    there.patch_config_map(names.PAUSE, switched_on({}, PAUSE))
    switch.look()
    there.error = ClusterForbidden("may not get configmaps")
    caplog.clear()
    for _ in range(3):
        switch.look()
    assert switch.holds("urgent")
    [line] = [r.message for r in caplog.records if "cannot be read" in r.message]
    assert "The intake stays as it is: paused" in line
    assert switch.problem == "may not get configmaps"
    there.error, there.data = None, {}
    switch.look()
    assert not switch.holds("urgent")
    assert not switch.problem


def test_a_role_from_before_the_switch_goes_on_as_before(there: OneConfigMap) -> None:
    there.error = ClusterForbidden("may not get configmaps")
    switch = a_switch(there, [0])
    switch.look()
    assert not switch.holds("urgent")


def test_without_a_config_map_nothing_is_paused(there: OneConfigMap) -> None:
    there.data = None
    switch = a_switch(there, [0])
    switch.look()
    assert not switch.holds("urgent")


def test_a_dispatcher_answers_again_and_again_while_it_has_something_in_hand_and_then_once(there: OneConfigMap) -> None:
    in_hand = [2]
    switch = a_switch(there, in_hand)
    there.patch_config_map(names.PAUSE, switched_on({}, PAUSE))
    texts = set()
    for _ in range(3):
        switch.look()
        (number, text) = answers(there.data or {}, PAUSE)["a"]
        assert number == 2
        texts.add(text)
    assert len(texts) == 3, "one that has died with messages in hand stands still"
    in_hand[0] = 0
    before = there.patches
    for _ in range(5):
        switch.look()
    assert answers(there.data or {}, PAUSE)["a"][0] == 0
    assert there.patches == before + 1, "a pause of days writes nothing"


def test_answers_to_a_pause_before_do_not_count_and_are_removed(there: OneConfigMap) -> None:
    there.data = {**answer_of("old", PAUSE, 0, 1), "in-hand.odd": "0a1b many words here", "in-hand.none": "0a1b x 1"}
    later = Pause("2026-01-02T00:00:00Z", "ffff")
    assert answers(there.data, later) == {}
    assert set(answers(there.data, PAUSE)) == {"old"}
    there.patch_config_map(names.PAUSE, switched_on(there.data, later))
    assert not any(key.startswith("in-hand.") for key in there.data)


def test_an_answer_that_may_not_be_written_ends_no_pause(there: OneConfigMap, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = a_switch(there, [1])
    there.patch_config_map(names.PAUSE, switched_on({}, PAUSE))

    def refuse(*_: object) -> None:
        raise ClusterForbidden("may not patch configmaps")

    monkeypatch.setattr(there, "patch_config_map", refuse)
    switch.look()
    assert switch.holds("urgent")
