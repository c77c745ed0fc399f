"""What an API server means by an answer other than the one asked for: its Status → our error."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from dispatcher.cluster import words
from dispatcher.cluster.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterUnavailable,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    QuotaExceeded,
    RequestDenied,
    WatchExpired,
)
from training_common.redaction import redact
from training_common.retry_after import parse_retry_after
from training_common.text import one_line

# A denial is known by its words alone: a webhook chooses its status code, a policy is one of 401, 403, 413 and 422.
_DENIED = re.compile(
    r'(?:.* is forbidden: )?(?:admission webhook ".*" denied the request|[A-Z]\w+AdmissionPolicy .* denied request)'
)
_RBAC = re.compile(r'User ".*" cannot [a-z]+ resource "')


def error_of(
    verb: str, kind: str, name: str, code: int, status: Mapping[str, Any], headers: Mapping[str, str]
) -> ClusterError:
    """The API server's Status object → our error."""
    text = redact(one_line(str(status.get("message") or f"HTTP {code}")))[:1000]
    cannot = f"Cannot {verb} {kind}" + (f" {name}" if name else "")
    said = f"{cannot}: {text}"
    retry_after = parse_retry_after(headers.get("Retry-After"), time.time())
    if status.get("kind") != "Status" and code not in (401, 408, 429) and code < 500:
        # A proxy's page, or another server's: it knows nothing about our objects, so it is no proof that one is absent,
        # nor about our rights.
        return ClusterUnavailable(f"{cannot}: HTTP {code} without a Status of Kubernetes; is it an API server?")
    if _DENIED.match(text) and code not in (408, 429) and code < 500:  # these are a webhook's own trouble
        return RequestDenied(said)
    # Admission comes before storage: nothing was changed.
    if words.is_webhook_down(text):
        why = "The cluster's admission webhook does not answer: tell who runs it"
        return ClusterUnavailable(f"{said}. {why}", retry_after=retry_after, ambiguous=False)
    if words.is_not_ready(text):
        return ClusterUnavailable(said, retry_after=retry_after, ambiguous=False)
    match code:
        case 404:
            return ObjectNotFound(said)
        case 409:
            return ObjectConflict(said)
        case 410:
            return WatchExpired(said)
        case _ if "Too large resource version" in text:
            # Its store was restored from a backup, and is younger than what we know.
            return WatchExpired(said)
        case 401:
            return ClusterForbidden(f"{cannot}: the API server does not accept our credentials")
        case 403:
            return _forbidden(said, verb, kind, status)
        case 408 | 429:
            return ClusterUnavailable(said, retry_after=retry_after, ambiguous=code != 429)
    return ClusterUnavailable(said, retry_after=retry_after) if code >= 500 else ObjectInvalid(said)


def _forbidden(said: str, verb: str, kind: str, status: Mapping[str, Any]) -> ClusterError:
    """A 403 is RBAC's or an admission plug-in's; only their words tell which."""
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    reasons = [cause.get("reason") for cause in (causes if isinstance(causes, list) else ()) if isinstance(cause, dict)]
    if "NamespaceTerminating" in reasons or "because it is being terminated" in said:
        return ClusterForbidden(f"{said}. The namespace is being deleted: create it anew, or set NAMESPACE to another")
    if _RBAC.search(said) or verb not in ("create", "patch", "delete"):
        return ClusterForbidden(f'{said}. The Role must allow the verb "{verb}" on "{kind}"')
    return QuotaExceeded(said) if words.is_quota(said) else RequestDenied(said)
