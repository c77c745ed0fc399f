"""JSON from a container, whose writer may mean harm: stricter than Python's own, as nothing of ours writes the rest."""

from __future__ import annotations

import json
import math
from typing import Any


def loads(content: str | bytes) -> Any:
    """What the text says. Raises ValueError for what is no JSON; also for NaN and infinity, a key that stands there
    twice, half of a surrogate pair, and where it is nested deeper than Python's stack."""
    try:
        value = json.loads(content, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no text") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands there twice")
    return made


def _finite(written: str) -> float:
    value = float(written)
    if not math.isfinite(value):
        raise ValueError(f"{written[:40]} is no number that can be computed with")
    return value
