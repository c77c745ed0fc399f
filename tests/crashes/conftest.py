"""Prints what was explored, and lets the stages' logs cost nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.crashes.explore import DEFECTS, TALLY


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    log = logging.getLogger("dispatcher")
    level = log.level
    log.setLevel(logging.ERROR)
    log.addHandler(DEFECTS)
    yield
    log.removeHandler(DEFECTS)
    log.setLevel(level)


@pytest.fixture(autouse=True, scope="session")
def _tally() -> Iterator[None]:
    yield
    print(f"\nexplored: {TALLY}")
