"""Settings of runs in local folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer_image.run.local_runs import RUN
from tests.world.trainer_fakes import write_config, write_dataset
from trainer_image.config.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Local folders, launched by the dispatcher, tracked."""
    return Settings(
        run_id=RUN,
        dispatched=True,
        tracking=True,
        model_container="model-123",
        api_base_url="https://portal.example.com",
        api_key="key-of-the-portal",
        report_retry_seconds=0.0,
        progress_seconds=3600.0,
        termination_path=tmp_path / "termination-log",
        work_dir=tmp_path / "work",
        data=write_dataset(tmp_path),
        config=write_config(tmp_path),
        out=tmp_path / "out",
        device="cpu",
    )


@pytest.fixture
def standalone(settings: Settings) -> Settings:
    return replace(settings, dispatched=False)
