from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dispatcher.relay.relay_world import RelayWorld


@pytest.fixture
def world() -> Iterator[RelayWorld]:
    made = RelayWorld()
    yield made
    made.stop()
