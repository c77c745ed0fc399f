"""The status page and its JSON: `route` for an HTTP server, over what the dispatcher knows in memory.

    /                         the page; it brings its style and script from /status.css and /status.js
    /api/status               a page of each section: ?limit=N rows, from ?running=N, ?waiting=N, ?ended=N, ?refused=N
                              (0) on; ?q=TEXT: of those that hold it
    /api/models/CONTAINER     one model

Read-only, without a key and without secrets: names, times and sentences that the portal's users can read anyhow.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass, field
from importlib import resources
from importlib.metadata import version
from typing import Any

from dispatcher.cluster.jobs import Job
from dispatcher.cluster.pods import Pod
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.summaries import Seen, Summaries, Summary
from dispatcher.decisions import timeline
from dispatcher.decisions.containers import awaited
from dispatcher.decisions.standing import Standing
from dispatcher.intake.refusals import Refusals
from dispatcher.web.request_rows import QueueFacts
from dispatcher.web.server import Answer, Request
from dispatcher.web.status_feeds import StatusFeeds
from dispatcher.web.status_rows import SECTIONS, Page, Rules, Sections, World, step_row
from training_common.redaction import redact
from training_common.times import rfc3339

# Jobs are put in order at most once in this many seconds, however many viewers there are…
_FRESH = 1.0
# …and reused for this many times as long as they took: with thousands of Jobs the page must not slow the dispatcher.
_SHARE = 10.0
# Seconds that the first view after a rest waits for the queues.
_FIRST_VIEW = 0.15
# Of each section: as many as the page shows, and as anybody gets.
_ROWS = 50
_MOST_ROWS = 500
# Characters of a filter: each of its words is looked for in every Job.
_LONGEST_QUERY = 200

# Nothing but what this server serves is loaded, run, framed or sent anywhere; see docs/security.md.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/status.css": ("status.css", "text/css; charset=utf-8"),
    "/status.js": ("status.js", "text/javascript; charset=utf-8"),
    "/status.svg": ("status.svg", "image/svg+xml"),
}


@dataclass(frozen=True, kw_only=True)
class Process:
    """Which dispatcher this is. name: the pod's, where it runs in one; started_at: RFC 3339."""

    name: str = field(default_factory=socket.gethostname)
    identity: str
    version: str = field(default_factory=lambda: version("training-dispatcher"))
    namespace: str
    started_at: str = field(default_factory=lambda: rfc3339(time.time()))


@dataclass(eq=False)
class StatusPage:
    """not_ready(): why no request would be taken now.

    fresh: seconds for which the order of Jobs is reused at least; 0: it is made for each request.
    """

    cache: ClusterCache
    summaries: Summaries
    ended: EndedJobs
    feeds: StatusFeeds
    refusals: Refusals
    _: KW_ONLY
    rules: Rules
    process: Process
    queue: str
    not_ready: Callable[[], list[str]]
    fresh: float = _FRESH
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _good_until: float = field(default=float("-inf"), init=False)
    _made: tuple[QueueFacts, Sections] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        folder = resources.files("dispatcher.web") / "static"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    def route(self, request: Request) -> Answer | None:
        """The answer to one of our paths, None for any other."""
        if request.path in self._files:
            body, kind = self._files[request.path]
            return Answer(200, body, kind, _HEADERS)
        if request.path == "/api/status":
            return self._status(request)
        if request.path.startswith("/api/models/"):
            return self._model(request, request.path.removeprefix("/api/models/"))
        if request.path.startswith("/api"):
            return _json({"error": "There are /api/status and /api/models/CONTAINER"}, 404)
        return None

    def _status(self, request: Request) -> Answer:
        numbers = {}
        for name in ("limit", *SECTIONS):
            if text := request.query.get(name, ""):
                if not (text.isascii() and text.isdigit() and len(text) < 10):
                    return _json({"error": f"{name} is {ascii(text)[:40]}: a whole number would be right"}, 400)
                numbers[name] = int(text)
        query = request.query.get("q", "")
        if len(query) > _LONGEST_QUERY:
            return _json({"error": f"q has {len(query)} characters: at most {_LONGEST_QUERY} would be right"}, 400)
        limit = min(numbers.pop("limit", _ROWS), _MOST_ROWS)
        queue, found = self._sections()
        sections, running = found.shown(Page(query, limit, numbers))
        self._show(running)
        answer = {
            "dispatcher": {**asdict(self.process), "not_ready": self.not_ready()},
            "queue": {
                "name": self.queue,
                "depth": queue.depth,
                "poison_depth": queue.poison_depth,
                "problem": queue.problem,
            },
            "phases": found.phases,
            "gpus_in_use": found.gpus_in_use,
            "ended_is_cut": self.ended.is_cut,
            **sections,
        }
        return _json(answer, etag=request.etag)

    def _model(self, request: Request, container: str) -> Answer:
        facts, progress = self.feeds.look(_FIRST_VIEW)
        job, ended = self.cache.job(container), self.ended.find(container, self.clock())
        jobs: list[Seen] = [(job, *self.cache.pods_of(job))] if job is not None else []
        summaries, gone = self.summaries.all(), [ended] if ended else []
        world = World(jobs, facts, self.refusals.latest(), progress, summaries, gone)
        sections_made = Sections(world, self.rules, self.clock())
        sections, running = sections_made.shown(Page(limit=_MOST_ROWS))
        rows = [row for section in sections.values() for row in section["rows"] if row["model"] == container]
        if not rows:
            return _json({"error": f"Neither Jobs nor queues know {ascii(container)[:80]}"}, 404)
        self._show(running)
        pods = [_pod(pod) for each in (*jobs, *(summary.seen for summary in gone)) for pod in each[1:]]
        known = {"model": container, "rows": rows, "pods": pods, **_stands(sections_made.standing(container))}
        return _json(known, etag=request.etag)

    def _show(self, running: list[Job]) -> None:
        self.feeds.show([(job.uid, job.model_id) for job in running])

    def _sections(self) -> tuple[QueueFacts, Sections]:
        facts, progress = self.feeds.look(_FIRST_VIEW)
        with self._lock:
            began = self.monotonic()
            if self._made is None or began >= self._good_until:
                now = self.clock()
                ended, summaries = self.ended.latest(now), self.summaries.all()
                world = World(self.cache.seen(), facts, self.refusals.latest(), progress, summaries, ended)
                self._made = facts, Sections(world, self.rules, now)
                done = self.monotonic()
                self._good_until = done + max(self.fresh, _SHARE * (done - began) if self.fresh else 0.0)
            return self._made


def _stands(found: tuple[Summary, Standing] | None) -> dict[str, Any]:
    """Where a training stands, and its timeline; nulls of what has no Job. No time in it depends on now."""
    if found is None:
        return {"standing": None, "steps": []}
    summary, standing = found
    times = {
        name: None if at is None else rfc3339(at) for name, at in (("since", standing.since), ("until", standing.until))
    }
    told = {**asdict(standing), **times, "sentence": redact(standing.sentence)}
    return {
        "standing": told,
        "steps": [step_row(step, summary.job) for step in timeline.steps(summary.job, summary.pods)],
    }


def _pod(pod: Pod) -> dict[str, Any]:
    running, ended = pod.trainer_state.running, pod.trainer_end
    return {
        "name": pod.name,
        "index": pod.index,
        "phase": pod.phase,
        "node": pod.node,
        "created_at": pod.metadata.creation_timestamp,
        "started_at": running.started_at if running else ended.started_at,
        "finished_at": ended.finished_at,
        "exit_code": ended.exit_code,
        "reason": ended.reason or awaited(pod).reason or None,
    }


def _json(data: object, status: int = 200, etag: str = "") -> Answer:
    body = json.dumps(data, separators=(",", ":")).encode()
    # A hash of the content: replicas that know the same send the same.
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}
    if status == 200 and tag in etag:
        status, body = 304, b""
    return Answer(status, body, "application/json", headers)
