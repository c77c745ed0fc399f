"""dispatcher.cli.status without any service."""

from __future__ import annotations

from dispatcher.cli import status
from portal_client.client import PortalClient


def test_a_portal_out_of_reach_is_not_one_that_knows_nothing() -> None:
    portal = PortalClient("http://127.0.0.1:9", "key-0123456789abcdef", timeout=5)
    said = status._portal("1", portal)
    portal.close()
    assert (said["status"], said["answered"]) == ("", False)
    assert "cannot be connected to" in said["message"]
