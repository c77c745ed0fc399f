"""The stage between a real queue, stand-in portal and stand-in cluster, for the rows that need real processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.stages.conftest import stage, stage_cluster

__all__ = ["stage", "stage_cluster"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What the stages log in the world of the crash explorer costs time and tells nobody anything."""
    log = logging.getLogger("dispatcher")
    level = log.level
    log.setLevel(logging.ERROR)
    yield
    log.setLevel(level)
