"""Which images exist on the stand-in's nodes, and the error of pulling any other."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9](?:[-a-zA-Z0-9.]*[a-zA-Z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[a-z0-9+.-]+:[0-9a-fA-F]{32,})?"
)
INSTANT = "@instant"


@dataclass(frozen=True)
class Image:
    """`entrypoint`: its ENTRYPOINT, or None. `instant`: its pods end without a process, as their annotations say."""

    entrypoint: list[str] | None = None
    instant: bool = False


@dataclass
class Images:
    """`known`: images by name. `refusals`: scripted texts of failing pulls, by name.

    `attempts`: how many instant pods each owner (by uid) has had, of a team each of its nodes.
    """

    known: dict[str, Image] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    instant: bool = False
    attempts: Counter[str] = field(default_factory=Counter)

    def attempt(self, pod: dict[str, Any]) -> int:
        """Count this instant pod: its number among those of its owner and index, from 0."""
        owner = next((str(o["uid"]) for o in pod["metadata"].get("ownerReferences") or ()), pod["metadata"]["uid"])
        key = f"{owner}/{_index(pod)}"
        self.attempts[key] += 1
        return self.attempts[key] - 1

    def find(self, name: str) -> Image | None:
        """The image, or None when it has to be pulled (which always fails)."""
        found = self.known.get(name)
        if found is None and self.instant and name not in self.refusals and is_valid(name):
            return Image(instant=True)
        return found

    def pull_error(self, name: str) -> str:
        """The container runtime's message when the image cannot be pulled."""
        scripted = self.refusals.get(name)
        if scripted:
            return scripted
        host, slash, rest = name.partition("/")
        if not slash or ("." not in host and ":" not in host and host != "localhost"):
            full = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
            return (
                f'failed to pull and unpack image "{full}": failed to resolve reference "{full}": pull access '
                "denied, repository does not exist or may require authorization: server message: "
                "insufficient_scope: authorization failed"
            )
        repository, _, tag = rest.partition(":")
        address = host.replace("localhost", "127.0.0.1")
        return (
            f'failed to pull and unpack image "{name}": failed to resolve image: failed to do request: '
            f'Head "https://{host}/v2/{repository}/manifests/{tag or "latest"}": '
            f"dial tcp {address}: connect: connection refused"
        )


def is_valid(name: str) -> bool:
    """Whether a container runtime can read the reference at all."""
    return _REFERENCE.fullmatch(name) is not None


def scripted_outcome(pod: dict[str, Any], attempt: int = 0) -> tuple[int, float, str, float]:
    """(exit code, seconds, termination message, seconds that its other containers go on) an instant pod was asked for.

    By the list "stand-in" of the JSON in its variable TRAINING_REQUEST, an entry for each attempt of its Job (the last
    one for all that follow), of a team's second node and on by "stand-in-2" and so on where it is there; else by its
    annotations.
    """
    steps = _requested(pod)
    if steps:
        step = steps[min(attempt, len(steps) - 1)]
        beside = float(step.get("beside", 0))
        return int(step.get("exit", 0)), float(step.get("seconds", 0)), str(step.get("message", "")), beside
    notes = pod["metadata"].get("annotations") or {}
    code, seconds = notes.get("stand-in/exit", "0"), notes.get("stand-in/seconds", "0")
    return int(code), float(seconds), notes.get("stand-in/message", ""), 0.0


def _requested(pod: dict[str, Any]) -> list[dict[str, Any]]:
    for entry in pod["spec"]["containers"][0].get("env") or ():
        if entry["name"] == "TRAINING_REQUEST" and '"stand-in"' in (entry.get("value") or ""):
            request = json.loads(entry["value"])
            return list(request.get(f"stand-in-{_index(pod) + 1}") or request["stand-in"])
    return []


def _index(pod: dict[str, Any]) -> int:
    return int((pod["metadata"].get("annotations") or {}).get("batch.kubernetes.io/job-completion-index", "0"))
