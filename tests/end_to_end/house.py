"""The running parts that the end-to-end tests share, and how they wait for what they are about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from local_stack.demo.watch import Snapshot, Watch
from local_stack.processes import Service, log_tail, wait_until
from local_stack.stack import Stack

# Trainings on two cores that other tests share. A test that waits this long has failed.
PATIENCE = 300.0


@dataclass(frozen=True)
class House:
    """The running parts and the watch on the demo's requests."""

    stack: Stack
    dispatcher: Service
    watch: Watch

    def wait(self, condition: Callable[[Snapshot], bool], what: str) -> Snapshot:
        """Look until the condition holds; a dispatcher that died ends the wait at once."""

        def look() -> Snapshot | None:
            snapshot = self.watch.look()
            assert self.dispatcher.returncode is None, f"the dispatcher died:\n{log_tail(self.dispatcher.log, 60)}"
            return snapshot if condition(snapshot) else None

        return wait_until(look, PATIENCE, what=lambda: f"{what}; {self._last_words()}", interval=0.2)

    def _last_words(self) -> str:
        return f"now: {self.watch.look()}\nthe dispatcher's log ends:\n{log_tail(self.dispatcher.log, 60)}"
