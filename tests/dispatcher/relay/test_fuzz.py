"""Whatever bytes a training sends, no model's status but its own is read or changed, and the next call is served."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from portal_client.statuses import ModelStatus, ProcessingStatus
from tests.dispatcher.relay.relay_world import OTHER_RUN, RelayWorld

S = ProcessingStatus
METHODS = (
    "GET",
    "PUT",
    "POST",
    "DELETE",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "put",
    "PUT\t",
    "__init__",
    "",
)
PIECES = (
    *(
        "/",
        "//",
        "/api/external/models/",
        "1",
        "2",
        "/status",
        "status",
        ".",
        "..",
        "%2e%2e",
        "%2f",
        "%00",
        "%0d%0a",
        "?",
    ),
    *("?id=2", "&", "#", ";", "\\", "\t", "@portal.example.com", "http://portal.example.com", "ä", "\x7f", "training/"),
    *("/api/external/models/2/status", "/api/external/models/1/status", "/api/external/models/status"),
)
IDS = ('"1"', '"2"', "1", "2", "null", '"1/../2"', '"1\\u0000"', '["1","2"]', '{"1":2}', '"１"')
STATUSES = ("0", "1", "2", "3", "4", '"Completed"', '"created"', "-1", "1e0", "true", "null", '"2 "', "[2]")
MESSAGES = ('"m"', '"' + "x" * 5000 + '"', '"\\ud800"', '"a\\r\\nX: y"', "1", "null", '"\\u0000"')
TRAPS = (
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: 99999999999",
    "Content-Length: 1, 2",
    "Content-Length : 3",
    "Connection: close",
    "Expect: 100-continue",
    "X-HTTP-Method-Override: DELETE",
    "X-Original-URL: /api/external/models/2/status",
    "Host: evil.example",
    "x-api-key: nonsense",
    "Authorization: Bearer nonsense",
    "no colon",
    " folded",
    "ModelId: 2",
    "X-Long: " + "x" * 70_000,
)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[RelayWorld]:
    world = RelayWorld()
    world.portal.models["2"] = ModelStatus(S.CREATED, "as it was")
    yield world
    world.stop()


def a_request(chance: random.Random, world: RelayWorld) -> bytes:
    method = chance.choice(METHODS if chance.random() < 0.4 else ("GET", "PUT"))
    if chance.random() < 0.5:
        target = chance.choice(PIECES[-3:])
    else:
        target = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 6)))
    fields = [
        ("ModelId", chance.choice(IDS)),
        ("Status", chance.choice(STATUSES)),
        ("Message", chance.choice(MESSAGES)),
    ]
    fields += [("ModelId", chance.choice(IDS))] if chance.random() < 0.3 else []
    fields += [("modelId", chance.choice(IDS))] if chance.random() < 0.3 else []
    chance.shuffle(fields)
    body = ("{" + ",".join(f'"{name}":{value}' for name, value in fields) + "}").encode()
    token = chance.choice((world.token(), world.token(), world.token("2"), world.token(run_id=OTHER_RUN), "x"))
    lines = [f"{method} {target} HTTP/1.{chance.choice('110')}", "Host: relay"]
    lines.append(chance.choice((f"x-api-key: {token}", f"Authorization: Bearer {token}")))
    if chance.random() < 0.1:
        lines.append(f"x-api-key: {world.token('2')}")
    if chance.random() < 0.8:
        lines.append(f"Content-Length: {len(body)}")
    lines += chance.sample(TRAPS, chance.randint(0, 2))
    sent = "\r\n".join([*lines, "", ""]).encode() + body
    if chance.random() < 0.1:
        place = chance.randrange(len(sent))
        sent = sent[:place] + chance.randbytes(2) + sent[place:]
    return sent


def answered(world: RelayWorld, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", world.server.port), timeout=10) as connection, suppress(OSError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(65536):
            answer += more
        return answer
    return b""


@pytest.mark.parametrize("seed", range(8))
def test_no_bytes_reach_another_models_status(fuzzed: RelayWorld, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(120):
        fuzzed.now += 1000
        fuzzed.portal.models["1"] = ModelStatus(S.PROCESSING, "")
        fuzzed.relay._told.clear()
        fuzzed.portal.calls.clear()
        sent = a_request(chance, fuzzed)
        answer = answered(fuzzed, sent)
        assert set(fuzzed.portal.calls) <= {"GET 1", "PUT 1 Processing", "PUT 1 Completed", "PUT 1 Failed"}, sent
        assert fuzzed.portal.models["2"] == ModelStatus(S.CREATED, "as it was"), sent
        assert b"as it was" not in answer, sent
        assert answer.startswith((b"HTTP/1.", b"<!DOCTYPE HTML>", b"")), sent
        assert b" 500 " not in answer.partition(b"\r\n")[0], sent
    fuzzed.now += 1000
    assert fuzzed.get()[0] == 200


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 999_999_999])
def test_a_body_is_bounded_and_none_is_read_beyond_its_bound(fuzzed: RelayWorld, size: int) -> None:
    fuzzed.now += 1000
    head = f"PUT /api/external/models/status HTTP/1.1\r\nx-api-key: {fuzzed.token()}\r\nContent-Length: {size}\r\n\r\n"
    answer = answered(fuzzed, head.encode() + b" " * min(size, 70_000))
    # What is not read may reset the connection before its answer is.
    assert answer.split()[1:2] in ([[b"413"], []] if size > 64 * 1024 else [[b"400"]])


def test_two_requests_on_one_connection_are_answered_in_turn(fuzzed: RelayWorld) -> None:
    fuzzed.now += 1000
    one = f"GET /api/external/models/1/status HTTP/1.1\r\nx-api-key: {fuzzed.token()}\r\n\r\n".encode()
    other = one.replace(b"models/1", b"models/2")
    assert re.findall(rb"HTTP/1.1 (\d+)", answered(fuzzed, one + other + one)) == [b"200", b"403", b"200"]


def test_what_follows_a_refused_body_is_not_taken_for_a_request(fuzzed: RelayWorld) -> None:
    fuzzed.now += 1000
    fuzzed.portal.calls.clear()
    inner = f"GET /api/external/models/1/status HTTP/1.1\r\nx-api-key: {fuzzed.token()}\r\n\r\n"
    for trap in ("Transfer-Encoding: chunked", "Content-Length: 3\r\nContent-Length: 4", "Content-Length: 99999999"):
        head = f"PUT /api/external/models/status HTTP/1.1\r\nx-api-key: {fuzzed.token()}\r\n{trap}\r\n\r\n"
        answer = answered(fuzzed, (head + inner).encode())
        assert answer.count(b"HTTP/1.1 ") == 1, trap
    assert fuzzed.portal.calls == []
