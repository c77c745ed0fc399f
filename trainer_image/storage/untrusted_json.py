"""JSON from a container, whose writer may mean harm."""

from __future__ import annotations

import json
from typing import Any


def loads(content: str | bytes) -> Any:
    """What the text says. Raises ValueError for what is no JSON, also where it is nested deeper than Python's stack."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
