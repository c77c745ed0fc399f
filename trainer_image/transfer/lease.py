"""One writer for a model: a lease that the running trainer renews, and whose loss shows that it has been replaced.

Kubernetes runs a pod at least once. The replacement of a pod that is gone waits until its lease has run out; a
newer run takes the lease from an older one that may still be alive on a lost node.
"""

from __future__ import annotations

import logging
import re
import threading
import time

from trainer_image.errors import Fenced, Terminated
from trainer_image.stop import Stop
from trainer_image.storage import untrusted_json
from trainer_image.storage.container import (
    BlobChanged,
    BlobMissing,
    Container,
    ContainerMissing,
    Lease,
    LeaseHeld,
    StorageFault,
)
from training_common.times import run_stamp

log = logging.getLogger(__name__)

LEASE = ".run.lease"
RENEW_SECONDS = 5.0
# The lease of a holder that died an instant ago, and a little more.
WAIT_SECONDS = 20.0
# Seconds that the clocks of two machines may differ by.
SKEW = 60.0
# The dispatcher's run ids start with the time of the request.
_STAMP = re.compile(r"[0-9]{8}t[0-9]{6}-", re.ASCII)


class RunLease:
    """Held from `take` to `release`; sets `stop` to "fenced" when another holder has taken it."""

    def __init__(self, lease: Lease, stop: Stop, renew_seconds: float = RENEW_SECONDS) -> None:
        self._lease = lease
        self._stop = stop
        self._renew_seconds = renew_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Raises Fenced when another has it. Not knowing is no reason: publication is conditional by itself."""
        try:
            self._lease.renew()
        except LeaseHeld:
            raise Fenced("Another pod owns this run: nothing is published") from None
        except StorageFault as fault:
            log.warning("The lease could not be confirmed: %s", fault.why)

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        self._lease.release()

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_seconds):
            try:
                self._lease.renew()
            except LeaseHeld:
                log.error("Another pod owns this run: training stops")
                self._stop.set("fenced")
                return
            except StorageFault as fault:
                log.warning("The lease was not renewed: %s", fault.why)


def take(
    container: Container,
    run_id: str,
    stop: Stop,
    *,
    wait_seconds: float = WAIT_SECONDS,
    renew_seconds: float = RENEW_SECONDS,
    take_over: bool = True,
) -> RunLease:
    """Raises Fenced when another keeps the lease for longer than a dead holder could, or is newer; StorageFault.

    take_over: a newer run takes it from an older one that is alive
    """
    deadline = time.monotonic() + wait_seconds
    waited = False
    while True:
        owner = owner_of(container)
        if owner is not None and newer(owner, run_id):
            raise Fenced(f"A newer run ({owner}) has taken over this model")
        try:
            overtaken = take_over and owner is not None and newer(run_id, owner)
            lease = container.lease(LEASE, run_id, take_over=overtaken)
            return RunLease(lease, stop, renew_seconds)
        except LeaseHeld as fault:
            if stop.is_set():
                raise Terminated("Training was stopped while it waited for an earlier pod", step=0) from None
            if time.monotonic() > deadline:
                if owner not in (None, run_id):
                    raise Fenced(
                        f"Another training of this model is under way (run {owner}): {fault.why}; wait until it has"
                        " ended, or stop it"
                    ) from None
                raise Fenced(f"Another pod owns this run: {fault.why}") from None
            if not waited:
                log.info("Waiting for the lease of an earlier pod to run out: %s", fault.why)
            waited = True
            stop.event.wait(1.0)


def owner_of(container: Container) -> str | None:
    """Who took the lease last, whether or not it is still held."""
    try:
        owner = untrusted_json.loads(container.read(LEASE, 4096)[0])["owner"]
    except (BlobMissing, BlobChanged, ContainerMissing, ValueError, KeyError, TypeError):
        return None
    return owner if isinstance(owner, str) else None


def newer(run_id: str, other: str) -> bool:
    """Only where both say when they were requested, and never by a time that is yet to come: a clock was wrong then."""
    both = _STAMP.match(run_id) and _STAMP.match(other)
    latest = run_stamp(time.time() + SKEW)
    return bool(both) and other[:15] < run_id[:15] <= latest
