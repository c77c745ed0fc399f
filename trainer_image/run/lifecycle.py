"""One run from its start to the termination message, in the pod and on a laptop: an attempt, and the report of its end.

Storage and tracker are the only differences between the two places. What goes wrong is a TrainerError here; its exit
code decides who reports it: a trainer that the dispatcher launched reports what no retry can fix, and leaves the rest
to the Job's retries and the dispatcher; a standalone one reports every failure.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace

from portal_client.protocol import Portal
from portal_client.statuses import ProcessingStatus
from trainer_image.config.settings import Settings
from trainer_image.errors import Cancelled, Fenced, StatusRefused, StatusUnavailable, Terminated, TrainerError
from trainer_image.host import exhaustion, memory
from trainer_image.run.attempt import Attempt
from trainer_image.run.backend import Backend
from trainer_image.run.deadline import deadline
from trainer_image.run.outcome import Outcome, completed, failed, with_reason
from trainer_image.run.status_tracker import Tracker
from trainer_image.run.termination import termination_message, write_termination
from trainer_image.run.tracking import connect_portal, make_tracker
from trainer_image.stop import Stop

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

    backend: loads another engine than ours
    """
    tracker = make_tracker(settings, stop, connect)
    return _Run(settings, stop, tracker, backend).outcome()


class _Run:
    def __init__(self, settings: Settings, stop: Stop, tracker: Tracker, backend: Callable[[], Backend] | None) -> None:
        self._settings = settings
        self._stop = stop
        self._tracker = tracker
        self._attempt = Attempt(settings, stop, tracker, backend, self._end_now)
        self._deciding = threading.Lock()
        self._decided: Outcome | None = None

    def outcome(self) -> Outcome:
        with deadline(self._stop, self._settings.grace_seconds, self._out_of_time):
            outcome = self._tried()
            with self._deciding:
                self._decided = outcome
                self._write_termination(outcome)
            return self._report(outcome)

    def _tried(self) -> Outcome:
        """Trains and publishes; whatever goes wrong is in what is returned."""
        killed_before = memory.kills()
        try:
            if self._tracker.begin():
                return self._attempt.train()
            log.info("The model is Completed at the portal: nothing to do")
            return completed()
        except Exception as error:
            step = self._attempt.last_step
            if lack := exhaustion.found(error, killed_before):
                return failed(lack, step)
            if isinstance(error, TrainerError):
                return failed(with_reason(error, self._stop), step)
            log.exception("The trainer itself failed")
            return Outcome(70, "InternalError", f"Internal error: {type(error).__name__}: {error}", step)

    def _end_now(self, error: TrainerError) -> None:
        """The end of a training whose main thread may be stuck in a call that never returns: no exception, no clean-up.

        Its lease runs out by itself, and its work folder goes with the pod.
        """
        outcome = failed(error, self._attempt.last_step)
        self._write_termination(outcome)
        self._report(outcome)
        os._exit(outcome.exit_code)

    def _out_of_time(self) -> None:
        # Held until the process ends: the main thread, should it come through after all, writes nothing else.
        with self._deciding:
            outcome = self._decided
            if outcome is None:
                error = Terminated(
                    f"Stopped on request; the training did not end within {self._settings.grace_seconds:g} s and was"
                    " ended; its last stored checkpoint stays"
                )
                outcome = self._attempt.published or failed(error, self._attempt.last_step)
                self._write_termination(outcome)
                # The dispatcher tells the portal itself, from the termination message.
                if not self._settings.dispatched:
                    self._report(outcome)
            os._exit(outcome.exit_code)

    def _write_termination(self, outcome: Outcome) -> None:
        content = termination_message(self._settings.run_id, outcome, self._settings.secrets)
        write_termination(self._settings.termination_path, content)

    def _report(self, outcome: Outcome) -> Outcome:
        retried = self._settings.dispatched and outcome.exit_code > 127
        if retried or outcome.code in _UNREPORTED:
            self._tracker.close()
            return outcome
        status = ProcessingStatus.COMPLETED if outcome.exit_code == 0 else ProcessingStatus.FAILED
        return replace(outcome, reported=self._tracker.report(status, outcome.sentence))
