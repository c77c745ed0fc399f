"""API_BASE_URL and the TLS rule: which hosts are loopback, and what turns verification off."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from portal_client.address import PortalAddress
from portal_client.client import PortalClient
from portal_client.tls import tls_verification


@pytest.mark.parametrize(
    ("url", "host", "loopback"),
    [
        ("https://localhost:44302", "localhost", True),
        ("https://LOCALHOST", "localhost", True),
        ("http://127.0.0.1:5000", "127.0.0.1", True),
        ("https://127.255.0.3/portal", "127.255.0.3", True),
        ("https://[::1]:8443", "::1", True),
        ("https://[0:0:0:0:0:0:0:1]", "0:0:0:0:0:0:0:1", True),
        ("https://portal.example.com", "portal.example.com", False),
        ("https://localhost.example.com", "localhost.example.com", False),
        ("https://localhost.", "localhost.", False),
        ("https://127.0.0.1.example.com", "127.0.0.1.example.com", False),
        ("https://127.1", "127.1", False),
        ("https://2130706433", "2130706433", False),
        ("https://0x7f.0.0.1", "0x7f.0.0.1", False),
        ("https://128.0.0.1", "128.0.0.1", False),
        ("https://0.0.0.0", "0.0.0.0", False),
        ("https://[::]", "::", False),
        ("https://[::ffff:127.0.0.1]", "::ffff:127.0.0.1", False),
        ("https://10.0.0.1", "10.0.0.1", False),
        ("http://portal.team.svc.cluster.local:8080", "portal.team.svc.cluster.local", False),
        ("http://portal_stub:80", "portal_stub", False),
    ],
)
def test_verification_is_off_for_loopback_hosts_and_for_no_other(url: str, host: str, loopback: bool) -> None:
    address = PortalAddress.parse(url)

    assert (address.host, address.is_loopback) == (host, loopback)
    assert tls_verification(address, None) is not loopback


@pytest.mark.parametrize(
    "url",
    [
        "",
        "portal.example.com",
        "localhost:44302",
        "ftp://portal.example.com",
        "https://",
        "https://user:pw123@portal.example.com",
        "https://evil.example.com\\@localhost",
        "https://evil.example.com\\localhost",
        "https://local host",
        "https://portal.example.com\nX: y",
        "https://portal.example.com?x=1",
        "https://portal.example.com#x",
        "https://portal.example.com:0",
        "https://portal.example.com:65536",
        "https://portal.example.com:http",
        "https://portal.example.com/a/../b",
        "https://localhoſt",
        "https://ｌocalhost",
        "https://[::1",
        "https://-portal.example.com",
    ],
)
def test_a_base_url_that_cannot_work_is_refused_with_the_setting_named_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"^API_BASE_URL must be a URL such as https://portal.example.com$"):
        PortalClient(url, "a-key-of-some-length")


def test_slashes_at_the_end_do_not_double(tmp_path: Path) -> None:
    address = PortalAddress.parse("https://portal.example.com/a//")

    assert address.update_url == "https://portal.example.com/a/api/external/models/status"
    assert address.status_url("1") == "https://portal.example.com/a/api/external/models/1/status"


def test_a_ca_bundle_turns_verification_on_for_loopback_too(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))

    assert tls_verification(PortalAddress.parse("https://localhost"), bundle) == str(bundle)


def test_a_ca_bundle_that_cannot_be_used_is_refused_at_start(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for bundle in (tmp_path / "missing.pem", tmp_path, empty):
        with pytest.raises(ValueError, match=r"^API_CA_BUNDLE .*PEM"):
            PortalClient("https://portal.example.com", "a-key-of-some-length", ca_bundle=bundle)


def test_a_time_out_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="time-out"):
        PortalClient("https://portal.example.com", "a-key-of-some-length", timeout=0)
