"""Leaves the tests' own process as it was."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from trainer_image.command import process


@pytest.fixture(autouse=True)
def _visible() -> Iterator[None]:
    """The tests' own process is not hidden from its children for good."""
    yield
    ctypes.CDLL(None).prctl(process._PR_SET_DUMPABLE, 1)
