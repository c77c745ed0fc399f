"""Sizes as people read them, and the room on a disk that a training leaves free."""

from __future__ import annotations

# What a training writes beside the dataset (model, checkpoints, report), left free on the disk.
HEADROOM_BYTES = 256 * 1024 * 1024


def format_bytes(size: int) -> str:
    """1536 → "1.5 KiB"."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
