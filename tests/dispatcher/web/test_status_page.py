"""dispatcher.web.status_page over a real HTTP server: paths, caching, refusals, and how much of it there may be."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from dispatcher.cluster.pods import Pod
from dispatcher.controller.summaries import Summaries, Summary
from dispatcher.decisions.views.without_job import PortalWord
from dispatcher.telemetry.metrics import Metrics
from dispatcher.web.guards import for_loopback, is_loopback
from dispatcher.web.health import HealthServer, Heartbeats, Readiness
from dispatcher.web.server import Answer, HttpServer, Request
from dispatcher.web.status_rows import PortalProgress
from tests.dispatcher.web import status_world
from tests.dispatcher.web.status_world import Shown, losses, reported_job, running_job
from tests.world.builders import FakeClock, pod_json, waiting
from tests.world.pages import section
from tests.world.repository import read
from training_common.times import rfc3339

NOW = 1795420800.0


@pytest.fixture(scope="module")
def worlds() -> Iterator[list[Shown]]:
    """One server for all tests: it shows the last of these."""
    made = [Shown()]

    def latest(request: Request) -> Answer | None:
        return made[-1].page.route(request)

    server = HttpServer("127.0.0.1", 0, [latest], name="test", paths="/ or /api/status")
    server.start()
    made[0].url = f"http://127.0.0.1:{server.port}/"
    yield made
    server.stop()


@pytest.fixture
def shown(worlds: list[Shown]) -> Shown:
    worlds.append(Shown())
    worlds[-1].url = worlds[0].url
    return worlds[-1]


class Got:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def asked(shown: Shown, path: str, method: str = "GET", **headers: str) -> Got:
    connection = http.client.HTTPConnection(shown.url.split("/")[2], timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        return Got(connection.getresponse())
    finally:
        connection.close()


def test_the_api_has_every_section_with_totals(shown: Shown) -> None:
    status_world.busy(shown, NOW)
    shown.not_ready.append("intake pauses: the portal is out of reach")
    found = asked(shown, "/api/status").json
    totals = {name: found[name]["total"] for name in ("running", "waiting", "ended", "refused")}
    assert totals == {"running": 5, "waiting": 7, "ended": 6, "refused": 3}
    assert found["dispatcher"]["not_ready"] == ["intake pauses: the portal is out of reach"]
    assert (found["queue"]["depth"], found["queue"]["poison_depth"], found["gpus_in_use"]) == (4, 2, 9)


def test_one_model_has_its_rows_pods_timeline_and_standing(shown: Shown) -> None:
    status_world.busy(shown, time.time())
    shown.feeds.words = {"uid-tumours": PortalWord("Processing", "Epoch 14 of 20")}
    found = asked(shown, "/api/models/model-tumours").json
    assert [row["phase"] for row in found["rows"]] == ["running"]
    assert [(pod["phase"], pod["node"]) for pod in found["pods"]] == [("Running", "gpu-a100-03")]
    assert (found["portal"]["status"], found["portal"]["heard_at"]) == ("Processing", rfc3339(NOW))
    assert (found["standing"]["phase"], found["standing"]["holder"]) == ("running", "the trainer")
    assert [step["name"] for step in found["steps"]] == ["queue", "launch", "schedule", "prepare", "run"]
    assert shown.feeds.shown == [("uid-tumours", "tumours")]
    galaxies = asked(shown, "/api/models/model-galaxies").json["standing"]
    assert (galaxies["holder"], galaxies["then"]) == ("the scheduler", "Unschedulable"), "not decided by the reconciler"


def test_a_model_without_a_job_stands_where_queues_and_portal_show_it(shown: Shown) -> None:
    status_world.busy(shown, NOW)
    shown.feeds.words = {
        "model-cats": PortalWord("Created", ""),
        "model-gone": PortalWord("Completed", "Model training completed successfully"),
        "model-theirs": PortalWord("Processing", "Epoch 1 of 2"),
    }
    for name, phase in (
        ("model-cats", "on the queue"),
        ("model-lost", "refused"),
        ("training-1", "refused"),
        ("model-gone", "completed"),
        ("model-theirs", "elsewhere"),
    ):
        got = asked(shown, f"/api/models/{name}")
        assert (got.status, got.json["standing"]["phase"], got.json["steps"]) == (200, phase, []), name
    assert shown.feeds.shown == [("model-theirs", "theirs")], "the portal is asked for it, though it has no Job"
    assert "requeue p-2" in asked(shown, "/api/models/model-lost").json["standing"]["advice"]


def test_a_stranger_is_not_found_and_is_told_what_can_be_said(shown: Shown) -> None:
    got = asked(shown, "/api/models/model-%3Cb%3E")
    assert (got.status, got.json["error"]) == (404, "Neither Jobs nor queues know 'model-<b>'")
    assert (got.json["standing"]["phase"], got.json["rows"]) == ("unknown", [])
    assert "contains '<'" in got.json["portal"]["message"]
    assert shown.feeds.shown == [], "the portal is asked for what can be a model's name"
    assert asked(shown, f"/api/models/{'x' * 5000}").json["model"] == "x" * 100


def test_a_paused_intake_is_said_of_what_lies_on_the_queue(shown: Shown) -> None:
    status_world.busy(shown, NOW)
    shown.page.paused = lambda queue: f"paused since 12:00 ({queue!r})"
    found = asked(shown, "/api/models/model-dogs").json["standing"]
    assert found["holder"] == "a person"
    assert "the intake is paused since 12:00 (" in found["sentence"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/models/model-1", 200), ("/models/a%2Fb", 200), ("/models/", 200), ("/models/a/b", 404), ("/models", 404)],
)
def test_each_model_has_a_page_of_its_own(shown: Shown, path: str, status: int) -> None:
    got = asked(shown, path)
    assert (got.status, b"../model.js" in got.body) == (status, status == 200)


def test_the_last_day_is_counted_from_jobs_that_go_on_and_that_ended(shown: Shown) -> None:
    now = time.time()
    shown.put(
        [
            running_job("1", now - 60),
            reported_job("2", now, "Completed", "done"),
            reported_job("3", now, "Timeout", "late"),
        ]
    )
    found = asked(shown, "/api/status").json["trends"]
    assert (found["launched"], found["completed"], found["failed"], found["codes"]) == (3, 1, 1, {"Timeout": 1})
    assert len(found["hours"]) == 24
    assert sum(hour["failed"] for hour in found["hours"]) == 1
    assert found["since"] >= rfc3339(now - 1), "until the Jobs that were there were listed"
    shown.ended.fill([])
    found = asked(shown, "/api/status").json["trends"]
    assert found["since"] == found["hours"][0]["began"], "Jobs here are kept for ever"


def test_a_pod_that_waits_for_an_init_container_says_why_as_one_that_waits_for_its_trainer_does(shown: Shown) -> None:
    of = status_world.job("waits", at=NOW)
    plain = status_world.pod(of, NOW, state=waiting("CreateContainerConfigError"))
    behind = pod_json(name="model-waits-2", model_id="waits", job_uid=of.uid, state=waiting("PodInitializing"))
    behind["spec"]["initContainers"] = [{"name": "prepare"}]
    behind["status"]["initContainerStatuses"] = [{"name": "prepare", "state": waiting("ImagePullBackOff")}]
    shown.put([(of, [plain, msgspec.convert(behind, Pod)])])
    reasons = {pod["reason"] for pod in asked(shown, "/api/models/model-waits").json["pods"]}
    assert reasons == {"CreateContainerConfigError", "ImagePullBackOff"}


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/status?limit=-1", 400, "limit is '-1': a whole number would be right"),
        ("/api/status?limit=%D9%A3", 400, "a whole number would be right"),
        ("/api/status?waiting=x", 400, "waiting is 'x': a whole number would be right"),
        (f"/api/status?q={'a+' * 150}b", 400, "q has 301 characters: at most 200 would be right"),
        ("/api/nothing", 404, "There are /api/status and /api/models/CONTAINER"),
        ("/nothing", 404, "/ or /api/status"),
        (f"/api/status?{'&'.join(f'q{n}=1' for n in range(30))}", 400, "more than 20 fields"),
        ("/../../etc/passwd", 404, "/ or /api/status"),
        ("/status.css/../index.html", 404, "/ or /api/status"),
    ],
)
def test_what_cannot_be_answered_is_told_in_a_sentence(shown: Shown, path: str, status: int, says: str) -> None:
    got = asked(shown, path)
    assert got.status == status
    assert says in got.body.decode()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_nothing_can_be_changed_through_it(shown: Shown, method: str) -> None:
    got = asked(shown, "/api/status", method)
    assert (got.status, got.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/status.css",
        "/shared.js",
        "/overview.js",
        "/model.js",
        "/models/x",
        "/status.svg",
        "/api/status",
        "/api/models/x",
    ],
)
def test_every_answer_forbids_what_the_page_does_not_need(shown: Shown, path: str) -> None:
    got = asked(shown, path)
    policy = dict(part.split(" ", 1) for part in got.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) <= {"'none'", "'self'", "'script'"}
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["X-Frame-Options"] == "DENY"
    assert not [name for name in got.headers if name.lower().startswith("access-control-")]
    assert "Python" not in got.headers["Server"]


def test_head_says_what_get_would_without_saying_it(shown: Shown) -> None:
    head, get = asked(shown, "/status.js", "HEAD"), asked(shown, "/status.js")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(get.body)))


def test_what_has_not_changed_is_not_sent_again(shown: Shown) -> None:
    shown.put([running_job("1", NOW)])
    first = asked(shown, "/api/status")
    assert asked(shown, "/api/status", If_None_Match=first.headers["ETag"]).status == 304
    shown.put([running_job("1", NOW), running_job("2", NOW)])
    changed = asked(shown, "/api/status", If_None_Match=first.headers["ETag"])
    assert (changed.status, changed.json["running"]["total"]) == (200, 2)


@pytest.mark.parametrize(("took", "good_for"), [(0.0, 1.0), (0.4, 4.0)])
def test_rows_that_took_long_are_good_for_longer(took: float, good_for: float) -> None:
    clock = FakeClock()

    class Slow(Summaries):
        def all(self) -> dict[str, Summary]:
            clock.advance(took)
            return super().all()

    shown = Shown(fresh=1.0, monotonic=clock)
    shown.page.summaries = Slow()
    shown.put([running_job("1", NOW)])

    def total() -> int:
        answer = shown.page.route(Request("/api/status"))
        assert answer
        return json.loads(answer.body)["running"]["total"]

    assert total() == 1
    shown.put([])
    clock.advance(good_for - 0.01)
    assert total() == 1
    clock.advance(0.02)
    assert total() == 0


def cost(shown: Shown, query: dict[str, str]) -> tuple[float, int]:
    """Seconds of CPU and bytes of an answer whose order of Jobs has to be made anew."""
    began = time.thread_time()
    answer = shown.page.route(Request("/api/status", query))
    assert answer is not None
    return time.thread_time() - began, len(answer.body)


def test_ten_thousand_jobs_cost_little_time_and_few_bytes_whatever_is_asked_for(shown: Shown) -> None:
    status_world.crowd(shown, NOW, 10_000)
    long = "The training's own code failed: " + "an error that says a lot about itself. " * 12
    failed = reported_job("e", NOW, "UserCodeFailed", long)
    for n in range(1000):
        shown.ended.add(*status_world.another(failed, f"e-{n:04}"))
    shown.feeds.progress = {
        f"uid-r-{n:04}": PortalProgress("Epoch 60 of 90, loss 0.1", NOW, losses(60)) for n in range(500)
    }
    for query in ({}, {"q": "gpu"}, {"q": "model-w-01 waiting"}, {"q": "nobody"}, {"running": "4950", "q": "r-"}):
        seconds, size = cost(shown, query)
        assert seconds < 0.3, query
        assert size < 300_000, query
    found = asked(shown, "/api/status?q=model-w-0&waiting=950").json
    counts = [(found[name]["total"], found[name]["matching"]) for name in ("running", "waiting", "ended")]
    assert counts == [(5000, 0), (5000, 1000), (1000, 0)]
    assert [row["model"] for row in found["waiting"]["rows"]] == [f"model-w-{n:04}" for n in range(950, 1000)]
    assert (found["gpus_in_use"], found["phases"]) == (5000, {"waiting": 5000, "running": 5000, "failed": 1000})
    assert len(asked(shown, "/api/status?limit=9999").json["running"]["rows"]) == 500
    began = time.thread_time()
    assert shown.page.route(Request("/api/models/model-r-0123")) is not None
    assert time.thread_time() - began < 0.05


def test_html_in_names_and_sentences_travels_as_json_only(shown: Shown) -> None:
    shown.feeds.facts = shown.feeds.facts.__class__(poison=(status_world.an_entry("<img>", "NotJson", "<b>", NOW),))
    got = asked(shown, "/api/status")
    assert got.headers["Content-Type"] == "application/json"
    assert got.json["refused"]["rows"][0]["model"] == "<img>"


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        *((host, True) for host in ("localhost:8081", "LOCALHOST", "127.0.0.1:1", "[::1]:8081", "")),
        *(
            (host, False)
            for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8081", "10.0.0.1")
        ),
    ],
)
def test_on_loopback_only_this_machines_names_are_answered(host: str, answered: bool) -> None:
    page = for_loopback(lambda request: Answer(200, b"names"))
    answer = page(Request("/", host=host))
    assert answer is not None
    assert answer.status == (200 if answered else 421)


@pytest.mark.parametrize(("host", "is_it"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_loopback_is_told_from_what_others_reach(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it


def test_the_page_stands_beside_the_probes_where_both_have_one_port(shown: Shown) -> None:
    server = HealthServer("127.0.0.1", 0, Heartbeats(1e9), Readiness, Metrics().registry, [shown.page.route])
    server.start()
    try:
        beside = Shown()
        beside.url = f"http://127.0.0.1:{server.port}/"
        assert asked(beside, "/readyz").body == b"ok\n"
        assert asked(beside, "/metrics").status == 200
        assert b"<h1>Training dispatcher</h1>" in asked(beside, "/").body
        assert asked(beside, "/api/status").status == 200
    finally:
        server.stop()


def test_every_field_is_documented_and_no_other(shown: Shown) -> None:
    """Tables with four columns in the section: field, where, type, meaning."""
    status_world.busy(shown, time.time())
    found = asked(shown, "/api/status").json
    rows = [row for name in ("running", "waiting", "ended", "refused") for row in found[name]["rows"]]
    fields = {key for row in rows for key in row} | {key for row in rows for key in row.get("progress") or ()}
    fields |= {key for key in found if key not in ("running", "waiting", "ended", "refused")}
    fields |= {*found["dispatcher"], *found["queue"], *found["queue"]["each"][0], *found["running"]}
    fields |= {*found["trends"], *found["trends"]["hours"][0]}
    own = [asked(shown, f"/api/models/{name}").json for name in ("model-tumours", "model-digits", "model-none")]
    fields |= {key for each in own for key in each} | {
        key for each in own for part in ("pods", "steps") for one in each[part] for key in one
    }
    fields |= {key for each in own for part in ("standing", "portal") for key in each[part]} | {*own[1]["gpu_seconds"]}
    documented = set(re.findall(r"^\| `([a-z_]+)`", section(read("docs/operate.md"), "The status page"), re.MULTILINE))
    assert documented == fields
