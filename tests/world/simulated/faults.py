"""What can happen at a call, and what must not."""

from __future__ import annotations


class Crash(BaseException):
    """The process is gone: nothing of it runs any more, not even an `except Exception`."""


class Violation(BaseException):
    """A promise was broken. No `except Exception` of the stages may swallow it."""


class Fail(Exception):
    """The call fails as an outage does; raised "after", it has taken effect all the same."""


class Late(Exception):
    """The caller sees a time-out, or dies (`crash`); the request takes effect `calls` calls or `seconds` later."""

    def __init__(self, calls: int = 10**9, seconds: float = 40.0, crash: bool = False) -> None:
        super().__init__("timed out")
        self.calls, self.seconds, self.crash = calls, seconds, crash
