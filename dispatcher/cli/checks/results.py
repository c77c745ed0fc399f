"""What one line of `dispatcher check` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """One line of `dispatcher check`. Only "failed" keeps the dispatcher from working."""

    name: str
    result: Result
    sentence: str


class Otherwise(Exception):
    """A check ended with another result than "ok"; the text is its sentence."""

    def __init__(self, result: Result, sentence: str) -> None:
        super().__init__(sentence)
        self.result = result
