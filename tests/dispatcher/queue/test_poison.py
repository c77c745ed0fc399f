"""dispatcher.queue.poison: whatever was refused can be read back, with its reason, and put on the queue again."""

from __future__ import annotations

import base64
import gzip
import json
import random
import string
from typing import Any

import pytest

from dispatcher.queue.poison import MAX_ENTRY_BYTES, PoisonEntry, make_entry, parse_entry
from tests.world.builders import T0
from training_common.times import rfc3339


def entry(original: str, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "code": "NotJson",
        "sentence": "The message is neither JSON nor base64 of JSON",
        "message_id": "message-1",
        "delivery_count": 3,
        "queued_at": rfc3339(T0),
        "poisoned_at": rfc3339(T0 + 60),
        "original": original,
    }
    return make_entry(PoisonEntry(**{**arguments, **changes}))


def test_an_entry_says_why_when_and_how_often() -> None:
    assert parse_entry(entry("{oops")) == PoisonEntry(
        code="NotJson",
        sentence="The message is neither JSON nor base64 of JSON",
        message_id="message-1",
        delivery_count=3,
        queued_at="2026-11-23T08:00:00Z",
        poisoned_at="2026-11-23T08:01:00Z",
        original="{oops",
    )


def test_an_entry_is_json_that_anybody_can_read() -> None:
    assert json.loads(entry("{oops"))["original"] == "{oops"


@pytest.mark.parametrize(
    "original",
    [
        "",
        "{" + "a" * (MAX_ENTRY_BYTES - 1),
        "é" * (MAX_ENTRY_BYTES // 2),
        "\x00\x01\x1f" * 20_000,
        "\ud83d" * 1000,
        "\ud83d" * 15_000,
        "😀" * 16_000,
    ],
    ids=["empty", "64 KiB", "64 KiB of two bytes", "control characters", "halves", "many halves", "emoji"],
)
def test_any_original_comes_back_with_its_reason(original: str) -> None:
    text = entry(original)
    assert len(text.encode()) <= MAX_ENTRY_BYTES
    found = parse_entry(text)
    assert (found.original, found.code) == (original, "NotJson")


def test_what_does_not_fit_with_its_reason_is_kept_without() -> None:
    letters = string.ascii_letters + string.digits + string.punctuation
    original = "".join(random.Random(1).choices(letters, k=MAX_ENTRY_BYTES))
    assert entry(original) == original
    found = parse_entry(original)
    assert (found.original, found.code, found.message_id) == (original, "Unknown", "")


def test_the_same_message_makes_the_same_entry() -> None:
    assert entry("a" * 60_000) == entry("a" * 60_000)


def packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content)).decode()


ENVELOPE: dict[str, Any] = {
    "code": "NotJson",
    "sentence": "x",
    "message_id": "m",
    "delivery_count": 1,
    "queued_at": "",
    "poisoned_at": "",
    "original": "y",
}
WITHOUT = {key: value for key, value in ENVELOPE.items() if key != "original"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        '"original"',
        "5",
        "null",
        "{}",
        '{"original": "x"}',
        '"original_gzip"',
        "[" * 50_000,
        json.dumps({**ENVELOPE, "delivery_count": "many"}),
        json.dumps({**ENVELOPE, "delivery_count": None}),
        json.dumps(ENVELOPE).replace('"delivery_count": 1', '"delivery_count": 1e999'),
        json.dumps({**WITHOUT, "original_gzip": 5}),
        json.dumps({**WITHOUT, "original_gzip": "no base64!"}),
        json.dumps({**WITHOUT, "original_gzip": "aGVsbG8="}),
        json.dumps({**WITHOUT, "original_gzip": packed(b"hello")[:20]}),
        json.dumps({**WITHOUT, "original_gzip": base64.b64encode(gzip.compress(b"hello")[:10] + b"\xff" * 9).decode()}),
        json.dumps({**WITHOUT, "original_gzip": packed(b"\xff\xfe")}),
        json.dumps({**WITHOUT, "original_gzip": packed(b"a" * (MAX_ENTRY_BYTES + 1))}),
        json.dumps({**WITHOUT, "original_gzip": packed(b"\0" * 30_000_000)}),
    ],
    ids=range(21),
)
def test_what_somebody_else_put_there_is_an_entry_too(text: str) -> None:
    found = parse_entry(text)
    assert (found.code, found.original) == ("Unknown", text)
