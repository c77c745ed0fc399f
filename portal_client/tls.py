"""When the portal's certificate is verified, and against what."""

from __future__ import annotations

import ssl
from pathlib import Path

from portal_client.address import PortalAddress

MISMATCH_REASONS = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "UNSUPPORTED_PROTOCOL",
    "NO_PROTOCOLS_AVAILABLE",
)
"""OpenSSL's reasons for a peer that speaks plain HTTP, or only versions of TLS that are not used any more."""


def tls_verification(address: PortalAddress, ca_bundle: Path | None) -> bool | str:
    """What requests takes as `verify`: off for loopback hosts only; no setting turns it off elsewhere.

    ca_bundle: PEM file that replaces the system's CAs, for loopback hosts too. Raises ValueError.
    """
    if ca_bundle is None:
        return not address.is_loopback
    if not ca_bundle.is_file():
        raise ValueError(f"API_CA_BUNDLE {ca_bundle} is no file: expected CA certificates in PEM format")
    try:
        ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"API_CA_BUNDLE {ca_bundle} cannot be read as CA certificates in PEM format: {error}"
        ) from None
    return str(ca_bundle)
