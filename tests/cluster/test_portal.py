"""The portal that runs in a pod: a model is walked through it as through a real one, and StandInPortal makes models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from dispatcher.cli.checks.portal_walk import PortalWalk
from local_stack.portal.client import StandInPortal
from portal_client.client import PortalClient
from tests.cluster.portal import Portal


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInPortal]:
    monkeypatch.setattr(Portal, "key", "k3y")
    monkeypatch.setattr(Portal, "models", {})
    monkeypatch.setattr(Portal, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield StandInPortal(f"http://127.0.0.1:{server.server_port}", "k3y", service=None)
        server.shutdown()
        thread.join()


def test_a_model_is_walked_through_it_without_a_word_of_blame(portal: StandInPortal) -> None:
    portal.set_model("0")
    ours, strangers = (PortalClient(portal.url, key) for key in ("k3y", "wr0ng"))
    walk = PortalWalk(ours, strangers, "0", "nobody", 0.0, sleep=lambda _: None)
    said = [(result.name, result.result, result.sentence) for result in walk.results()]
    assert {result for _, result, _ in said} == {"ok"}, said
    assert (portal.model("0").status, len(said)) == ("Reconfigure", 9)
    assert {entry.by for entry in portal.model("0").history} == {"control", "api"}
