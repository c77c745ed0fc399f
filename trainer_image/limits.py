"""The operator's limits on untrusted data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """0 switches a limit off."""

    dataset_bytes: int = 200 * 1024**3
    dataset_files: int = 5_000_000
    image_pixels: int = 64_000_000
    table_columns: int = 10_000
    field_bytes: int = 1024 * 1024
    output_bytes: int = 100 * 1024**3
