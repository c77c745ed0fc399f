"""Which header carries the key: MODEL_API_AUTH_METHOD, and what `auto` has learned."""

from __future__ import annotations

import threading

AUTO = "auto"
X_API_KEY = "x-api-key"
BEARER = "bearer"
AUTH_METHODS = (AUTO, X_API_KEY, BEARER)

SPOKEN = {X_API_KEY: "x-api-key", BEARER: "Bearer token"}
"""How log lines name a method."""


def header(method: str, api_key: str) -> tuple[str, str]:
    """(name, value) of the request header for `x-api-key` or `bearer`."""
    return ("x-api-key", api_key) if method == X_API_KEY else ("Authorization", f"Bearer {api_key}")


class AuthChoice:
    """The order in which methods are tried. Thread-safe.

    Auto tries x-api-key first and Bearer on 401, remembers what worked so that not every call pays twice, and
    forgets it on that method's next 401.
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self.is_auto = method == AUTO
        self._lock = threading.Lock()
        self._remembered: str | None = None

    def order(self) -> tuple[str, ...]:
        """The methods to try in turn, each only after a 401 of the one before."""
        if not self.is_auto:
            return (self.method,)
        return (BEARER, X_API_KEY) if self._remembered == BEARER else (X_API_KEY, BEARER)

    def worked(self, method: str) -> None:
        with self._lock:
            self._remembered = method

    def refused(self, method: str) -> None:
        """After a 401. Another thread may have learned better: only this method's success is forgotten."""
        with self._lock:
            if self._remembered == method:
                self._remembered = None
