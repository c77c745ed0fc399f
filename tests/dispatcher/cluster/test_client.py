"""dispatcher.cluster.client: what proxies, tokens and files that are no kubeconfig do to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterForbidden, ClusterUnavailable


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = b"<html>404 Not Found: nginx</html>"
        self.send_response(404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def kubeconfig(folder: Path, server: str, token: str = "t") -> str:
    file = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(config))
    return str(file)


def test_a_proxys_404_does_not_say_that_a_job_is_absent(
    tmp_path: Path, web_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, web_server))
    with pytest.raises(ClusterUnavailable, match="without a Status of Kubernetes"):
        KubernetesJobs().get_job("model-1")


def test_a_token_that_fits_into_no_header_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, "http://127.0.0.1:9", token="first-half\nsecond-half"))
    with pytest.raises(ClusterForbidden, match="does not fit into a header") as raised:
        KubernetesJobs().list_jobs("a=b")
    assert "half" not in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"- 1\n", b"<html>hello</html>", bytes(range(256)), b"users: 5\n", b"[" * 3000], ids=repr
)
def test_a_file_that_is_no_kubeconfig_is_said_in_a_sentence(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kubeconfig").write_bytes(content)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(ClusterForbidden, match="set KUBECONFIG to a kubeconfig file"):
        KubernetesJobs()
