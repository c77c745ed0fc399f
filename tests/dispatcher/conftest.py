"""What the tests of the dispatcher's rooms share."""

from __future__ import annotations

import pytest

from tests.world.builders import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that goes only when told to."""
    return FakeClock()
