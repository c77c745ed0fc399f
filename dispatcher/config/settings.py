"""The dispatcher's settings: frozen, read once from a mapping, every problem in one error.

A new setting is one field in surroundings.py, bounds.py or service.py, and its name in a table of docs/tables.py, which
writes config.env.example and docs/configure.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher.config import parsers, rules
from dispatcher.config.bounds import Bounds
from dispatcher.config.service import Service
from dispatcher.config.surroundings import Surroundings
from training_common.settings import broken, read, safe_repr

_RELAY_PORT = 8082


class SettingsError(ValueError):
    """One or more settings are missing or malformed; the message has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(
            f"{len(problems)} setting{'s are' if len(problems) > 1 else ' is'} missing or wrong:\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )


@dataclass(frozen=True, kw_only=True)
class Settings(Service, Bounds, Surroundings):  # fields come in the order of the last first
    """What the operator decides. Durations are seconds. `Settings.read(os.environ)` is the only way in."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """Parse and check `environ`. Raises SettingsError naming every variable that is missing or wrong."""
        values, problems = read(cls, environ)
        problems += broken(rules.ALL, values)
        if problems:
            raise SettingsError(problems)
        return cls(**values)

    @property
    def scoped(self) -> bool:
        return self.credentials == "scoped"

    @property
    def blob_url(self) -> str:
        """Where blobs are, where an identity is used."""
        return self.storage_blob_url or self.storage_account_url.replace(".queue.", ".blob.", 1)

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues with requests; Jobs that name none are of the first."""
        return tuple(queue.name for queue in self.queue_weights) or (self.queue_name,)

    def envelope_secret(self, queue: str) -> str:
        """What the dispatchers of a queue know and its senders do not; "" where the settings have no secret at all.

        It changes with API_KEY: entries from before are then no longer proven.
        """
        known = self.api_key or self.storage_connection_string
        return known and f"{parsers.poison_name(queue)} {known}"

    @property
    def relay_keys(self) -> tuple[str, ...]:
        return tuple(key.strip() for key in self.relay_key.split(",")) if self.relay_key else ()

    @property
    def relay_listens_on(self) -> int:
        """The relay's port; 0 where it is not served."""
        if self.relay_port is None:
            return _RELAY_PORT if self.scoped else 0
        return self.relay_port

    @property
    def put_budget(self) -> float:
        """Seconds of a message's visibility timeout that must be left for a PUT to the portal to begin.

        65 is what a PUT and the look before it may take at worst, 30 each. Where the visibility timeout is too short
        for that, 60 % of it.
        """
        return min(65.0, self.visibility_timeout * 0.6)

    @property
    def take_on_after(self) -> float:
        """Seconds after which a half-launched Job is launched without its message.

        Longer than the visibility timeout, so that a redelivery of the message comes first.
        """
        return self.visibility_timeout * 1.5

    __repr__ = safe_repr
