"""What a server of the local stack does besides serving: it writes where it listens, and ends on a signal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any


def write_private(path: Path, text: str) -> None:
    """A file that only we may read. Whole or not at all, because others wait for it to appear."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_ready_file(path: Path) -> dict[str, Any] | None:
    """What a server wrote when it was listening; None while it has not."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT, which from now on do not end the process by themselves."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
