"""What a pod reaches. This file is run in it as `python3 -c`, by itself: nothing but the standard library.

The one argument is JSON, name → [host, port]; a host or port that begins with "$" is that variable's value, and left
out where there is none. The termination message is JSON, name → whether a connection was made.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS = 5.0
MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def is_open(host: str, port: int) -> bool:
    """Whether somebody accepts a connection in time."""
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError:
        return False
    return True


def main(argument: str) -> str:
    """The termination message."""
    where = {}
    for name, (host, port) in json.loads(argument).items():
        known = [os.environ.get(str(text)[1:]) if str(text).startswith("$") else str(text) for text in (host, port)]
        if all(known):
            where[name] = (str(known[0]), int(str(known[1])))
    with ThreadPoolExecutor(len(where) or 1) as pool:
        found = dict(zip(where, pool.map(lambda at: is_open(*at), where.values()), strict=True))
    found["token"] = MOUNTED.exists()
    return json.dumps(found)


if __name__ == "__main__":
    Path(os.environ.get("TERMINATION_MESSAGE_PATH", "/dev/termination-log")).write_text(main(sys.argv[1]))
