"""The files with this training's own credentials: a Secret that is mounted, which the kubelet changes while we run.

API_KEY (the token for the portal's relay), MODEL_URL and DATASET_URL (containers with a signature), a line each. A file
that is replaced is whole: the kubelet switches a symbolic link.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

API_KEY, MODEL_URL, DATASET_URL = "API_KEY", "MODEL_URL", "DATASET_URL"
# Seconds for which a credential that is refused is waited for to be replaced: the dispatcher makes a new one when it
# starts with another key, and the kubelet looks for it every minute or so.
PATIENCE = 180.0
_LOOK_EVERY = 2.0
# No file of ours is longer; what is, is somebody else's.
_LONGEST = 16 * 1024


@dataclass(frozen=True)
class CredentialFiles:
    """folder: CREDENTIALS_DIR."""

    folder: Path

    def read(self, name: str) -> str | None:
        """What the file holds now; None where it is not there, or is empty."""
        try:
            with (self.folder / name).open("rb") as file:
                return file.read(_LONGEST).decode("utf-8", "replace").strip() or None
        except OSError:
            return None

    def newer(
        self, name: str, used: str | None, *, seconds: float = PATIENCE, wait: Callable[[float], object] = time.sleep
    ) -> str | None:
        """Wait until the file holds something else than `used`, which was refused. None: it did not in that time.

        wait: returns True where there is no time to wait any more
        """
        end = time.monotonic() + seconds
        while True:
            found = self.read(name)
            if found is not None and found != used:
                return found
            left = end - time.monotonic()
            if left <= 0 or wait(min(_LOOK_EVERY, left)) is True:
                return None
