"""`dispatcher check --portal MODEL`: walks a model that was made for it through what trainings do to one.

It writes: Processing, Failed and, at its end, Reconfigure, so that it can be walked again. What the portal does
otherwise than docs/portal.md says is a sentence that its developers can act on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from dispatcher import factories
from dispatcher.cli.checks.results import CheckResult, Otherwise
from dispatcher.config.settings import Settings
from portal_client import messages
from portal_client.errors import (
    ModelUnknown,
    NotAcknowledged,
    PortalError,
    PortalUnauthorized,
    WriteConflict,
)
from portal_client.model_ids import extract_model_id
from portal_client.protocol import Portal
from portal_client.statuses import ModelStatus
from portal_client.statuses import ProcessingStatus as Status

# Seconds between two looks at a status that is behind; and how often it is read once it was right: of two replicas one
# may show it first.
_LOOK_EVERY, _READ_AGAIN = 0.5, 3
_PROGRESS = "Epoch 3 of 10, loss 0.123"
# As outcomes may be: what a firewall or a narrow column refuses is found out now, and not at the end of a training.
_HARD = "Invalid dataset: train.csv, row 7: expected '<number>', found \"n/a\" & 'ü–漢🙂'; SELECT ../etc/passwd -- "
_LONG = (_HARD * (messages.MESSAGE_LIMIT // len(_HARD) + 1))[: messages.MESSAGE_LIMIT // 2].rstrip()
_FAILED = "Out of GPU memory at batch size 1"
_DONE = "Walked by `dispatcher check --portal`"


def open_walk(settings: Settings, container: str) -> PortalWalk:
    """A walk of the model of this container. Raises Otherwise where there is no portal to ask."""
    if not settings.status_tracking or not settings.api_key:
        raise Otherwise("failed", "there is no portal to ask: STATUS_TRACKING=off, or API_KEY is not configured")
    stranger = replace(settings, api_key="wrong-" + secrets.token_hex(16))
    portals = [factories.open_portal(its) for its in (settings, stranger)]
    assert portals[0] is not None
    assert portals[1] is not None
    no_model = f"dispatcher-check-{secrets.token_hex(8)}"
    return PortalWalk(portals[0], portals[1], extract_model_id(container), no_model, settings.status_lag)


@dataclass(eq=False)
class PortalWalk:
    """One walk. stranger: the same portal, asked with a key that is wrong. lag: seconds that its answers may be behind.

    no_model: an id that no model has
    """

    portal: Portal
    stranger: Portal
    model_id: str
    no_model: str
    lag: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    _wrote: bool = field(default=False, init=False)
    _message: str = field(default="", init=False)  # what was shown last

    def results(self) -> Iterator[CheckResult]:
        """Each result as soon as it is known; a failure ends the walk. `leave` has to be called after it."""
        for name, step in (
            ("status before", self._before),
            ("a model that is not there", self._unknown),
            ("a wrong key", self._wrong_key),
            ("Processing", lambda: self._write(Status.PROCESSING, messages.STARTED)),
            ("progress", lambda: self._write(Status.PROCESSING, _PROGRESS)),
            ("Failed", lambda: self._write(Status.FAILED, _FAILED)),
            ("the same outcome once more", self._repeat),
            ("a long sentence with signs", self._long),
            ("Reconfigure", self._reconfigure),
        ):
            result = self._step(name, step)
            yield result
            if result.result == "failed":
                return

    def leave(self) -> CheckResult | None:
        """After a walk that did not come to its end, also by Ctrl-C: the model can be walked again, or it is said."""
        if not self._wrote:
            return None
        try:
            self.portal.update_model_status(self.model_id, Status.RECONFIGURE, _DONE)
        except PortalError as error:
            sentence = f"model {self.model_id} could not be set to Reconfigure; set it at the portal: {error}"
            return CheckResult("what is left", "failed", sentence)
        return CheckResult("what is left", "ok", f"model {self.model_id} was set to Reconfigure")

    def _step(self, name: str, step: Callable[[], str]) -> CheckResult:
        try:
            return CheckResult(name, "ok", step())
        except Otherwise as found:
            return CheckResult(name, found.result, str(found))
        except PortalError as error:
            return CheckResult(name, "failed", str(error))

    def _before(self) -> str:
        found = self.portal.get_model_status(self.model_id)
        if not found.status.may_start:
            raise Otherwise(
                "failed",
                f"model {self.model_id} is {found.status.title}: the walk changes its status, and takes a model that"
                " was made for it, in Created or Reconfigure",
            )
        return f"model {self.model_id} is {found.status.title}"

    def _unknown(self) -> str:
        try:
            found = self.portal.get_model_status(self.no_model)
        except ModelUnknown:
            return "is answered with 404: its request goes to the poison queue"
        raise Otherwise(
            "warning",
            f"{self.no_model} is said to be {found.status.title}: a request with a mistyped name would be trained",
        )

    def _wrong_key(self) -> str:
        try:
            self.stranger.get_model_status(self.model_id)
        except PortalUnauthorized:
            return "is refused, so that a key that was exchanged is told from an outage"
        except PortalError as error:
            raise Otherwise(
                "warning", f"is not answered with 401 or 403, and looks like another trouble to the log: {error}"
            ) from None
        raise Otherwise("warning", "is accepted: whoever reaches the portal may read this model's status")

    def _write(self, status: Status, message: str) -> str:
        began = self.clock()
        self._wrote = True
        with suppress(NotAcknowledged):  # what was not taken, or is behind, shows below
            self.portal.update_model_status(self.model_id, status, message)
        found = self._shown(status, message, began)
        waited = self.clock() - began
        for _ in range(_READ_AGAIN):
            again = self.portal.get_model_status(self.model_id)
            if again.status is not status:
                raise Otherwise(
                    "warning",
                    f"{status.title} is shown, and {again.status.title} by the next answer: a cache or a replica is"
                    " behind. STATUS_LAG_SECONDS has to be longer than it may be",
                )
        self._message = found.message
        if found.message != message:
            raise Otherwise("warning", f"is taken; its message is {_changed(message, found.message)}")
        return f"is taken, and shown with its message after {waited:.1f} s"

    def _shown(self, status: Status, message: str, began: float) -> ModelStatus:
        """What the portal shows when it shows this write, at the latest after `lag`."""
        while True:
            found = self.portal.get_model_status(self.model_id)
            late = self.clock() - began >= self.lag
            if found.status is status and (late or found.message == message or found.message != self._message):
                return found
            if late:
                raise Otherwise(
                    "failed",
                    f"{status.title} is answered with success, and {found.status.title} is still shown after"
                    f" {self.lag:g} s: either it is not stored, or what is shown may be older, and"
                    " STATUS_LAG_SECONDS has to be longer than that",
                )
            self.sleep(_LOOK_EVERY)

    def _repeat(self) -> str:
        """Whoever gets no answer to a report sends it again."""
        try:
            return self._write(Status.FAILED, _FAILED)
        except WriteConflict as error:
            raise Otherwise(
                "warning", f"is refused as a conflict; it is read then, and counts as reported: {error}"
            ) from None

    def _long(self) -> str:
        try:
            return self._write(Status.FAILED, _LONG)
        except PortalError as error:
            raise Otherwise(
                "warning", f"is refused; users get the sentence in fewer and plainer words: {error}"
            ) from None

    def _reconfigure(self) -> str:
        """The portal's own to set: only the next walk needs it."""
        try:
            done = self._write(Status.RECONFIGURE, _DONE)
        except PortalError as error:
            self._wrote = False
            raise Otherwise(
                "warning",
                f"is not for us to set, which no training needs; model {self.model_id} stays Failed: {error}",
            ) from None
        self._wrote = False
        return done


def _changed(sent: str, shown: str) -> str:
    if not shown:
        return "not shown: users do not read why a training failed"
    if sent.startswith(shown.rstrip("….")):
        return f"cut after {len(shown)} of {len(sent)} characters: the end of a long sentence is lost"
    return f"shown as {ascii(shown)[:80]}, not as it was sent"
