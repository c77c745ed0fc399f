"""What happened to a call that got no answer, in words (pure; requests' and urllib3's exceptions)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import requests
import urllib3

from portal_client.tls import MISMATCH_REASONS


def failure_of(error: Exception, host: str, timeout: float) -> tuple[str, bool]:
    """What happened, as the end of a sentence about the portal, and whether the portal may have got the call."""
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        why = tls.verify_message or tls.reason
        remedy = "put the CA that signed it into API_CA_BUNDLE, and use the host name it is made out to"
        return f"does not show a trusted certificate ({why}): {remedy}", False
    if tls is not None and tls.reason in MISMATCH_REASONS:
        return f"does not speak TLS as expected ({tls.reason}): check https and the port in API_BASE_URL", False
    if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        # Network failures come wrapped; this one is of our own machine, e.g. a CA file that has gone.
        return f"cannot be called from here: {error}", False
    # InvalidSchema: a proxy that speaks SOCKS.
    if isinstance(error, requests.exceptions.ProxyError | requests.exceptions.InvalidSchema):
        return "cannot be reached through the environment's proxy: check HTTPS_PROXY and NO_PROXY", False
    if isinstance(error, requests.ConnectTimeout):
        return f"did not take a connection within {timeout:g} s: check the network and API_BASE_URL", False
    if isinstance(error, requests.ReadTimeout) or _has(causes, TimeoutError, urllib3.exceptions.ReadTimeoutError):
        return f"did not answer within {timeout:g} s: it will be tried again", True
    if _has(causes, urllib3.exceptions.NameResolutionError):
        return f"has a host name that cannot be resolved ({host}): check API_BASE_URL and DNS", False
    if _has(causes, urllib3.exceptions.NewConnectionError):
        return "cannot be connected to: check that the portal runs, and API_BASE_URL", False
    return "cut the connection before its answer was complete: it will be tried again", True


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it wraps: requests and urllib3 keep that in args, `reason` or the chain."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or any(current is known for known in seen):
            continue
        seen.append(current)
        yield current
        waiting += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]


def _has(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)
