"""The TLS rule over real connections: verification is off for loopback hosts, and for them alone."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from local_stack.portal.client import StandInPortal, start_portal
from portal_client.client import PortalClient
from portal_client.statuses import ProcessingStatus
from tests.portal_client.portal_calls import failure_of_get, failure_of_put

KEY = "key-0123456789abcdef"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_portal(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInPortal]:
    """A stand-in portal whose certificate is made out to 127.0.0.1 by a CA that this machine does not know."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = str(folder / "both.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    options = ("--tls-cert", certificate, "--tls-key", certificate, "--create-unknown")
    with start_portal(folder, KEY, *options) as portal:
        yield portal


def test_a_self_signed_certificate_works_on_loopback_without_a_warning(
    tls_portal: StandInPortal, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        client = PortalClient(tls_portal.url, KEY)
        client.update_model_status("1", ProcessingStatus.PROCESSING, "m")
        client.get_model_status("1")

    assert [str(warning.message) for warning in warned] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_ca_file_of_the_environment_does_not_turn_verification_on_for_loopback(
    tls_portal: StandInPortal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))

    PortalClient(tls_portal.url, KEY).update_model_status("1", ProcessingStatus.FAILED, "m")


def test_a_proxy_of_the_environment_is_not_used_for_loopback(
    portal: StandInPortal, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    portal.set_model(model_id)

    PortalClient(portal.url, portal.api_key).get_model_status(model_id)


def test_a_ca_bundle_is_what_certificates_are_checked_against(
    tls_portal: StandInPortal, authority: trustme.CA, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right.pem", tmp_path / "wrong.pem"
    authority.cert_pem.write_to_path(str(right))
    trustme.CA().cert_pem.write_to_path(str(wrong))

    PortalClient(tls_portal.url, KEY, ca_bundle=right).update_model_status("1", ProcessingStatus.CREATED, "")
    error = failure_of_put(PortalClient(tls_portal.url, KEY, ca_bundle=wrong), "1")

    assert "does not show a trusted certificate" in str(error)
    assert "API_CA_BUNDLE" in str(error)
    assert not error.ambiguous


def test_a_certificate_for_another_name_is_not_trusted(
    tls_portal: StandInPortal, authority: trustme.CA, tmp_path: Path
) -> None:
    bundle = tmp_path / "right.pem"
    authority.cert_pem.write_to_path(str(bundle))
    by_name = tls_portal.url.replace("127.0.0.1", "localhost")

    error = failure_of_get(PortalClient(by_name, KEY, ca_bundle=bundle), "1")

    assert "host name" in str(error)


def test_verification_is_on_for_a_host_that_only_resolves_to_loopback(
    tls_portal: StandInPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **kw: resolve("127.0.0.1", *rest, **kw))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    url = tls_portal.url.replace("127.0.0.1", "portal.example.com")

    error = failure_of_get(PortalClient(url, KEY), "1")

    assert "does not show a trusted certificate" in str(error)


def test_https_spoken_to_plain_http_is_said_so(portal: StandInPortal) -> None:
    error = failure_of_put(PortalClient(portal.url.replace("http:", "https:"), KEY), "1")

    assert "does not speak TLS as expected" in str(error)
    assert not error.ambiguous


def test_http_spoken_to_https_is_unavailable(tls_portal: StandInPortal) -> None:
    failure_of_get(PortalClient(tls_portal.url.replace("https:", "http:"), KEY), "1")
