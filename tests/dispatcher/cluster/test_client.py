"""dispatcher.cluster.client: what proxies, tokens and files that are no kubeconfig do to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.cluster.client import KubernetesJobs, _error
from dispatcher.cluster.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterUnavailable,
    ObjectInvalid,
    QuotaExceeded,
    RequestDenied,
)
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


RBAC = (
    'jobs.batch is forbidden: User "system:serviceaccount:training:dispatcher" cannot create resource "jobs" in API '
    'group "batch" in the namespace "training"'
)
WEBHOOK = 'admission webhook "validation.gatekeeper.sh" denied the request: [costs] a Job names its cost centre'
POLICY = "jobs.batch \"model-1\" is forbidden: ValidatingAdmissionPolicy 'names' with binding 'all' denied request: no"
DOWN = (
    'Internal error occurred: failed calling webhook "v.kyverno.svc": failed to call webhook: Post '
    '"https://kyverno.kyverno.svc:443/validate": dial tcp 10.0.0.1:443: connect: connection refused'
)
TERMINATING = (
    'jobs.batch "model-1" is forbidden: unable to create new content in namespace training because it is being '
    "terminated"
)


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (403, RBAC, ClusterForbidden),
        (403, RBAC + ': RBAC: role.rbac "x" not found', ClusterForbidden),
        (403, TERMINATING, ClusterForbidden),
        (403, 'jobs.batch "model-1" is forbidden: exceeded quota: jobs, requested: 1, used: 1', QuotaExceeded),
        (
            403,
            'jobs.batch "model-1" is forbidden: status unknown for quota: jobs, resources: count/jobs',
            QuotaExceeded,
        ),
        (403, WEBHOOK, RequestDenied),
        (400, WEBHOOK, RequestDenied),
        (401, WEBHOOK, RequestDenied),
        (404, WEBHOOK, RequestDenied),
        (409, WEBHOOK, RequestDenied),
        (422, WEBHOOK, RequestDenied),
        (400, 'admission webhook "a" denied the request without explanation', RequestDenied),
        (403, f"{WEBHOOK}: exceeded quota of the team", RequestDenied),
        (403, f'{WEBHOOK}: User "x" cannot create resource "jobs"', RequestDenied),
        (403, POLICY, RequestDenied),
        (422, POLICY, RequestDenied),
        (401, POLICY, RequestDenied),
        (413, POLICY, RequestDenied),
        (403, 'jobs.batch "model-1" is forbidden: the vendor\'s plug-in does not like it', RequestDenied),
        (500, WEBHOOK, ClusterUnavailable),
        (503, WEBHOOK, ClusterUnavailable),
        (429, WEBHOOK, ClusterUnavailable),
        (500, DOWN, ClusterUnavailable),
        (503, DOWN, ClusterUnavailable),
        (422, 'Job.batch "model-1" is invalid: spec: Required value', ObjectInvalid),
        (408, "the client was too slow", ClusterUnavailable),
    ],
)
def test_whose_refusal_it_is_is_told_by_its_words(code: int, message: str, kind: type[ClusterError]) -> None:
    error = _error("create", "jobs", "model-1", code, {"kind": "Status", "message": message}, {})
    assert type(error) is kind
    assert message in str(error)
    assert ("The Role must allow" in str(error)) == message.startswith(RBAC)
    assert ("namespace is being deleted" in str(error)) == (message == TERMINATING)
    assert ("webhook does not answer" in str(error)) == (message == DOWN)


def test_nothing_was_stored_where_a_webhook_did_not_answer() -> None:
    error = _error("create", "jobs", "", 500, {"kind": "Status", "message": DOWN}, {})
    assert isinstance(error, ClusterUnavailable)
    assert not error.ambiguous


@pytest.mark.parametrize("code", [400, 403, 404, 409, 410, 413, 422])
def test_a_refusal_without_kubernetes_words_is_a_proxys(code: int) -> None:
    error = _error("create", "jobs", "", code, {}, {})
    assert isinstance(error, ClusterUnavailable)
    assert "is it an API server?" in str(error)


def test_a_read_that_is_forbidden_is_never_a_policys() -> None:
    error = _error("list", "jobs", "", 403, {"kind": "Status", "message": "forbidden"}, {})
    assert type(error) is ClusterForbidden
