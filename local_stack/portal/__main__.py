"""The portal's status API, standing in for the real one: two endpoints, recorded calls, scripted faults.

    python -m local_stack.portal --port 0 --api-key K --ready-file F [--auth both]
                                      [--tls-cert F --tls-key F] [--create-unknown] [--numeric]

Listens on 127.0.0.1 only. The ready file is JSON {"url": ...}, there once it listens.

The status API (key needed):
    GET /api/external/models/{id}/status     PUT /api/external/models/status

Control (no key):
    PUT    /_stub/models/{id}   {"status": "Created", "message": ""}: creates or sets a model
    PUT    /_stub/models        {"models": [id, ...], "status": "Created"}: many at once
    GET    /_stub/models        {id: {"status", "message", "history": [...]}}, an entry of the history
                                being {"status", "message", "by": "control" or "api", "wall", "monotonic"}
    DELETE /_stub/models/{id}
    GET    /_stub/calls         [{"number", "method", "path", "model", "body", "auth", "status", "fault",
                                "wall", "monotonic"}]; auth names the header that carried a key ("x-api-key",
                                "bearer", "none"), never the key; status is null for a call without an answer
    DELETE /_stub/calls
    POST   /_stub/faults        {"kind", "method", "model", "status", "headers", "count", "after", "seconds", "most"}
                                -> {"id"}
    DELETE /_stub/faults        also ends the hangs

Faults are tried in the order they were added. `method`, `model`: which calls (null: all). `count`: how many
(default 1; null: until deleted). `after`: the call is carried out first, then fails; one that is refused
anyway does not use it up. Kinds:
    status    `status` (default 500) with a JSON problem
    html      a login page; empty: no body; garbage: no JSON although its content type is; `status` default 200
    cut       the connection ends without an answer
    hang      no answer until the faults are deleted, then a cut; with `seconds`: a proper answer, that late
    drip      a header that never ends, a byte at a time, until the faults are deleted
    stale     a GET answers with what stood there `seconds` (default 60) ago, as a cache or a replica does
    denied    200 with {"success": false}
    login     `status` (default 302) to a login page, as some portals refuse a key
    longer    `status` (default 400) to a PUT whose Message has more than `most` characters
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
from pathlib import Path

from aiohttp import web

from local_stack.portal.server import PortalServer
from local_stack.serving import stop_signal, write_private


async def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    portal = PortalServer(options.api_key, options.auth, create_unknown=options.create_unknown, numeric=options.numeric)
    tls = None
    if options.tls_cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls_cert, options.tls_key)
    runner = web.AppRunner(portal.application(), access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    stop = stop_signal()
    if options.ready_file:
        write_private(options.ready_file, json.dumps({"url": url}))
    print(f"The stand-in portal listens on {url}", flush=True)
    await stop.wait()
    portal.end_hangs()
    await runner.cleanup()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local_stack.portal", description="A stand-in portal")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("--api-key", required=True)
    parser.add_argument(
        "--auth", choices=("both", "x-api-key", "bearer"), default="both", help="which header may carry the key"
    )
    parser.add_argument("--create-unknown", action="store_true", help="a PUT creates a model that is unknown")
    parser.add_argument("--numeric", action="store_true", help="a GET answers numbers instead of words")
    parser.add_argument("--tls-cert", help="PEM file; with --tls-key it speaks https")
    parser.add_argument("--tls-key")
    parser.add_argument("--ready-file", type=Path)
    options = parser.parse_args(arguments)
    if bool(options.tls_cert) != bool(options.tls_key):
        parser.error("--tls-cert and --tls-key belong together")
    try:
        asyncio.run(serve(options))
    except OSError as error:
        print(f"The stand-in portal cannot start on port {options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
