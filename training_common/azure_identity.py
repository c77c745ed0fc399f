"""Whom azure-identity asks a token for, and why there is none: its own words are pages, a paragraph for each way that
it tried, and the one that matters comes late.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from training_common.redaction import redact
from training_common.text import one_line

# Entra ID's own word: "AADSTS700213: No matching federated identity record found for presented assertion subject …".
_ENTRA = re.compile(r"AADSTS[0-9]{4,9}\b.*?(?=\s*(?:Trace ID|Correlation ID|Timestamp|\n|$))")
_SHOWN = 300


def name(environ: Mapping[str, str]) -> str:
    """As far as the environment says it."""
    client = one_line(environ.get("AZURE_CLIENT_ID", ""))
    kind = "the workload identity" if environ.get("AZURE_FEDERATED_TOKEN_FILE") else "the managed identity"
    return f"{kind} {client} (AZURE_CLIENT_ID)" if client else f"{kind} of this pod (AZURE_CLIENT_ID is not set)"


def no_token(error: Exception, environ: Mapping[str, str]) -> str:
    """One sentence: whose token, what is missing, and who has to mend it."""
    whose, found = f"there is no token for {name(environ)}", _ENTRA.search(str(error))
    if found:
        said = redact(one_line(found[0]))[:_SHOWN].rstrip(". ")
        return (
            f"{whose}: {said}; its federated credential has to name this cluster's issuer, this namespace and this "
            "service account"
        )
    if not environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return (
            f"{whose}: the webhook of workload identity has not given this pod one (AZURE_FEDERATED_TOKEN_FILE is not "
            "set); the pod needs the label azure.workload.identity/use, and its service account the annotation "
            "azure.workload.identity/client-id"
        )
    return f"{whose}: {redact(one_line(str(error)))[:_SHOWN].rstrip('. ')}"
