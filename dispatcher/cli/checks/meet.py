"""Whether the pods of a training on several nodes find and reach each other. This file is run in each of them as
`python3 -c`, by itself: nothing but the standard library.

Each listens at its own address and calls all of them, itself as well, by the names that the variables MASTER_ADDR and
OTHER_ADDR hold. The one argument is for how many seconds. The termination message says why one was not reached; it is
empty where each has reached each.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_PAUSE = 0.5
_PATIENCE = 5.0


def main(address: str, port: int, me: str, hosts: Sequence[str], seconds: float) -> str:
    """Why one of `hosts`, one for each pod, was not reached in time or has not called, "" where all have.

    address: our own; me: our number among them, from "0".
    """
    until = time.monotonic() + seconds
    called: set[str] = set()
    with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        threading.Thread(target=_listen, args=(server, called), daemon=True).start()
        left = list(hosts)
        while True:
            tried = {host: _call(host, port, me) for host in left}
            left = [host for host, why in tried.items() if why]
            if not left and len(called) == len(hosts):
                return ""
            if time.monotonic() > until:
                return next((why for why in tried.values() if why), "another one does not reach this pod")
            time.sleep(_PAUSE)


def _listen(server: socket.socket, called: set[str]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(_PATIENCE)
            try:
                called.add(connection.recv(16).decode("ascii", "replace"))
            except OSError:
                continue


def _call(host: str, port: int, me: str) -> str:
    """Why it was not reached, "" where it was."""
    try:
        with socket.create_connection((host, port), _PATIENCE) as connection:
            connection.sendall(me.encode())
    except socket.gaierror:
        return f"the name {host} is not known"
    except OSError as error:
        return f"{host} does not answer: {error}"
    return ""


if __name__ == "__main__":
    env = os.environ
    peers = [env["MASTER_ADDR"], env["OTHER_ADDR"]]
    said = main(env["POD_IP"], int(env["MASTER_PORT"]), env["NODE_RANK"], peers, float(sys.argv[1]))
    Path(env.get("TERMINATION_MESSAGE_PATH", "/dev/termination-log")).write_text(said)
