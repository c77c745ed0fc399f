"""One run from its start to the termination message, in the pod and on a laptop: an attempt, and the report of its end.

Storage and tracker are the only differences between the two places. What goes wrong is a TrainerError here; its exit
code decides who reports it: a trainer that the dispatcher launched reports what no retry can fix, and leaves the rest
to the Job's retries and the dispatcher; a standalone one reports every failure. Of several nodes the first one reports.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus
from trainer_image.config.settings import Settings
from trainer_image.errors import Cancelled, Fenced, StatusRefused, StatusUnavailable, Terminated, TrainerError
from trainer_image.host import exhaustion, memory
from trainer_image.run import unreported
from trainer_image.run.attempt import Attempt
from trainer_image.run.backend import Backend
from trainer_image.run.deadline import deadline
from trainer_image.run.following import Following
from trainer_image.run.outcome import Outcome, completed, failed, published_untold, with_reason
from trainer_image.run.status_tracker import Tracker
from trainer_image.run.termination import termination_message, write_termination
from trainer_image.run.tracking import connect_portal, make_tracker
from trainer_image.stop import Stop
from trainer_image.storage.container import StorageFault
from trainer_image.transfer import lease
from trainer_image.transfer.publish import ended
from trainer_image.transfer.sources import open_models
from training_common.redaction import redact

log = logging.getLogger(__name__)

# Not reported: the portal knows already, or the model is another pod's by now.
_UNREPORTED = (Cancelled.code, Fenced.code, StatusRefused.code, StatusUnavailable.code)


def run(
    settings: Settings,
    stop: Stop,
    *,
    backend: Callable[[], Backend] | None = None,
    connect: Callable[[Settings], Portal] = connect_portal,
) -> Outcome:
    """Trains, publishes, reports and writes the termination message. Raises UsageError only, before it begins.

    backend: trains in this process, in place of the worker
    """
    if settings.follows:
        return _Run(settings, stop, Tracker(), Following(settings, stop, backend)).outcome()
    tracker = make_tracker(settings, stop, connect)
    return _Run(settings, stop, tracker, Attempt(settings, stop, tracker, backend)).outcome()


class _Run:
    def __init__(self, settings: Settings, stop: Stop, tracker: Tracker, attempt: Attempt | Following) -> None:
        self._settings = settings
        self._stop = stop
        self._tracker = tracker
        self._attempt = attempt
        self._deciding = threading.Lock()
        self._decided: Outcome | None = None
        # Of this run, for the portal, in the model's container.
        self._kept: unreported.Unreported | None = None

    def outcome(self) -> Outcome:
        with deadline(self._stop, self._settings.grace_seconds, self._out_of_time):
            outcome = self._tried()
            with self._deciding:
                self._decided = outcome
                self._write_termination(outcome)
            return self._report(outcome)

    def _begun(self) -> Outcome | None:
        """Asks the portal for leave. What this run ended with before, where the portal had not been told.

        Raises TrainerError where it may not begin.
        """
        try:
            return None if self._tracker.begin() else completed()
        except (StatusRefused, StatusUnavailable):
            if (left := self._left_before()) is None:
                raise
            log.warning("Run %s has ended before, and the portal was not told: it is told now", self._settings.run_id)
            return left

    def _left_before(self) -> Outcome | None:
        run_id = self._settings.run_id
        try:
            models = open_models(self._settings, self._stop)
            if (newer := lease.owner_of(models)) not in (None, run_id):
                log.warning("Run %s has taken this model over: run %s has nothing to report any more", newer, run_id)
                return None
            if (left := unreported.of_run(models, run_id)) is not None:
                self._kept = left
                if left.outcome is ProcessingStatus.FAILED:
                    return Outcome(left.exit, left.code, left.message)
                return replace(completed(f"{models.name}/runs/{run_id}"), sentence=left.message)
            # Killed before it could tell or keep anything.
            end = ended(models, run_id)
            return None if end is None else completed(f"{models.name}/runs/{run_id}", held_back=end.held_back)
        except (StorageFault, TrainerError) as error:
            log.warning("Whether run %s has ended before is not known: %s", run_id, error)
            return None

    def _tried(self) -> Outcome:
        """Trains and publishes; whatever goes wrong is in what is returned."""
        killed_before = memory.kills()
        try:
            ended_before = self._begun()
            if ended_before is None:
                return self._attempt.train()
            log.info("%s: nothing to do", ended_before.code)
            return ended_before
        except Exception as error:
            step = self._attempt.last_step
            if lack := exhaustion.found(error, killed_before):
                return failed(lack, step)
            if isinstance(error, TrainerError):
                return failed(with_reason(error, self._stop), step)
            log.exception("The trainer itself failed")
            return Outcome(70, "InternalError", f"Internal error: {type(error).__name__}: {error}", step)

    def _out_of_time(self) -> None:
        # Held until the process ends: the main thread, should it come through after all, writes nothing else.
        with self._deciding:
            outcome = self._decided
            if outcome is not None and not self._settings.dispatched:
                return  # the main thread reports it, within a time of its own
            if outcome is None:
                grace = self._settings.grace_seconds
                how = f"the training did not end within {grace:g} s and was ended"
                if self._stop.signals > 1:
                    how = "the training was ended at once when that was repeated"
                error = Terminated(f"Stopped on request; {how}; its last stored checkpoint stays")
                outcome = self._attempt.published or failed(with_reason(error, self._stop), self._attempt.last_step)
                self._write_termination(outcome)
                self._attempt.abandon()
                # The dispatcher tells the portal itself, from the termination message.
                if not self._settings.dispatched:
                    outcome = self._report(outcome)
            os._exit(outcome.exit_code)

    def _write_termination(self, outcome: Outcome) -> None:
        content = termination_message(
            self._settings.run_id, outcome, self._settings.secrets, dict(self._attempt.seconds)
        )
        write_termination(self._settings.termination_path, content)

    def _report(self, outcome: Outcome) -> Outcome:
        retried = self._settings.dispatched and outcome.exit_code > 127
        if retried or outcome.code in _UNREPORTED:
            self._tracker.close()
            return outcome
        status = ProcessingStatus.COMPLETED if outcome.exit_code == 0 else ProcessingStatus.FAILED
        if self._settings.dispatched:
            return replace(outcome, untold=self._tracker.report(status, outcome.sentence, code=outcome.code))
        why = self._tracker.report(status, outcome.sentence, lambda: self._keep(status, outcome), code=outcome.code)
        if why is None:
            self._forget()
            return outcome
        if status is ProcessingStatus.FAILED:
            return replace(outcome, untold=why)
        untold = published_untold(outcome, why)
        self._write_termination(untold)
        return untold

    def _keep(self, status: ProcessingStatus, outcome: Outcome) -> None:
        """For a rerun, or for the command `report`."""
        try:
            models = open_models(self._settings, self._stop)
        except TrainerError:
            return  # it is what this training failed by
        self._kept = unreported.Unreported(
            run_id=self._settings.run_id,
            model_container=self._settings.model_container or "",
            status=status.title,
            message=redact(outcome.sentence, self._settings.secrets),
            code=outcome.code,
            exit=outcome.exit_code,
            acknowledged=self._tracker.acknowledged,
            before=None if self._tracker.before is None else self._tracker.before.title,
            ended=time.time(),
        )
        unreported.keep(models, self._kept)

    def _forget(self) -> None:
        if self._kept is not None:
            unreported.forget(open_models(self._settings, self._stop), self._kept.run_id)
