"""How settings about the portal and its containers are read, for both images (see training_common.parsers). Pure."""

from __future__ import annotations

from portal_client.address import EXAMPLE, PortalAddress
from portal_client.auth import AUTH_METHODS
from portal_client.model_ids import is_container_name
from training_common import parsers

_plain_url = parsers.url(EXAMPLE)
# It travels in a request header: what does not fit there must not fail at the first call.
api_key = parsers.matching(r"[\x21-\x7e]+", "printable ASCII without white space")
auth_method = parsers.choice(*AUTH_METHODS)


def portal_url(value: str) -> str:
    return PortalAddress.parse(_plain_url(value)).base_url


def container_name(value: str) -> str:
    if not is_container_name(value):
        raise ValueError("must be a container's name: 3 to 63 lower-case letters, digits and single hyphens")
    return value
