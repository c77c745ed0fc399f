"""dispatcher.cluster.client: what proxies, tokens and files that are no kubeconfig do to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import ClusterForbidden, ClusterUnavailable
from tests.world.api_servers import ErrorPage, write_kubeconfig


def test_a_proxys_404_does_not_say_that_a_job_is_absent() -> None:
    with ErrorPage() as proxy, proxy.client() as cluster:
        with pytest.raises(ClusterUnavailable, match="without a Status of Kubernetes"):
            cluster.get_job("model-1")
        assert len(proxy.paths) == 1


def test_a_token_that_fits_into_no_header_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9", "first-half\nsecond-half")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
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
