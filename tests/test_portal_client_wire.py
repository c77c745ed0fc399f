"""portal_client against the portal stub's process: what only a real connection shows."""

from __future__ import annotations

import logging
import socket
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from local_stack.control import Portal, start_portal_stub
from portal_client.client import PortalClient
from portal_client.errors import PortalError, PortalUnauthorized, PortalUnavailable
from portal_client.statuses import ProcessingStatus

KEY = "key-0123456789abcdef"


@pytest.fixture
def client(portal: Portal) -> Iterator[PortalClient]:
    client = PortalClient(portal.url, portal.api_key, timeout=20)
    yield client
    client.close()


def failure_of_get(client: PortalClient, model_id: str) -> PortalError:
    with pytest.raises(PortalUnavailable) as caught:
        client.get_model_status(model_id)
    return caught.value


def failure_of_put(client: PortalClient, model_id: str) -> PortalError:
    with pytest.raises(PortalUnavailable) as caught:
        client.update_model_status(model_id, ProcessingStatus.PROCESSING, "m")
    return caught.value


def test_a_training_is_marked_from_created_to_completed(portal: Portal, client: PortalClient, model_id: str) -> None:
    portal.set_model(model_id, "Created", "ready")

    assert client.get_model_status(model_id).message == "ready"
    client.update_model_status(model_id, ProcessingStatus.PROCESSING, "Model training started")
    client.update_model_status(model_id, ProcessingStatus.COMPLETED, "Model training completed successfully")

    assert client.get_model_status(model_id).status is ProcessingStatus.COMPLETED
    assert portal.calls(method="PUT")[0].body == {
        "ModelId": model_id,
        "Status": 1,
        "Message": "Model training started",
    }


@pytest.mark.parametrize("after", [False, True])
def test_a_cut_connection_leaves_open_whether_the_write_arrived(
    portal: Portal, client: PortalClient, model_id: str, after: bool
) -> None:
    portal.set_model(model_id)
    portal.add_fault("cut", method="PUT", after=after)

    error = failure_of_put(client, model_id)

    assert error.ambiguous
    assert "cut the connection" in str(error)
    assert portal.model(model_id).status == ("Processing" if after else "Created")


def test_a_cut_read_is_not_ambiguous(portal: Portal, client: PortalClient, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("cut")

    assert not failure_of_get(client, model_id).ambiguous


def test_a_portal_that_hangs_is_given_up(portal: Portal, model_id: str) -> None:
    portal.set_model(model_id)
    portal.add_fault("hang", after=True)
    impatient = PortalClient(portal.url, portal.api_key, timeout=0.2)

    error = failure_of_put(impatient, model_id)

    assert "did not answer within 0.2 s" in str(error)
    assert error.ambiguous
    assert portal.model(model_id).status == "Processing"


def raw_server(answer: bytes, *, stay_open: bool) -> Iterator[str]:
    """A TCP server that sends `answer` to whoever connects, and then closes or just waits."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            if stay_open:
                done.wait(60)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    done.set()
    listener.close()
    thread.join(20)


HALF_AN_ANSWER = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"status": "Created"}'
)


def test_half_an_answer_is_none() -> None:
    for url in raw_server(HALF_AN_ANSWER, stay_open=False):
        error = failure_of_put(PortalClient(url, KEY, timeout=20), "1")

        assert "cut the connection" in str(error)
        assert error.ambiguous


def test_an_answer_that_stops_half_way_is_given_up() -> None:
    for url in raw_server(HALF_AN_ANSWER, stay_open=True):
        error = failure_of_put(PortalClient(url, KEY, timeout=0.2), "1")

        assert "did not answer within 0.2 s" in str(error)
        assert error.ambiguous


def test_what_is_no_http_at_all_is_unavailable() -> None:
    for url in raw_server(b"SSH-2.0-OpenSSH_9.6\r\n", stay_open=False):
        failure_of_get(PortalClient(url, KEY, timeout=20), "1")


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * 200_000

    for url in raw_server(endless, stay_open=True):
        error = failure_of_get(PortalClient(url, KEY, timeout=20), "1")

        assert "more than 64 KiB" in str(error)


def test_a_refused_connection_is_not_ambiguous() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    error = failure_of_put(PortalClient(f"http://127.0.0.1:{port}", KEY), "1")

    assert not error.ambiguous
    assert "cannot be connected to" in str(error)
    assert error.detail.startswith(f"HTTPConnectionPool(host='127.0.0.1', port={port}): Max retries exceeded")


def test_a_host_name_that_does_not_exist_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_host(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    error = failure_of_put(PortalClient("http://portal.invalid", KEY), "1")

    assert "cannot be resolved (portal.invalid)" in str(error)
    assert not error.ambiguous


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_portal(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """A stub whose certificate is made out to 127.0.0.1 by a CA that this machine does not know."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = str(folder / "both.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    service, control = start_portal_stub(
        folder, KEY, "--tls-cert", certificate, "--tls-key", certificate, "--create-unknown"
    )
    with service:
        yield control


def test_a_self_signed_certificate_works_on_loopback_without_a_warning(
    tls_portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        client = PortalClient(tls_portal.url, KEY)
        client.update_model_status("1", ProcessingStatus.PROCESSING, "m")
        client.get_model_status("1")

    assert [str(warning.message) for warning in warned] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_ca_file_of_the_environment_does_not_turn_verification_on_for_loopback(
    tls_portal: Portal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))

    PortalClient(tls_portal.url, KEY).update_model_status("1", ProcessingStatus.FAILED, "m")


def test_a_proxy_of_the_environment_is_not_used_for_loopback(
    portal: Portal, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    portal.set_model(model_id)

    PortalClient(portal.url, portal.api_key).get_model_status(model_id)


def test_a_ca_bundle_is_what_certificates_are_checked_against(
    tls_portal: Portal, authority: trustme.CA, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right.pem", tmp_path / "wrong.pem"
    authority.cert_pem.write_to_path(str(right))
    trustme.CA().cert_pem.write_to_path(str(wrong))

    PortalClient(tls_portal.url, KEY, ca_bundle=str(right)).update_model_status("1", ProcessingStatus.CREATED, "")
    error = failure_of_put(PortalClient(tls_portal.url, KEY, ca_bundle=str(wrong)), "1")

    assert "does not show a trusted certificate" in str(error)
    assert "API_CA_BUNDLE" in str(error)
    assert not error.ambiguous


def test_a_certificate_for_another_name_is_not_trusted(
    tls_portal: Portal, authority: trustme.CA, tmp_path: Path
) -> None:
    bundle = tmp_path / "right.pem"
    authority.cert_pem.write_to_path(str(bundle))
    by_name = tls_portal.url.replace("127.0.0.1", "localhost")

    error = failure_of_get(PortalClient(by_name, KEY, ca_bundle=str(bundle)), "1")

    assert "host name" in str(error)


def test_verification_is_on_for_a_host_that_only_resolves_to_loopback(
    tls_portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **kw: resolve("127.0.0.1", *rest, **kw))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    url = tls_portal.url.replace("127.0.0.1", "portal.example.com")

    error = failure_of_get(PortalClient(url, KEY), "1")

    assert "does not show a trusted certificate" in str(error)


def test_https_spoken_to_plain_http_is_said_so(portal: Portal) -> None:
    error = failure_of_put(PortalClient(portal.url.replace("http:", "https:"), KEY), "1")

    assert "does not speak TLS as expected" in str(error)
    assert not error.ambiguous


def test_http_spoken_to_https_is_unavailable(tls_portal: Portal) -> None:
    failure_of_get(PortalClient(tls_portal.url.replace("https:", "http:"), KEY), "1")


# --- many threads -------------------------------------------------------------------------------------------------


def test_threads_share_a_client_and_its_connections(portal: Portal, model_id: str) -> None:
    names = [f"{model_id}{number}" for number in range(40)]
    for name in names:
        portal.set_model(name)
    client = PortalClient(portal.url, portal.api_key, pool_size=8)

    def train(name: str) -> ProcessingStatus:
        client.update_model_status(name, ProcessingStatus.COMPLETED, name)
        return client.get_model_status(name).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(train, names)) == {ProcessingStatus.COMPLETED}

    assert {name: portal.models()[name].message for name in names} == {name: name for name in names}
    assert len(portal.calls()) == 80


def test_more_threads_than_pooled_connections_work(portal: Portal, model_id: str) -> None:
    portal.set_model(model_id)
    client = PortalClient(portal.url, portal.api_key, pool_size=1)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.get_model_status(model_id).status, range(40)))

    assert found == [ProcessingStatus.CREATED] * 40


def test_auto_settles_on_bearer_with_many_threads(tmp_path: Path) -> None:
    service, portal = start_portal_stub(tmp_path, KEY, "--auth", "bearer")
    with service:
        portal.set_model("1")
        client = PortalClient(portal.url, KEY)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: client.get_model_status("1"), range(40)))
        portal.clear_calls()

        client.get_model_status("1")

        assert [call.auth for call in portal.calls()] == ["bearer"]
        with pytest.raises(PortalUnauthorized):
            PortalClient(portal.url, KEY + "x").get_model_status("1")
