"""Where things lie in this repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
JOB_TEMPLATE = MANIFESTS / "base" / "job-template.yaml"
RECORDED = ROOT / "tests" / "recorded"


def read(name: str) -> str:
    """The text of a file, by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")
