"""`make demo`: requests on a real queue become trained, published and reported models, on this machine.

Azurite, the stand-in portal, the stand-in cluster and the dispatcher run as processes; data sets are uploaded,
requests are put on the queue, and progress is shown until everything has come to rest. Then each outcome is compared
with the expected one.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from rich.console import Console

from local_stack.azurite import AzuriteMissing
from local_stack.demo import data
from local_stack.demo.help import how_to_use_it
from local_stack.demo.requests import REQUESTS, Request, on_nodes
from local_stack.demo.view import Progress, make_console, print_outcomes
from local_stack.demo.watch import Seen, Snapshot, Watch
from local_stack.processes import Service, ServiceFailed, end_by_pid, interrupted_once, log_tail, started_at
from local_stack.stack import GPUS, ROOT, Stack

FOLDER = ROOT / ".local" / "demo"
STATE = FOLDER / "state.json"
# Seconds after which the demo gives up waiting for its requests.
DEADLINE = 240.0
LOOK_EVERY = 0.5

EXIT_OK, EXIT_UNEXPECTED, EXIT_NOT_STARTED, EXIT_INTERRUPTED = 0, 1, 2, 130


def run(*, keep: bool = False, send: bool = True, scoped: bool = False, nodes: int = 1) -> int:
    """The whole demo. keep: leave everything running; send: put the requests on the queue; scoped: see Stack.
    nodes: more than one: a further request, for a training on so many

    Returns the exit code: 0 only if every outcome is the expected one.
    """
    console = make_console()
    FOLDER.parent.mkdir(exist_ok=True)
    with (FOLDER.parent / "demo.lock").open("w") as lock:
        if not _take(lock):
            console.print("A demo is already running in another terminal; nothing was started.")
            return EXIT_NOT_STARTED
        if up := running():
            console.print("A demo is already up; nothing was started.")
            console.print(how_to_use_it(FOLDER, up), markup=False, soft_wrap=True)
            return EXIT_NOT_STARTED
        shutil.rmtree(FOLDER, ignore_errors=True)
        with interrupted_once():
            try:
                return _run(console, keep, send, scoped, nodes)
            except KeyboardInterrupt:
                console.print("Interrupted; everything that was started has been stopped.")
                return EXIT_INTERRUPTED
            except (ServiceFailed, AzuriteMissing) as error:
                console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
                return EXIT_NOT_STARTED


def down(quiet: bool = False) -> int:
    """Stop what a kept demo left running."""
    up = running()
    for pid, mark in up.values():
        end_by_pid(pid, mark)
    STATE.unlink(missing_ok=True)
    if not quiet:
        print(f"Stopped: {', '.join(up)}." if up else "No demo is up.")
    return EXIT_OK


def running() -> dict[str, tuple[int, str]]:
    """name → (pid, starting mark) of what an earlier demo left running, kept or killed."""
    try:
        noted = json.loads(STATE.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {name: (pid, mark) for name, (pid, mark) in noted.items() if started_at(pid) == mark}


def _run(console: Console, keep: bool, send: bool, scoped: bool, nodes: int) -> int:
    kept, wrong = False, 0
    requests = (*REQUESTS, *([on_nodes(nodes)] if nodes > 1 else []))
    stack = Stack(FOLDER, scoped=scoped, gpus=GPUS + (nodes if nodes > 1 else 0))
    try:
        console.print(f"Starting Azurite, a stand-in portal and a stand-in cluster with {stack.gpus} GPUs ...")
        stack.start()
        stack.settings["MAX_NODES"] = str(nodes)
        _note(stack)
        console.print("Uploading data sets and configurations ...")
        prepare(stack, requests)
        console.print("Starting the dispatcher ...")
        dispatcher = stack.start_dispatcher()
        _note(stack)
        console.print(f"Its status page is http://127.0.0.1:{stack.settings['HEALTH_PORT']}/", soft_wrap=True)
        if send:
            wrong = _requests(console, stack, dispatcher, keep, requests)
        if keep:
            stack.write_environment()
            kept = True
            console.print(how_to_use_it(FOLDER, running()), markup=False, soft_wrap=True)
        return EXIT_UNEXPECTED if wrong else EXIT_OK
    finally:
        if not kept:
            stack.stop()
            STATE.unlink(missing_ok=True)


def _note(stack: Stack) -> None:
    """Write down what runs, so that `down` finds it even after this process was killed."""
    STATE.write_text(json.dumps(stack.pids(), indent=2), encoding="utf-8")


def _requests(console: Console, stack: Stack, dispatcher: Service, keep: bool, requests: tuple[Request, ...]) -> int:
    """Send them, show progress, compare the outcomes. Returns the number of mismatches."""
    watch = Watch(stack, requests)
    snapshot, problems = _follow(console, watch, dispatcher)
    outcomes = watch.outcomes(snapshot)
    if not keep and dispatcher.returncode is None and (code := dispatcher.stop(grace=30)) != 0:
        problems.append(f"the dispatcher should end with code 0 on SIGTERM, but ended with {code}")
    wrong = print_outcomes(console, requests, outcomes, problems)
    console.print(f"The logs of all processes are in {stack.logs.relative_to(ROOT)}.", soft_wrap=True)
    verdict = f"{wrong} not as expected." if wrong else "Every outcome is the expected one."
    console.print(verdict, style="bold red" if wrong else "bold green")
    return wrong


def prepare(stack: Stack, requests: tuple[Request, ...]) -> None:
    """Before the first message: upload data and configurations, and make the models known to the portal."""
    blobs = stack.blobs
    with tempfile.TemporaryDirectory() as scratch:
        for name, write in {
            "dataset-tumours": data.write_breast_cancer,
            "dataset-digits": lambda folder: data.write_digits(folder, per_class=100),
            "dataset-diabetes": data.write_diabetes,
        }.items():
            folder = Path(scratch) / name
            write(folder)
            data.upload_folder(blobs, name, folder)
    for request in requests:
        if request.container is not None and request.model_id is not None and request.portal is not None:
            data.create_container(blobs, request.container)
            if request.config:
                data.upload_config(blobs, request.container, request.config)
            stack.portal.set_model(request.model_id, *request.portal)


def _follow(console: Console, watch: Watch, dispatcher: Service) -> tuple[Snapshot, list[str]]:
    """Send the requests and show progress until all is settled: the last snapshot, and what went wrong."""
    began = time.monotonic()
    waiting = list(watch.requests)
    with Progress(console, watch.requests, watch.stack.gpus) as progress:
        snapshot = watch.look()
        while True:
            for request in [r for r in waiting if r.after is None or _has_started(snapshot.requests[r.after])]:
                waiting.remove(request)
                watch.stack.queue().send_message(request.message)
                watch.sent[request.name] = time.time()
                progress.say(time.monotonic() - began, f"sent: {request.name} ({request.what})")
            snapshot = watch.look()
            seconds = time.monotonic() - began
            progress.show(seconds, snapshot)
            if not waiting and watch.settled(snapshot):
                return snapshot, []
            if dispatcher.returncode is not None:
                words = log_tail(dispatcher.log)
                return snapshot, [f"the dispatcher ended with code {dispatcher.returncode}; its log ends:\n{words}"]
            if seconds > DEADLINE:
                return snapshot, [f"not everything was settled within {DEADLINE:g} s"]
            time.sleep(LOOK_EVERY)


def _has_started(seen: Seen) -> bool:
    return seen.job in ("running", "succeeded", "failed")


def _take(lock: IO[str]) -> bool:
    """Whether no other demo is running now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(run())
