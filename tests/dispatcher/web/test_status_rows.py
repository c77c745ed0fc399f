"""dispatcher.web.status_rows: each situation of a Job, a message or a refusal, and the row that people get to see."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dispatcher.cluster import names
from dispatcher.cluster.jobs import Job
from dispatcher.controller.summaries import Summaries, summarise
from dispatcher.decisions.verdicts import Going, Stop, Verdict
from dispatcher.intake.refusals import Refusal
from dispatcher.queue.poison import parse_entry
from dispatcher.web.request_rows import QueueFacts
from dispatcher.web.status_rows import Page, PortalProgress, Rules, Sections, World
from tests.dispatcher.web.status_world import (
    RULES,
    Pair,
    a_message,
    an_entry,
    job,
    losses,
    pod,
    reported_job,
    running_job,
    team_job,
)
from tests.world.builders import T0, a_condition, complete, failed, failing, running, terminated, waiting
from training_common.times import rfc3339

NOW = T0 + 3600


def sections(*pairs: Pair, **world: Any) -> Sections:
    gone = [summarise(each, pods) for each, pods in pairs if each.is_reported]
    return Sections(
        World([(each, *pods) for each, pods in pairs if not each.is_reported], ended=gone, **world), RULES, NOW
    )


def rows(*pairs: Pair, **world: Any) -> dict[str, list[dict[str, Any]]]:
    found, _ = sections(*pairs, **world).shown(Page())
    return {name: section["rows"] for name, section in found.items()}


def row_of(section: str, *pairs: Pair, **world: Any) -> dict[str, Any]:
    found = rows(*pairs, **world)
    assert [name for name, those in found.items() if those] == [section]
    [row] = found[section]
    return row


def _with(made: Job, **pod_is: Any) -> Pair:
    return made, [pod(made, T0 + 5, **pod_is)]


UNSCHEDULABLE = a_condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")
STOPPED = json.dumps({"code": "ImagePull", "sentence": "The trainer image cannot be pulled"})

# What is, and then: section, phase, code, sentence, when the phase began (seconds after T0).
SITUATIONS: list[tuple[str, Pair, str, str, str | None, str, float | None]] = [
    (
        "half-launched",
        (job("1", at=T0, launched=False), []),
        *("waiting", "launching", None, "Created; it starts when the portal has been told", 0),
    ),
    (
        "Kueue has it",
        (job("1", at=T0, suspended=True, labels={names.KUEUE_QUEUE_LABEL: "research"}), []),
        *("waiting", "queued", None, "Queued by Kueue in research", 1),
    ),
    ("no pod yet", (job("1", at=T0), []), "waiting", "waiting", None, "No pod yet", 1),
    (
        "no node",
        (job("1", at=T0), [pod(job("1", at=T0), T0 + 5, UNSCHEDULABLE, node=None)]),
        *("waiting", "waiting", None, "Waiting for a GPU: 0/3 nodes are available", 1),
    ),
    (
        "its image's name is wrong",
        _with(job("1", at=T0), state=waiting("InvalidImageName", "bad"), image="A:B"),
        *("waiting", "waiting", "ImagePull", "The trainer image has an invalid name: A:B. Tell the operator: bad", 1),
    ),
    (
        "it trains",
        _with(job("1", at=T0), state=running(T0 + 30)),
        *("running", "running", None, "The trainer runs", 30),
    ),
    (
        "somebody deleted it",
        _with(job("1", at=T0, deleted_at=T0 + 3590), state=running(), deleted_at=T0 + 3590),
        *("running", "stopping", None, "Its pods are being stopped", 3590),
    ),
    (
        "the dispatcher stopped it",
        _with(job("1", failing("DeadlineExceeded"), at=T0, stopped=STOPPED), state=running()),
        *("running", "stopping", "ImagePull", "The trainer image cannot be pulled", 0),
    ),
    (
        "ended, and the portal was not told yet",
        _with(job("1", *complete(), at=T0), phase="Succeeded", state=terminated(0)),
        *("ended", "reporting", "Completed", "Model training completed successfully", 0),
    ),
    (
        "failed, and the portal was not told yet",
        _with(job("1", *failed("DeadlineExceeded"), at=T0), phase="Failed", state=terminated(143)),
        "ended",
        "reporting",
        "Timeout",
        "The training did not end within its time limit of None seconds, the wait for a GPU included. "
        "Ask for a longer time_limit_seconds, or for less training",
        0,
    ),
    (
        "completed",
        reported_job("1", T0 + 99, "Completed", "Model training completed successfully"),
        *("ended", "completed", "Completed", "Model training completed successfully", 99),
    ),
    (
        "failed",
        reported_job("1", T0 + 99, "OutOfMemory", "Too little memory"),
        *("ended", "failed", "OutOfMemory", "Too little memory", 99),
    ),
    (
        "somebody scribbled on it",
        (job("1", *complete(), at=T0, reported=True, annotations={names.REPORTED_AT: "yesterday"}), []),
        *("ended", "completed", None, "Reported; the record of it cannot be read", 0),
    ),
]


@pytest.mark.parametrize(
    ("pair", "section", "phase", "code", "sentence", "since"),
    [pytest.param(*situation, id=name) for name, *situation in SITUATIONS],
)
def test_a_job_is_one_row_in_the_section_of_its_phase(
    pair: Pair, section: str, phase: str, code: str | None, sentence: str, since: float
) -> None:
    row = row_of(section, pair)
    assert (row["phase"], row["code"], row["sentence"]) == (phase, code, sentence)
    assert row["since"] == rfc3339(T0 + since)


def test_every_phase_has_a_section_and_stands_in_the_table() -> None:
    from dispatcher.decisions.views.phases import Phase

    assert {phase for *_, phase, _, _, _ in SITUATIONS} == {str(phase) for phase in Phase}


def test_a_running_row_says_what_an_operator_asks_first() -> None:
    pair = running_job(
        "7", T0, gpus=4, node="gpu-1", dataset="dataset-xyz",
        status={"active": 1, "failed": 1}, annotations={names.DISRUPTED: '["gone"]', names.RUN_ID: "run-7"},
    )  # fmt: skip
    row = row_of("running", pair)
    told = {key: row[key] for key in ("model", "gpus", "node", "dataset", "attempts", "disruptions", "run_id", "pod")}
    assert told == {
        "model": "model-7",
        "gpus": 4,
        "node": "gpu-1",
        "dataset": "dataset-xyz",
        "attempts": 2,
        "disruptions": 1,
        "run_id": "run-7",
        "pod": pair[1][0].name,
    }
    assert (row["queued_at"], row["created_at"], row["started_at"], row["ended_at"]) == (
        *(rfc3339(T0 - 4), rfc3339(T0), rfc3339(T0 + 20), None),
    )


def test_a_training_on_several_nodes_is_one_row_with_all_of_them() -> None:
    made, pods = team_job("7", T0, "gpu-2", "gpu-1", of=2)
    lost = pod(
        made, T0 + 1, a_condition("DisruptionTarget"), phase="Failed", index=1, node="gpu-9", state=terminated(143)
    )
    row = row_of("running", (made, [lost, *pods]))
    assert (row["sentence"], row["gpus"], row["nodes"], row["nodes_running"]) == (
        *("The trainer runs on 2 nodes", 16, 2, 2),
    )
    assert (row["node"], row["pod"]) == ("gpu-2, gpu-1", f"{pods[0].name}, {pods[1].name}")
    assert (row["attempts"], row["disruptions"]) == (1, 1)
    for words, number in (("gpu-1", 1), (pods[0].name, 1), ("gpu-9", 0)):
        assert sections((made, [lost, *pods])).shown(Page(words))[0]["running"]["matching"] == number, words


def test_nodes_that_ended_in_one_incident_count_as_one_attempt() -> None:
    made, pods = team_job("7", T0, "gpu-1", "gpu-2", of=2, status={"active": 2, "failed": 2})
    before = [
        pod(
            made, T0 - 90 + index, index=index, node="gpu-1", phase="Failed", state=terminated(code, finished_at=T0 - 9)
        )
        for index, code in enumerate((137, 206))
    ]
    assert row_of("running", (made, [*before, *pods]))["attempts"] == 2


def test_a_training_that_lacks_a_node_waits_and_holds_the_gpus_of_the_others() -> None:
    made, pods = team_job("7", T0, "gpu-1", "gpu-2", "gpu-3", of=4)
    row = row_of("waiting", (made, pods))
    assert (row["phase"], row["sentence"], row["gpus"], row["nodes"], row["nodes_running"]) == (
        *("waiting", "3 of 4 pods run", 32, 4, 3),
    )
    last = pod(made, T0 + 9, UNSCHEDULABLE, index=3, node=None)
    row = row_of("waiting", (made, [*pods, last]))
    assert row["sentence"] == "3 of 4 pods run; node 4 of 4: waiting for a GPU: 0/3 nodes are available"
    assert sections((made, [*pods, last])).gpus_in_use == 24
    assert sections((made, [])).gpus_in_use == 0


def test_a_node_that_has_done_its_part_does_not_make_the_others_wait() -> None:
    made, pods = team_job("7", T0, "gpu-1", of=2, status={"active": 1, "succeeded": 1})
    done = pod(made, T0 + 3, index=1, node="gpu-2", phase="Succeeded", state=terminated(0))
    row = row_of("running", (made, [*pods, done]))
    assert (row["phase"], row["nodes_running"], row["node"]) == ("running", 1, "gpu-1, gpu-2")


def test_a_message_for_several_nodes_says_how_many_gpus_they_are_together() -> None:
    message = a_message("model-q", T0, resources={"nodes": 2, "gpus": 4})
    rules = Rules(RULES.limits, replace(RULES.bounds, max_nodes=2))
    world = World(queue=QueueFacts(waiting=(message,)))
    [row] = Sections(world, rules, NOW).shown(Page())[0]["waiting"]["rows"]
    assert (row["gpus"], row["nodes"]) == (8, 2)
    [row] = rows(queue=QueueFacts(waiting=(message,)))["waiting"]
    assert row["sentence"].startswith('It will be refused: The field "resources.nodes" is 2; no such field, or 1')


@pytest.mark.parametrize(
    ("message", "curve", "progress"),
    [
        ("Epoch 7 of 20, loss 0.3", losses(2), {"epoch": 7, "epochs": 20, "done": 0.35}),
        ("Epoch 1 of 4, step 5 of 10", (), {"epoch": 1, "epochs": 4, "done": 0.125}),
        ("Fold 2/5", losses(1), {"done": None}),
        ("Fold 2/5", (), None),
    ],
)
def test_what_the_portal_says_becomes_a_bar_and_a_curve(message: str, curve: Any, progress: Any) -> None:
    row = row_of("running", running_job("7", T0), progress={"uid-7": PortalProgress(message, NOW - 5, curve)})
    assert row["sentence"] == message
    more = {"losses": [list(point) for point in curve], "heard_at": rfc3339(NOW - 5)}
    assert row["progress"] == (progress and progress | more)


def test_what_only_events_and_workloads_tell_comes_from_the_reconciler() -> None:
    waits = job("1", at=T0)
    queued = job("2", at=T0, suspended=True, labels={names.KUEUE_QUEUE_LABEL: "research"})
    known = Summaries()
    known.note("model-1", summarise(waits, ()).after(Going("Waiting for quota: full")))
    known.note("model-2", summarise(queued, ()).after(Going("Queued by Kueue in research")))
    known.waits("model-2", "Queued by Kueue: 4 ahead")
    known.waits("model-3", "nobody knows it")
    found = rows((waits, []), (queued, []), summaries=known.all())["waiting"]
    assert [row["sentence"] for row in found] == ["Waiting for quota: full", "Queued by Kueue: 4 ahead"]


def test_a_reconciler_that_is_behind_its_jobs_does_not_keep_their_rows_behind() -> None:
    before, (after, pods) = job("1", at=T0), running_job("1", T0)
    summary = summarise(before, ()).after(Stop(Verdict("Unschedulable", "No node could take it")))
    assert row_of("waiting", (before, []), summaries={"model-1": summary})["code"] == "Unschedulable"
    row = row_of("running", (after, pods), summaries={"model-1": summary})
    assert (row["phase"], row["code"], row["sentence"]) == ("running", None, "The trainer runs")


def test_of_a_job_that_ended_before_this_process_began_nothing_is_made_up() -> None:
    whole, _ = reported_job("1", T0 + 99, "Completed", "done")
    row = row_of("ended", (Job(metadata=whole.metadata), []))
    assert (row["phase"], row["code"], row["since"]) == ("completed", "Completed", rfc3339(T0 + 99))
    assert [row[name] for name in ("gpus", "attempts", "node", "dataset", "ended_at")] == [None] * 5


@pytest.mark.parametrize(
    ("message", "model", "code", "sentence", "dataset"),
    [
        (a_message("model-9", T0, dataset_container_name="dataset-x"), "model-9", None, "Not taken from", "dataset-x"),
        (a_message("model-9", T0, deliveries=1), "model-9", None, "It is redelivered after 1 delivery", None),
        (a_message("model-9", T0, deliveries=3), "model-9", None, "It is redelivered after 3 deliveries", None),
        (a_message("9", T0), "9", "InvalidContainerName", "It will be refused: Model container name '9'", None),
        (a_message(["x"], T0), "", "InvalidContainerName", "It will be refused: ", None),
    ],
)
def test_a_message_on_the_queue_waits(
    message: Any, model: str, code: str | None, sentence: str, dataset: str | None
) -> None:
    row = row_of("waiting", queue=QueueFacts(waiting=(message,)))
    assert (row["model"], row["phase"], row["code"], row["dataset"]) == (model, "on the queue", code, dataset)
    assert row["sentence"].startswith(sentence)
    assert row["since"] == rfc3339(T0)


def test_refusals_come_from_this_process_and_the_poison_queue_each_once_the_newest_first() -> None:
    entry = an_entry("model-2", "ModelUnknown", "Nobody knows it", T0 + 5, "m-2")
    found = rows(
        queue=QueueFacts(poison=(entry, parse_entry("no envelope"), parse_entry("another"))),
        refusals=(
            Refusal("model-1", "refuse", "status Completed", "m-1", T0 + 9),
            Refusal("model-2", "ModelUnknown", "Nobody knows it", "m-2", T0 + 5),
            Refusal("model-1", "refuse", "status Completed", "m-3", T0 + 1),
        ),
    )["refused"]
    assert [(row["model"], row["code"], row["poison"], row["message_id"]) for row in found] == [
        ("model-1", "refuse", False, "m-1"),
        ("model-2", "ModelUnknown", True, "m-2"),
        ("model-1", "refuse", False, "m-3"),
        ("", "Unknown", True, ""),
        ("", "Unknown", True, ""),
    ]


def test_the_oldest_that_runs_or_waits_and_the_newest_that_ended_come_first() -> None:
    found = sections(
        *(running_job(str(n), T0 + n) for n in (3, 1, 2)),
        *((job(f"w{n}", at=T0 + n), []) for n in (2, 1)),
        *(reported_job(f"e{n}", T0 + n, "Completed", "done") for n in (1, 3, 2)),
        queue=QueueFacts(waiting=(a_message("model-q", T0 - 99),)),
    )
    assert {name: [row["model"] for row in those["rows"]] for name, those in found.shown(Page())[0].items()} == {
        "running": ["model-1", "model-2", "model-3"],
        "waiting": ["model-w1", "model-w2", "model-q"],
        "ended": ["model-e3", "model-e2", "model-e1"],
        "refused": [],
    }
    assert found.phases == {"running": 3, "waiting": 2, "on the queue": 1, "completed": 3}
    assert found.gpus_in_use == 3


def test_no_environment_and_no_secret_reaches_a_row() -> None:
    sentence = "It said AccountKey=abcdefghijk; and https://me:secretpass@example.com/x"
    pairs = [
        running_job("1", T0),
        reported_job("2", T0, "UserCodeFailed", sentence),
        (job("3", at=T0, annotations={names.REQUEST: '{"token": "hunter22"}'}), []),
    ]
    text = json.dumps(rows(*pairs, progress={"uid-1": PortalProgress("x-api-key: abcdefghijk", NOW)}))
    assert "[redacted]" in text
    assert [word for word in ("abcdefghijk", "verysecret", "secretpass", "hunter22") if word in text] == []


@pytest.mark.parametrize(
    ("page", "models", "matching", "offset"),
    [
        (Page(), ["model-0", "model-1", "model-2"], 3, 0),
        (Page(limit=2), ["model-0", "model-1"], 3, 0),
        (Page(limit=2, offsets={"running": 1}), ["model-1", "model-2"], 3, 1),
        (Page(limit=2, offsets={"running": 2, "ended": 1}), ["model-2"], 3, 2),
        (Page(limit=2, offsets={"running": 99}), ["model-2"], 3, 2),
        (Page(limit=3, offsets={"running": 3}), ["model-0", "model-1", "model-2"], 3, 0),
        (Page(limit=0, offsets={"running": 2}), [], 3, 0),
        (Page("MODEL-1", 2), ["model-1"], 1, 0),
        (Page("MODEL-1", 2, {"running": 2}), ["model-1"], 1, 0),
        (Page("gpu-a100 model-2"), ["model-2"], 1, 0),
        (Page("message-1"), ["model-1"], 1, 0),
        (Page("dataset-HOUSES"), ["model-0", "model-1", "model-2"], 3, 0),
        (Page("the trainer runs"), ["model-0", "model-1", "model-2"], 3, 0),
        (Page("nothing like it"), [], 0, 0),
    ],
)
def test_the_filter_finds_words_in_any_text_and_a_page_cuts_what_is_found(
    page: Page, models: list[str], matching: int, offset: int
) -> None:
    found, running = sections(*(running_job(str(n), T0 + n) for n in range(3))).shown(page)
    assert [row["model"] for row in found["running"]["rows"]] == models
    assert [each.name for each in running] == models
    counts = [found["running"][name] for name in ("total", "matching", "offset")]
    assert counts == [3, matching, offset]
    assert found["ended"] == {"total": 0, "matching": 0, "offset": 0, "rows": []}


def test_a_page_goes_on_from_the_last_jobs_to_the_requests_on_the_queue() -> None:
    found = sections(
        *((job(f"w{n}", at=T0 + n), []) for n in range(3)),
        queue=QueueFacts(waiting=tuple(a_message(f"model-q{n}", T0) for n in range(3))),
    )
    pages = [found.shown(Page(limit=2, offsets={"waiting": at}))[0]["waiting"] for at in (0, 2, 4)]
    assert [[row["model"] for row in page["rows"]] for page in pages] == [
        ["model-w0", "model-w1"],
        ["model-w2", "model-q0"],
        ["model-q1", "model-q2"],
    ]


@pytest.mark.parametrize(
    ("query", "matching"),
    [("abcdefghijk", 0), ("accountkey=abcdefghijk", 0), ("[redacted]", 1), ("accountkey=[redacted]", 1), ("said", 1)],
)
def test_the_filter_finds_what_a_row_shows_and_no_secret_by_trying(query: str, matching: int) -> None:
    ended = reported_job("2", T0, "UserCodeFailed", "It said AccountKey=abcdefghijk; and ended")
    assert sections(ended).shown(Page(query))[0]["ended"]["matching"] == matching
