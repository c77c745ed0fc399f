"""How many CPUs a training takes: what it is given, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trainer_image.host.devices import usable_cpus


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 8),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("", 8),
        ("nonsense", 8),
        (None, 8),
    ],
)
def test_a_containers_quota_counts_and_is_never_less_than_one(tmp_path: Path, quota: str | None, cpus: int) -> None:
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert usable_cpus(tmp_path / "cpu.max") == cpus


@pytest.mark.parametrize(
    ("said", "cpus"), [("3", 3), (" 2", 2), ("4,2", 4), ("64", 8), ("0", 8), ("", 8), ("many", 8), ("-1", 8)]
)
def test_omp_num_threads_is_honoured_where_it_says_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, cpus: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert usable_cpus(tmp_path / "cpu.max") == cpus


def test_torchruns_own_omp_num_threads_is_nobodys_wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    assert usable_cpus(tmp_path / "cpu.max") == 8


def test_the_smaller_of_quota_and_wish_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("400000 100000")
    for said, cpus in (("2", 2), ("6", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert usable_cpus(tmp_path / "cpu.max") == cpus
