"""The trainer's download beside the SDK's `download_blob`, from one Azurite, in pairs, each in its own process.

    python -m benchmarks.download --mib 512 --rounds 5

Processor time is the downloading process's own; the emulator's, which bounds the wall time, is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from azure.storage.blob import BlobServiceClient

from local_stack.azurite import Azurite
from trainer_image.limits import Limits
from trainer_image.storage.azure import open_container
from trainer_image.transfer.download import RANGE_BYTES, Download, lock_dataset

WAYS = ("trainer", "sdk")
CONNECTIONS = 8


def fetch(way: str, connection_string: str, container: str, folder: Path) -> dict[str, float]:
    """Downloads the container's one blob: wall and processor seconds, and by how much the peak of memory grew (MiB)."""
    storage = open_container(connection_string, None, container)
    lock = lock_dataset(storage, Limits())
    client = BlobServiceClient.from_connection_string(
        connection_string, max_single_get_size=RANGE_BYTES, max_chunk_get_size=RANGE_BYTES
    ).get_blob_client(container, lock.blobs[0].name)
    before, peak = time.process_time(), _peak()
    began = time.monotonic()
    if way == "trainer":
        Download(storage, lock, folder, lambda: False, connections=CONNECTIONS).run()
    else:
        with (folder / lock.blobs[0].name).open("wb") as file:
            client.download_blob(max_concurrency=CONNECTIONS).readinto(file)
    return {
        "wall": time.monotonic() - began,
        "cpu": time.process_time() - before,
        "memory": (_peak() - peak) / 2**10,
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(mib: int, rounds: int) -> None:
    """Prints a line for each download, then medians and the medians of the pairs' ratios."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Azurite(log=Path(folder) / "azurite.log").start()
        try:
            name = f"dataset-{secrets.token_hex(6)}"
            container = BlobServiceClient.from_connection_string(storage.connection_string).create_container(name)
            block = os.urandom(2**20)
            container.upload_blob("train.bin", (block for _ in range(mib)), length=mib * 2**20)
            found = _rounds(storage.connection_string, name, Path(folder), rounds)
        finally:
            storage.stop()
    gib = mib / 1024
    for way in WAYS:
        wall, cpu, memory = (statistics.median(one[way][key] for one in found) for key in ("wall", "cpu", "memory"))
        print(f"{way:8} median: {gib / wall:.2f} GiB/s, {cpu / gib:.2f} CPU seconds a GiB, {memory:.0f} MiB of memory")
    for key in ("wall", "cpu"):
        ratio = statistics.median(one["trainer"][key] / one["sdk"][key] for one in found)
        print(f"trainer / sdk, {key}: {ratio:.2f} (median of {rounds} pairs)")


def _rounds(connection_string: str, name: str, folder: Path, rounds: int) -> list[dict[str, dict[str, float]]]:
    found = []
    for number in range(rounds):
        measured = {}
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            command = [
                sys.executable,
                "-m",
                "benchmarks.download",
                "--child",
                way,
                connection_string,
                name,
                str(folder),
            ]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            measured[way] = json.loads(answer.stdout)
            print(f"{number + 1} {way:8} " + ", ".join(f"{k} {v:.2f}" for k, v in measured[way].items()), flush=True)
        found.append(measured)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.download", description=__doc__)
    parser.add_argument("--mib", type=int, default=512, help="size of the blob (512)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of downloads (5)")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, connection_string, name, folder = options.child
        with tempfile.TemporaryDirectory(dir=folder) as own:
            print(json.dumps(fetch(way, connection_string, name, Path(own))))
    else:
        run(options.mib, options.rounds)


if __name__ == "__main__":
    main()
