"""A parser for `trainer_image.data.apart` that does to its process what the request says."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from trainer_image.data import apart
from trainer_image.errors import invalid


def answer(request: dict[str, Any]) -> Iterator[bytes]:
    yield str(os.getpid()).encode()
    match request["do"]:
        case "abort":
            os.abort()
        case "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise IndexError("a defect")
        case "refuse":
            raise invalid(request["name"], "row 7: is no number")
        case "take memory":
            yield bytearray(2 * apart.MEMORY_BYTES)
        case "fall silent":
            time.sleep(60)
        case "print":
            print("a library prints", flush=True)
        case "tell":
            yield repr(dict(os.environ)).encode()
    yield b"end"


if __name__ == "__main__":
    apart.serve(answer)
