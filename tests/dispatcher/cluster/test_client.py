"""dispatcher.cluster.client: what proxies, tokens and files that are no kubeconfig do to it; lists, page by page."""

from __future__ import annotations

import json
import socket
import time
import tracemalloc
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from dispatcher.cluster.answers import error_of
from dispatcher.cluster.client import KubernetesJobs
from dispatcher.cluster.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterUnavailable,
    ObjectInvalid,
    ObjectUnreadable,
    QuotaExceeded,
    RequestDenied,
    WatchEvent,
    WatchExpired,
)
from dispatcher.cluster.pods import Pod
from tests.world.api_servers import ApiServer, ErrorPage, write_kubeconfig
from tests.world.builders import job_json


def test_a_proxys_404_does_not_say_that_a_job_is_absent() -> None:
    with ErrorPage() as proxy, proxy.client() as cluster:
        with pytest.raises(ClusterUnavailable, match="without a Status of Kubernetes"):
            cluster.get_job("model-1")
        assert len(proxy.paths) == 1


def test_idle_connections_to_the_api_server_are_kept_known_to_load_balancers() -> None:
    made: list[tuple[int, ...]] = []
    real = urllib3.util.connection.create_connection

    def connect(*arguments: Any, **options: Any) -> socket.socket:
        connection = real(*arguments, **options)
        keys = (socket.TCP_KEEPIDLE, socket.TCP_USER_TIMEOUT)
        made.append(tuple(connection.getsockopt(socket.IPPROTO_TCP, key) for key in keys))
        return connection

    with ApiServer() as server, server.client() as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib3.util.connection, "create_connection", connect)
        cluster.get_job("model-1")
    ((idle, unanswered),) = made
    assert 0 < idle <= 120
    assert 0 < unanswered <= 30_000


def test_a_token_that_fits_into_no_header_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9", "first-half\nsecond-half")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(ClusterForbidden, match="does not fit into a header") as raised:
        list(KubernetesJobs().list_jobs("a=b"))
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
        (403, 'jobs.batch "model-1" is forbidden: not yet ready to handle request', ClusterUnavailable),
        (500, DOWN, ClusterUnavailable),
        (503, DOWN, ClusterUnavailable),
        (422, 'Job.batch "model-1" is invalid: spec: Required value', ObjectInvalid),
        (408, "the client was too slow", ClusterUnavailable),
    ],
)
def test_whose_refusal_it_is_is_told_by_its_words(code: int, message: str, kind: type[ClusterError]) -> None:
    error = error_of("create", "jobs", "model-1", code, {"kind": "Status", "message": message}, {})
    assert type(error) is kind
    assert message in str(error)
    assert ("The Role must allow" in str(error)) == message.startswith(RBAC)
    assert ("namespace is being deleted" in str(error)) == (message == TERMINATING)
    assert ("webhook does not answer" in str(error)) == (message == DOWN)


def test_nothing_was_stored_where_a_webhook_did_not_answer() -> None:
    error = error_of("create", "jobs", "", 500, {"kind": "Status", "message": DOWN}, {})
    assert isinstance(error, ClusterUnavailable)
    assert not error.ambiguous


@pytest.mark.parametrize("code", [400, 403, 404, 409, 410, 413, 422])
def test_a_refusal_without_kubernetes_words_is_a_proxys(code: int) -> None:
    error = error_of("create", "jobs", "", code, {}, {})
    assert isinstance(error, ClusterUnavailable)
    assert "is it an API server?" in str(error)


def test_a_read_that_is_forbidden_is_never_a_policys() -> None:
    error = error_of("list", "jobs", "", 403, {"kind": "Status", "message": "forbidden"}, {})
    assert type(error) is ClusterForbidden


class Answers(ApiServer):
    """Answers each GET with what `say` makes of its query: a status and JSON text, None to hang up without a word.

    accepted: the Accept header of each.
    """

    def __init__(self, say: Callable[[dict[str, str]], tuple[int, bytes] | None]) -> None:
        self.accepted: list[str] = []
        self._say = say
        super().__init__()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.accepted.append(request.headers["Accept"])
        found = self._say({key: values[0] for key, values in parse_qs(urlsplit(request.path).query).items()})
        if found is None:
            request.close_connection = True
            return
        status, body = found
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


def a_status(code: int, message: str) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "message": message}).encode()


class Pages:
    """A list of `total` Jobs of `size` bytes, at most `most` in a page.

    asked: the limit of each page; held: the memory that was in use when it was asked for.
    """

    def __init__(self, total: int, size: int, most: int = 1000) -> None:
        self.total, self.most, self.item = total, most, json.dumps(job_json(labels={"padding": "x" * size})).encode()
        self.asked: list[int] = []
        self.held: list[int] = []

    def __call__(self, query: dict[str, str]) -> tuple[int, bytes]:
        self.held.append(tracemalloc.get_traced_memory()[0])
        self.asked.append(int(query["limit"]))
        begin, limit = int(query.get("continue", "0")), int(query["limit"])
        end = min(self.total, begin + min(limit, self.most))
        metadata: dict[str, Any] = {"resourceVersion": "77"}
        if end < self.total:
            metadata |= {"continue": str(end), "remainingItemCount": self.total - end}
        head = b'{"kind": "JobList", "metadata": %s, "items": [' % json.dumps(metadata).encode()
        return 200, head + b",".join([self.item] * (end - begin)) + b"]}"


@pytest.mark.parametrize(
    ("total", "size", "smallest", "largest"),
    [(2000, 100, 500, 500), (300, 60_000, 60, 70), (60, 500_000, 8, 8)],
    ids=["small ones", "a request each", "half a megabyte each"],
)
def test_a_list_comes_in_pages_of_as_many_objects_as_fit(total: int, size: int, smallest: int, largest: int) -> None:
    pages = Pages(total, size)
    with Answers(pages) as server, server.client() as cluster:
        listing = cluster.list_jobs("a=b")
        assert sum(1 for _ in listing) == total
    assert listing.resource_version == "77"
    assert pages.asked[0] == 50, "nobody knows how large they are"
    assert all(smallest <= limit <= largest for limit in pages.asked[1:]), pages.asked
    assert len(pages.asked) > 2


def test_an_object_larger_than_a_page_is_fetched_alone() -> None:
    pages = Pages(4, 5 << 20, most=2)
    with Answers(pages) as server, server.client() as cluster:
        assert sum(1 for _ in cluster.list_jobs("a=b")) == 4
    assert pages.asked == [50, 1, 1]


def test_no_page_is_kept_while_the_next_one_is_fetched() -> None:
    pages = Pages(150, 100_000)
    with Answers(pages) as server, server.client() as cluster:
        tracemalloc.start()
        try:
            for job in cluster.list_jobs("a=b"):
                assert job.is_managed
        finally:
            tracemalloc.stop()
    assert len(pages.held) > 3
    assert max(pages.held) - pages.held[0] < 1_500_000, "a page has 4 MB, and the first one 5"


def test_an_empty_list_is_one_page() -> None:
    with Answers(lambda query: (200, b'{"metadata": {"resourceVersion": "5"}, "items": null}')) as server:
        with server.client() as cluster:
            listing = cluster.list_jobs("a=b")
            assert list(listing) == []
        assert (listing.resource_version, len(server.paths)) == ("5", 1)


def test_a_comparison_asks_for_metadata_alone() -> None:
    with Answers(Pages(3, 10)) as server, server.client() as cluster:
        assert [item.name for item in cluster.list_metadata("jobs", "a=b")] == ["model-1"] * 3
        assert [item.metadata.resource_version for item in cluster.list_metadata("pods", "a=b")] == ["1"] * 3
        assert [job.is_launched for job in cluster.list_jobs("a=b")] == [True] * 3
    first, *others = server.accepted[0].split(",")
    assert set(first.split(";")) == {"application/json", "as=PartialObjectMetadataList", "g=meta.k8s.io", "v=v1"}
    assert others == ["application/json"], "an API server that knows no such thing sends the whole"
    assert server.accepted == [server.accepted[0], server.accepted[0], "application/json"]


TOO_LARGE = "Too large resource version: 900, current: 7"


@pytest.mark.parametrize(("code", "message"), [(410, "too old resource version: 1 (2)"), (504, TOO_LARGE)])
def test_a_version_that_the_api_server_cannot_continue_from_is_expired(code: int, message: str) -> None:
    said = a_status(code, message)
    with Answers(lambda query: (code, said)) as server, server.client() as cluster:
        with pytest.raises(WatchExpired, match="resource version"):
            next(iter(cluster.watch("jobs", "a=b", "900", 10)))
        with pytest.raises(WatchExpired, match="resource version"):
            list(cluster.list_jobs("a=b"))


@pytest.mark.parametrize(("code", "message"), [(410, "too old resource version: 1 (2)"), (504, TOO_LARGE)])
def test_so_it_is_in_the_middle_of_a_watch(code: int, message: str) -> None:
    lines = [
        {"type": "MODIFIED", "object": job_json(version="8")},
        {"type": "BOOKMARK", "object": {"kind": "Job", "metadata": {"resourceVersion": "9"}}},
        {"type": "ERROR", "object": json.loads(a_status(code, message))},
    ]
    text = "\n".join(map(json.dumps, lines)).encode() + b"\n"
    seen: list[WatchEvent] = []
    with Answers(lambda query: (200, text)) as server, server.client() as cluster:
        events = cluster.watch("jobs", "a=b", "7", 10)
        with pytest.raises(WatchExpired, match="resource version"):
            seen.extend(events)
    assert [(event.type, event.object.metadata.resource_version) for event in seen] == [
        ("MODIFIED", "8"),
        ("BOOKMARK", "9"),
    ]


@pytest.mark.parametrize("watch", [False, True])
def test_a_pooled_connection_that_was_closed_is_tried_again_at_once(
    watch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server, or what stands before it, closes idle connections just when one is used again."""
    said = [(200, json.dumps(job_json()).encode()), None, (200, json.dumps(job_json(version="2")).encode())]
    with Answers(lambda query: said.pop(0)) as server, server.client() as cluster:
        assert cluster.get_job("model-1") is not None
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"a pause of {seconds} seconds"))
        if watch:
            said[-1] = 200, b""
            assert list(cluster.watch("jobs", "a=b", "1", 10)) == []
        else:
            job = cluster.get_job("model-1")
            assert job is not None
            assert job.metadata.resource_version == "2"
        assert len(server.paths) == 3


def test_it_is_tried_again_once_and_no_more() -> None:
    calls: list[int | None] = []
    with Answers(lambda query: None) as server, server.client() as cluster:
        cluster._on_call = lambda verb, kind, status, seconds: calls.append(status)
        with pytest.raises(ClusterUnavailable, match="cannot be reached"):
            cluster.get_job("model-1")
        assert len(server.paths) == 2
    assert calls == [None], "it was one call to whoever counts them"


def test_the_environment_is_fetched_where_it_is_needed() -> None:
    env = [
        {"name": "TRAINING_REQUEST", "value": "{}"},
        {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    containers = [{"name": "istio-proxy", "env": [{"name": "A", "value": "b"}]}, {"name": "trainer", "env": env}]
    job = json.dumps(job_json(spec={"template": {"spec": {"containers": containers}}})).encode()
    with Answers(lambda query: (200, job)) as server, server.client() as cluster:
        assert cluster.get_environment("model-1") == {"TRAINING_REQUEST": "{}"}


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"metadata": 5}', b'{"metadata": {"labels": []}}', b"\xff{}", b'{"a":' * 99_999],
    ids=["nothing", "a page", "a list", "null", "a number", "a list of labels", "no UTF-8", "a tower"],
)
def test_an_answer_that_is_not_kubernetes_is_an_outage(body: bytes) -> None:
    listed = b'{"metadata": {"resourceVersion": "5"}, "items": [%s]}' % (body or b"<")
    watched = b'{"type": "ADDED", "object": %s}\n' % (body or b"<")

    def say(query: dict[str, str]) -> tuple[int, bytes]:
        return 200, watched if "watch" in query else listed if "limit" in query else body

    with Answers(say) as server, server.client() as cluster:
        for call in (
            lambda: cluster.get_job("model-1"),
            lambda: list(cluster.list_jobs("a=b")),
            lambda: list(cluster.watch("jobs", "a=b", "1", 10)),
        ):
            with pytest.raises(ClusterUnavailable, match=r"cannot be read|broke off"):
                call()


def test_null_means_what_a_missing_field_means() -> None:
    """Kubernetes leaves out what is empty; a server in front of it may not."""
    job = {"metadata": {"name": "model-1", "finalizers": None, "ownerReferences": None}, "spec": None, "status": None}
    condition = {"type": "PodScheduled", "status": "True", "reason": None, "message": None, "lastTransitionTime": None}
    pod = {
        "metadata": {"name": "model-1-a", "deletionGracePeriodSeconds": None},
        "spec": {"containers": [{"name": "trainer", "resources": None}], "initContainers": None},
        "status": {"conditions": [condition], "containerStatuses": [{"name": "trainer", "started": None}]},
    }

    def say(query: dict[str, str]) -> tuple[int, bytes]:
        if "watch" in query:
            return 200, json.dumps({"type": "ADDED", "object": pod}).encode() + b"\n"
        return 200, json.dumps(
            {"metadata": {"resourceVersion": "5"}, "items": [job]} if "limit" in query else job
        ).encode()

    with Answers(say) as server, server.client() as cluster:
        found = cluster.get_job("model-1")
        assert found is not None
        assert (found.name, found.has_finalizer, found.is_suspended) == ("model-1", False, False)
        assert list(cluster.list_jobs("a=b")) == [found]
        (event,) = cluster.watch("pods", "a=b", "1", 10)
        assert isinstance(event.object, Pod)
        assert event.object.condition("PodScheduled") is not None


def test_one_object_that_cannot_be_read_keeps_no_others_from_being_read(caplog: pytest.LogCaptureFixture) -> None:
    """A field that another version of Kubernetes, or a hand, has made something else."""
    sound, odd = job_json(model_id="1"), job_json(model_id="2", spec={"activeDeadlineSeconds": "a week"})
    page = json.dumps({"metadata": {"resourceVersion": "5"}, "items": [sound, odd, job_json(model_id="3")]}).encode()
    events = [json.dumps({"type": "MODIFIED", "object": job}).encode() for job in (odd, sound)]
    defects: list[None] = []
    answers = [b"\n".join([*events, b""]) if kind == "watch" else page for kind in ("list", "list", "watch")]

    with Answers(lambda query: (200, answers.pop(0))) as server, server.client() as cluster:
        cluster._on_defect = lambda: defects.append(None)
        for _ in range(2):
            listing = cluster.list_jobs("a=b")
            assert [job.name for job in listing] == ["model-1", "model-3"]
            assert (listing.left_out, listing.resource_version) == (["model-2"], "5")
        assert [event.object.name for event in cluster.watch("jobs", "a=b", "1", 10)] == ["model-1"]
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "Job model-2 cannot be read" in said
    assert "activeDeadlineSeconds" in said
    assert "a week" not in said
    assert len(defects) == 3


def test_an_object_that_cannot_be_read_is_an_answer_that_cannot_where_it_is_asked_for_alone() -> None:
    odd = json.dumps(job_json(spec={"activeDeadlineSeconds": "a week"})).encode()
    with (
        Answers(lambda query: (200, odd)) as server,
        server.client() as cluster,
        pytest.raises(ObjectUnreadable, match="activeDeadlineSeconds"),
    ):
        cluster.get_job("model-1")


def test_who_says_yes_to_a_creation_and_shows_no_job_is_no_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with Answers(lambda query: (200, b"{}")) as server, server.client() as cluster:
        monkeypatch.setattr(cluster, "_request", lambda *arguments, **options: SimpleNamespace(data=b"{}"))
        with pytest.raises(ObjectUnreadable, match="is it an API server"):
            cluster.create_job(job_json())


def test_a_job_without_containers_is_an_answer_that_cannot_be_read() -> None:
    nothing = b'{"spec": {"template": {}}}'
    with (
        Answers(lambda query: (200, nothing)) as server,
        server.client() as cluster,
        pytest.raises(ObjectUnreadable, match="no container"),
    ):
        cluster.get_environment("model-1")
