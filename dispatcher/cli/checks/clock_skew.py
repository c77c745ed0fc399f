"""How far another machine's clock is from ours, by the Date header of its answer, and what that breaks. Pure.

No launch and no report compares two machines' clocks; everything that does is named here.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime

# Seconds. A Date header has no fractions, and an answer takes a while; a synchronised clock differs by far less.
TOLERATED = 30.0

_BREAKS = {
    "API server": "limits such as IMAGE_PULL_GRACE_SECONDS are counted from its times by our clock and are off by as "
    "much; tokens of service accounts may be refused",
    "storage account": "signatures are refused when the clocks are too far apart (15 minutes with an account key); a "
    "SAS or an identity's token may not be valid yet; ages of messages are off by as much",
    "portal": "nothing here depends on it; times in its records and in our log differ by as much",
}


def skew(date: str | None, began: float, ended: float) -> float | None:
    """Seconds by which the other clock is ahead of ours; None without a valid header.

    date: the Date header (RFC 9110). began, ended: of the call, in seconds since the epoch by our clock.
    """
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    # The header's time lies anywhere in its second and in the call: only what neither explains is a skew.
    if theirs > ended:
        return theirs - ended
    return min(0.0, theirs + 1.0 - began)


def matters(seconds: float) -> bool:
    return abs(seconds) > TOLERATED


def sentence(place: str, seconds: float) -> str:
    """place: one of those that `dispatcher check` asks."""
    direction = "ahead of" if seconds > 0 else "behind"
    return f"{abs(seconds):.0f} seconds {direction} ours: {_BREAKS[place]}. Synchronise the clocks of the nodes"
