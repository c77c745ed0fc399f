"""The status page and its JSON: `route` for an HTTP server, over what the dispatcher knows in memory.

    /                         the page; it brings its style and scripts from here, too
    /models/CONTAINER         a model's own page
    /api/status               a page of each section: ?limit=N rows, from ?running=N, ?waiting=N, ?ended=N, ?refused=N
                              (0) on; ?q=TEXT: of those that hold it
    /api/models/CONTAINER     one model: 404 where nobody knows it, with what can be said all the same

Read-only, without a key and without secrets: names, times and sentences that the portal's users can read anyhow.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from importlib import resources
from importlib.metadata import version

from dispatcher.cluster.jobs import Job
from dispatcher.controller.cache import ClusterCache
from dispatcher.controller.ended_jobs import EndedJobs
from dispatcher.controller.summaries import Seen, Summaries
from dispatcher.decisions import fairness
from dispatcher.decisions.fairness import Lane
from dispatcher.decisions.views import without_job
from dispatcher.decisions.views.without_job import PortalWord, Traces
from dispatcher.intake.refusals import Refusals
from dispatcher.launch.request import claimed_model
from dispatcher.web.model_rows import message_trace, pod_row, poison_trace, portal_row, told
from dispatcher.web.request_rows import NAME_LIMIT, ON_THE_QUEUE, QueueFacts, Row
from dispatcher.web.server import Answer, Request
from dispatcher.web.status_feeds import StatusFeeds
from dispatcher.web.status_rows import SECTIONS, Page, Rules, Sections, World, trends_row
from portal_client.model_ids import InvalidContainerName, extract_model_id
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
# One file for the own pages of all models: its script asks for the one that the address names.
_OWN = "/models/"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/status.css": ("status.css", "text/css; charset=utf-8"),
    "/shared.js": ("shared.js", "text/javascript; charset=utf-8"),
    "/overview.js": ("overview.js", "text/javascript; charset=utf-8"),
    "/status.js": ("status.js", "text/javascript; charset=utf-8"),
    "/model.js": ("model.js", "text/javascript; charset=utf-8"),
    _OWN: ("model.html", "text/html; charset=utf-8"),
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
    """not_ready(): why no request would be taken now; paused(queue): `Pause.sentence`, "" where nobody has paused it;
    elsewhere(): who else may have launched a model that is Processing without a Job here (`readers.perhaps`).
    active(), most: unfinished Jobs as `fairness.rooms` takes them.

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
    lanes: Sequence[Lane]
    active: Callable[[], Mapping[str, int]]
    most: int
    not_ready: Callable[[], list[str]]
    paused: Callable[[str], str] = lambda queue: ""
    elsewhere: Callable[[], str] = lambda: ""
    fresh: float = _FRESH
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _good_until: float = field(default=float("-inf"), init=False)
    _made: tuple[QueueFacts, Sections, Row] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        folder = resources.files("dispatcher.web") / "static"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    def route(self, request: Request) -> Answer | None:
        """The answer to one of our paths, None for any other."""
        path = _OWN if _is_own_page(request) else request.path
        if path in self._files:
            body, kind = self._files[path]
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
        queue, found, trends = self._sections()
        sections, running = found.shown(Page(query, limit, numbers))
        self._show(running)
        answer = {
            "dispatcher": {**asdict(self.process), "not_ready": self.not_ready()},
            "queue": {
                "name": ", ".join(lane.name for lane in self.lanes),
                "depth": queue.depth,
                "poison_depth": queue.poison_depth,
                "problem": queue.problem,
                "each": self._queues(queue),
            },
            "phases": found.phases,
            "gpus_in_use": found.gpus_in_use,
            "ended_is_cut": self.ended.is_cut,
            "trends": trends,
            **sections,
        }
        return _json(answer, etag=request.etag)

    def _queues(self, facts: QueueFacts) -> list[Row]:
        """By priority."""
        known, active = {each.name: each for each in facts.each}, self.active()
        rooms = fairness.rooms(self.lanes, active, self.most)
        own = fairness.own(self.lanes, active)
        found = []
        for lane in self.lanes:
            seen = known.get(lane.name, QueueFacts())
            about = {"name": lane.name, "depth": seen.depth, "poison_depth": seen.poison_depth, "problem": seen.problem}
            found.append({**about, "weight": lane.weight, "active": own[lane.name], "room": rooms[lane.name]})
        return found

    def _model(self, request: Request, name: str) -> Answer:
        name = name[:NAME_LIMIT]
        facts, progress = self.feeds.look(_FIRST_VIEW)
        job, ended = self.cache.job(name), self.ended.find(name, self.clock())
        jobs: list[Seen] = [(job, *self.cache.pods_of(job))] if job is not None else []
        gone, summary = [ended] if ended else [], self.summaries.get(name)
        summaries = {name: summary} if summary else {}
        world = World(jobs, facts, self.refusals.latest(), progress, summaries, gone)
        sections_made = Sections(world, self.rules, self.clock())
        sections, _ = sections_made.shown(Page(limit=_MOST_ROWS))
        rows = [row for section in sections.values() for row in section["rows"] if row["model"] == name]
        found = sections_made.standing(name)
        word, read_at = self._word(name, found[0].job if found else None)
        if found is None:
            stands = without_job.standing(self._traces(name, facts, rows, word, foreign=job is not None))
            known = told(stands)
        else:
            known = told(found[1], found[0])
        pods = [pod_row(pod) for each in (*jobs, *(summary.seen for summary in gone)) for pod in each[1:]]
        answer = {
            "model": name,
            "dispatcher": {**asdict(self.process), "not_ready": self.not_ready()},
            "rows": rows,
            "pods": pods,
            "portal": {**portal_row(word), "heard_at": read_at and rfc3339(read_at)},
            **known,
        }
        nobody_knows = not rows and not word.status
        if nobody_knows:
            answer["error"] = f"Neither Jobs nor queues know {name!a}"
        return _json(answer, 404 if nobody_knows else 200, etag=request.etag)

    def _word(self, name: str, job: Job | None) -> tuple[PortalWord, float | None]:
        """The portal's, for which it is asked in a moment where that is due."""
        if job is not None:
            key, model_id = job.uid, job.model_id
        else:
            try:
                key, model_id = name, extract_model_id(name)
            except InvalidContainerName as error:
                return PortalWord("", f"not asked: {error}"), None
        self.feeds.show([(key, model_id)])
        return self.feeds.word(key)

    def _traces(self, name: str, facts: QueueFacts, rows: Sequence[Row], word: PortalWord, *, foreign: bool) -> Traces:
        messages = [row for row in rows if row["phase"] == ON_THE_QUEUE]
        entries = [entry for entry in facts.poison if claimed_model(entry.original)[:NAME_LIMIT] == name]
        hidden = max(0, (facts.depth or 0) - len(facts.waiting))
        namespace, paused = self.process.namespace, self.paused((messages[0]["queue"] or "") if messages else "")
        message, poison = message_trace(messages), poison_trace(entries)
        return Traces(name, namespace, word, message, poison, paused, hidden, foreign, self.elsewhere())

    def _show(self, running: list[Job]) -> None:
        self.feeds.show([(job.uid, job.model_id) for job in running])

    def _sections(self) -> tuple[QueueFacts, Sections, Row]:
        facts, progress = self.feeds.look(_FIRST_VIEW)
        with self._lock:
            began = self.monotonic()
            if self._made is None or began >= self._good_until:
                now = self.clock()
                ended, summaries = self.ended.latest(now), self.summaries.all()
                jobs = self.cache.seen()
                world = World(jobs, facts, self.refusals.latest(), progress, summaries, ended)
                trends = trends_row(*self.ended.trends((seen[0] for seen in jobs), now))
                self._made = facts, Sections(world, self.rules, now), trends
                done = self.monotonic()
                self._good_until = done + max(self.fresh, _SHARE * (done - began) if self.fresh else 0.0)
            return self._made


def _is_own_page(request: Request) -> bool:
    """One step below /models: the page asks for its files by addresses beside that."""
    target = (request.target or request.path).partition("?")[0]
    return target.startswith(_OWN) and "/" not in target.removeprefix(_OWN)


def _json(data: object, status: int = 200, etag: str = "") -> Answer:
    body = json.dumps(data, separators=(",", ":")).encode()
    # A hash of the content: replicas that know the same send the same.
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}
    if status == 200 and tag in etag:
        status, body = 304, b""
    return Answer(status, body, "application/json", headers)
