"""The commands an operator types, against the real parts: status, cancel, poison, check, submit."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from dispatcher.cli import listing
from dispatcher.cluster import names
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage

NO_STORAGE = "AccountName=a;AccountKey=a2V5;QueueEndpoint=http://127.0.0.1:1/a;BlobEndpoint=http://127.0.0.1:1/a"


def test_cancel_stops_the_pod_and_tells_the_portal(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    code, out, _ = stage.cli("cancel", model)
    assert (code, out.count("is being stopped")) == (0, 1)
    stage.wait_status(model, "Failed")
    assert "cancelled by the operator" in stage.message(model)
    stage.wait(lambda: not any("running" in objects.trainer_state(pod) for pod in stage.pods(model)))
    code, _, err = stage.cli("cancel", f"model-{model}")
    assert code == 1
    assert "has ended already" in err


def test_cancel_ends_a_job_that_waits_for_kueue(stage: Stage) -> None:
    model = stage.submit("done")
    stage.start(KUEUE_QUEUE="gpus")
    job = stage.wait(lambda: (job := stage.job(model)) and objects.is_launched(job) and job)
    assert objects.is_suspended(job), "only Kueue resumes it"
    assert stage.cli("cancel", model)[0] == 0
    stage.wait_status(model, "Failed")
    assert "cancelled by the operator" in stage.message(model)
    stage.wait(lambda: stage.job(model) is None)


@pytest.mark.parametrize(("model", "code", "sentence"), [("none-such", 1, "no Job"), ("UPPER", 2, "contains 'U'")])
def test_cancel_says_why_there_is_nothing_to_cancel(stage: Stage, model: str, code: int, sentence: str) -> None:
    found, _, err = stage.cli("cancel", model)
    assert found == code
    assert sentence in err


def test_poison_entries_are_listed_shown_requeued_and_purged(stage: Stage) -> None:
    good = stage.submit("done", status="Completed")
    stage.queue.send("no json")
    stage.queue.send('{"task": "sing"}')
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: len(stage.poison()) == 2)

    code, out, _ = stage.cli("poison", "list")
    assert code == 0
    assert "NotJson" in out
    assert "UnknownTask" in out
    assert "2 entries" in out
    entries = [json.loads(line) for line in stage.cli("poison", "list", "--json")[1].splitlines()]
    by_code = {entry["code"]: entry for entry in entries}
    shown = json.loads(stage.cli("poison", "show", by_code["NotJson"]["message_id"])[1])
    assert shown["original"] == "no json"

    assert stage.cli("poison", "requeue", "--code", "NotJson")[0] == 0
    stage.wait(lambda: {e.code for e in stage.poison()} == {"NotJson", "UnknownTask"})
    code, _, err = stage.cli("poison", "purge")
    assert code == 2
    assert "Say which entries" in err
    assert stage.cli("poison", "purge", "--all", text="n\n")[0] == 1
    assert len(stage.poison()) == 2
    assert stage.cli("poison", "purge", "--all", "--yes")[0] == 0
    assert stage.poison() == []
    assert stage.cli("poison", "purge", "--all", "--yes")[0] == 1
    assert stage.status(good) == "Completed"


def test_requeue_sends_a_request_once_although_a_crash_left_two_entries(stage: Stage) -> None:
    model = stage.submit("done", status="Completed")
    stage.wait(lambda: stage.queue.receive(1, 300))
    entry = {
        "code": "ModelUnknown",
        "sentence": "The portal has no such model",
        "message_id": "m-1",
        "delivery_count": 5,
        "queued_at": "2026-01-01T00:00:00Z",
        "poisoned_at": "2026-01-01T00:00:01Z",
        "original": json.dumps({"task": "train", "model_container_name": f"model-{model}"}),
    }
    stage.poison_queue.send(json.dumps(entry))
    stage.poison_queue.send(json.dumps(entry))
    assert stage.cli("poison", "requeue", "m-1")[0] == 0
    assert len(stage.queue.peek()) == 1
    assert stage.poison() == []


def test_status_puts_queue_cluster_and_portal_side_by_side(stage: Stage) -> None:
    model = stage.submit("runs")
    stage.start()
    stage.wait(lambda: stage.running(model))
    code, out, _ = stage.cli("status", model)
    assert code == 0
    assert "Processing: Model training started" in out
    assert f"Job model-{model}" in out
    assert "Running" in out
    code, out, _ = stage.cli("status", "--json")
    assert json.loads(out)["models"][0]["model"] == f"model-{model}"
    assert stage.cli("status", "never-heard-of")[0] == 1


def test_explain_tells_each_state_of_a_model_who_holds_it_and_what_to_do(stage: Stage) -> None:
    waits = stage.submit("runs")  # nobody takes it yet
    code, out, _ = stage.cli("explain", waits)
    assert code == 0
    assert f"model-{waits}: on the queue: Not taken from the queue yet" in out
    assert "held by:   the dispatcher" in out

    stage.queue.send(json.dumps({"task": "train", "model_container_name": "model-never-heard-of"}))
    stage.queue.send(json.dumps({"task": "sing", "model_container_name": "model-sings"}))
    stage.start(MAX_DELIVERIES="1")
    stage.start(MAX_DELIVERIES="1")
    stage.wait(lambda: stage.running(waits))
    stage.wait(lambda: len(stage.poison()) == 2)
    found = json.loads(stage.cli("explain", waits, "--json")[1])
    assert (found["standing"]["phase"], found["standing"]["holder"]) == ("running", "the trainer")
    assert found["steps"][-1]["name"] == "run"
    assert found["steps"][-1]["lasts"]
    assert "attempt 1" in stage.cli("explain", waits)[1]

    out = stage.cli("explain", "model-sings")[1]
    assert "refused (UnknownTask)" in out
    assert "dispatcher poison requeue" in out
    assert "never-heard-of" not in out, "another model's entries"
    assert "ModelUnknown" not in stage.cli("status", "sings")[1]

    done = stage.submit("invalid")
    stage.wait(lambda: (job := stage.job(done)) and "training-dispatcher/reported-at" in job["metadata"]["annotations"])
    out = stage.cli("explain", done)[1]
    assert "failed (DatasetInvalid)" in out
    assert "the trainer on" in out
    assert "DatasetInvalid: Invalid dataset: train.csv: it is empty" in out

    # "Finished yesterday": the Job is gone, and what it knew with it.
    stage.portal.set_model("gone", "Completed")
    assert "and with it the times of its training" in stage.cli("explain", "gone")[1]
    assert stage.cli("explain", "unheard-of")[0] == 1
    assert stage.cli("explain", "UPPER")[0] == 2
    # An outage is one sentence, and no more than what it hides.
    code, _, err = stage.cli("explain", waits, KUBECONFIG="/nowhere")
    assert (code, err.count("\n")) == (69, 1)
    assert "API server" in err
    nowhere = {"AZURE_STORAGE_CONNECTION_STRING": NO_STORAGE}
    code, _, err = stage.cli("explain", "gone", **nowhere)
    assert (code, err.count("\n")) == (69, 1)
    assert stage.name in err
    code, out, _ = stage.cli("explain", waits, **nowhere)
    assert (code, out.count("queues:    not known: ")) == (0, 1)
    assert "held by:   the trainer" in out
    code, out, _ = stage.cli("explain", waits, API_BASE_URL="http://127.0.0.1:1")
    assert (code, "held by:   the trainer" in out) == (0, True)
    assert "portal:    -: " in out
    code, out, _ = stage.cli("explain", "gone", API_BASE_URL="http://127.0.0.1:1")
    assert (code, "not known: There is no Job and no visible message, and the portal is out of reach" in out) == (
        0,
        True,
    )


def test_list_has_every_state_as_the_page_does_and_is_bounded(stage: Stage) -> None:
    runs, bad = stage.submit("runs"), stage.submit("invalid")
    stage.start()
    stage.start()
    stage.wait(lambda: stage.running(runs))
    stage.wait(lambda: (job := stage.job(bad)) and "training-dispatcher/reported-at" in job["metadata"]["annotations"])
    code, out, _ = stage.cli("list")
    assert code == 0
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == ["running: 1", "waiting: 0", "ended: 1", "refused: 0"]
    assert f"model-{runs}" in out
    assert "DatasetInvalid" in out
    found = json.loads(stage.cli("list", "ended", "--json", "--query", bad)[1])
    assert [row["model"] for row in found["ended"]["rows"]] == [f"model-{bad}"]
    assert found.keys() == {"ended"}
    for number in range(3):
        stage.queue.send(f"no json {number}")
    stage.wait(lambda: len(stage.poison()) == 3)
    assert "refused: 3, 2 more: --limit" in stage.cli("list", "refused", "--limit", "1")[1]
    assert "MESSAGE" in stage.cli("list", "-o", "wide")[1]
    assert stage.cli("list", KUBECONFIG="/nowhere")[0] == 69


def test_a_list_that_is_watched_is_printed_when_it_changes_also_after_an_outage(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, rounds = stage.submit("runs"), []

    def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 2:
            stage.queue.send(json.dumps({"task": "train", "model_container_name": "model-second"}))
        elif len(rounds) == 3:
            monkeypatch.setenv("KUBECONFIG", "/nowhere")
        elif len(rounds) == 5:
            monkeypatch.setenv("KUBECONFIG", stage.settings["KUBECONFIG"])
            stage.queue.send(json.dumps({"task": "train", "model_container_name": "model-third"}))
        elif len(rounds) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(listing, "time", SimpleNamespace(time=time.time, sleep=sleep))
    _, out, err = stage.cli("list", "waiting", "--watch", "--json")
    printed = [[row["model"] for row in json.loads(line)["waiting"]["rows"]] for line in out.splitlines() if line]
    assert printed == [[f"model-{first}", "model-second", "model-third"][: n + 1] for n in range(3)]
    assert err.count("Not known for now, and tried again: ") == 1


def test_every_replicas_lines_about_a_model_are_found_and_no_others(stage: Stage) -> None:
    said = {
        "one": ("Model 7: Processing", "Model 77: Processing", "Job model-7: launched", "Job model-7-b: launched"),
        "two": ('{"model": "7", "message": "reported"}', '{"model": "17"}', "received model-7"),
    }
    for name, lines in said.items():
        echo = "; ".join(f"echo '{line}'" for line in lines)
        container = {"name": "dispatcher", "image": "script:local", "command": ["sh", "-c", f"{echo}; sleep 60"]}
        _replica(stage, name, container)
    _replica(stage, "waits", {"name": "dispatcher", "image": "not-there:1", "command": ["true"]})
    call = ("logs", "7", "--dispatcher", "--dispatcher-namespace", stage.namespace)
    stage.wait(lambda: stage.cli(*call)[1].count("\n") == 4)
    code, out, err = stage.cli(*call)
    assert code == 0
    assert out.splitlines() == [
        *("one Model 7: Processing", "one Job model-7: launched"),
        *('two {"model": "7", "message": "reported"}', "two received model-7"),
    ]
    assert err.startswith("waits: no log: ")
    assert stage.cli(*call, "--tail", "1")[1] == "two received model-7\n"
    code, _, err = stage.cli("logs", "7", "--dispatcher", "--dispatcher-namespace", "default")
    assert (code, err.count("\n"), "No dispatcher runs in namespace default" in err) == (1, 1, True)


def _replica(stage: Stage, name: str, container: dict[str, object]) -> None:
    metadata = {"name": name, "labels": {"app.kubernetes.io/name": "training-dispatcher"}}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    stage.cluster.api("POST", f"/api/v1/namespaces/{stage.namespace}/pods", pod)


def test_a_request_is_submitted_followed_and_sent_once_more(stage: Stage) -> None:
    stage.start()
    stage.start()
    stage.portal.set_model("tail-1", "Created")
    code, out, _ = stage.cli("submit", "model-tail-1", "--follow", "--timeout", "60")
    assert code == 1, out
    assert "failed: The training ended with exit code 79" in out
    assert "secret sauce missing" in stage.cli("logs", "tail-1")[1]
    assert stage.cli("logs", "tail-1", "--attempt", "7")[0] == 1
    assert stage.cli("wait", "tail-1")[0] == 1

    code, out, err = stage.cli("retry", "tail-1")
    assert (code, out) == (1, "")
    assert "Failed at the portal: set it to Reconfigure there first. Nothing was sent" in err
    code, _, err = stage.cli("submit", "model-tail-1", "--wait")
    assert code == 1
    assert "Reconfigure" in err
    stage.portal.set_model("tail-1", "Reconfigure")
    code, sent, _ = stage.cli("retry", "tail-1")
    assert (code, sent.count("\n")) == (0, 1)
    stage.wait(
        lambda: (job := stage.job("tail-1")) and job["metadata"]["annotations"][names.MESSAGE_ID] == sent.strip()
    )
    stage.wait_status("tail-1", "Failed")

    stage.portal.set_model("done-1", "Created")
    assert stage.cli("submit", "model-done-1", "--wait", "--timeout", "60")[0] == 0
    assert stage.cli("logs", "never-heard-of")[0] == 1
    assert stage.cli("wait", "never-heard-of")[0] == 1
    runs = stage.submit("runs")
    code, _, err = stage.cli("wait", runs, "--timeout", "1")
    assert (code, "has not ended; it goes on" in err) == (75, True)
    code, _, err = stage.cli("wait", runs, "--timeout", "1", KUBECONFIG="/nowhere")
    assert (code, "still out of reach" in err) == (69, True)


def test_submit_refuses_what_would_be_poison_and_sends_what_is_good(stage: Stage) -> None:
    code, _, err = stage.cli("submit", "model-A")
    assert code == 2
    assert "Nothing was sent" in err
    assert stage.queue.depth() == 0
    code, _, err = stage.cli("submit", "model-1", "--nodes", "2")
    assert (code, stage.queue.depth()) == (2, 0)
    assert "MAX_NODES" in err
    wishes = ("--dataset", "dataset-1", "--gpus", "2", "--nodes", "1", "--field", "a=b")
    code, out, _ = stage.cli("submit", "model-1", *wishes)
    assert code == 0
    assert out.strip()
    assert json.loads(stage.queue.peek()[0].text) == {
        "task": "train",
        "model_container_name": "model-1",
        "a": "b",
        "dataset_container_name": "dataset-1",
        "resources": {"nodes": 1, "gpus": 2},
    }


def test_check_says_what_is_wrong_one_by_one(stage: Stage) -> None:
    code, out, _ = stage.cli("check")
    assert code == 0, out
    assert "FAIL" not in out
    assert "WARN" not in out
    for place in ("storage account", "portal", "API server"):
        assert f"ok   clock of the {place}: within 30 seconds of ours" in out
    assert stage.drained(), "the probe of the rights is gone"
    assert stage.poison_queue.depth() == 0
    stage.cluster.deny({"verb": "patch", "resource": "jobs", "namespace": stage.namespace})
    code, out, _ = stage.cli("check", API_KEY="wrong-key-0123456789", QUEUE_NAME="never-made")
    assert code == 1
    assert "FAIL queue never-made:" in out
    assert "FAIL portal:" in out
    assert "the Role lacks patch on jobs" in out
    assert "wrong-key-0123456789" not in out


def test_check_is_for_programs_too(stage: Stage) -> None:
    stage.cluster.deny({"verb": "patch", "resource": "jobs", "namespace": stage.namespace})
    code, out, _ = stage.cli("check", "--json", STATUS_TRACKING="off")
    found = json.loads(out)
    assert (code, found["passed"]) == (1, False)
    results = {check["name"]: check["result"] for check in found["checks"]}
    assert results["permissions on jobs"] == "failed"
    assert (results["permissions on pods"], results["portal"], results["blobs"]) == ("ok", "skipped", "skipped")


def test_check_walks_a_model_through_the_portal_and_leaves_it_for_the_next_walk(stage: Stage) -> None:
    stage.portal.set_model("walked")
    code, out, err = stage.cli("check", "--portal", "model-walked")
    assert code == 0, out + err
    assert out.count("ok  ") == 9
    assert stage.status("walked") == "Reconfigure"
    stage.portal.set_model("walked", "Completed")
    code, out, _ = stage.cli("check", "--portal", "walked", "--json")
    assert code == 1
    assert [check["result"] for check in json.loads(out)["checks"]] == ["failed"]
    assert stage.cli("check", "--portal", "UPPER")[0] == 2
    assert stage.cli("check", "--portal", "model-1", "--in-pod", "model-1")[0] == 2
    code, out, _ = stage.cli("check", "--portal", "walked", STATUS_TRACKING="off")
    assert (code, "there is no portal to ask" in out) == (1, True)


def test_check_in_a_pod_says_what_only_a_pod_can_find_out(stage: Stage) -> None:
    code, out, err = stage.cli("check", "--in-pod", "model-done-1", "--dataset", "dataset-1")
    assert code == 0, out + err
    assert "ok   in a pod: image, Secrets, storage, configuration and dataset of model-done-1 are fine" in out
    code, out, _ = stage.cli("check", "--in-pod", "model-invalid-1", "--json")
    assert code == 1
    assert json.loads(out)["checks"][-1] == {
        "name": "in a pod",
        "result": "failed",
        "sentence": "DatasetInvalid: Invalid dataset: train.csv: it is empty",
    }
    stage.wait(lambda: stage.cluster.jobs(stage.namespace) == [])
    code, out, _ = stage.cli("check", "--in-pod", "model-done-1", API_KEY="wrong-key-0123456789")
    assert code == 1
    assert "in a pod: not begun" in out, "what fails already is not tried with a GPU"
    assert stage.cli("check", "--in-pod", "UPPER")[0] == 2


def test_a_settings_file_alone_is_enough(stage: Stage) -> None:
    lines = [f"{name}={value}" for name, value in stage.settings.items()]
    (stage.folder / "config.env").write_text("\n".join(lines))
    code, out, _ = stage.cli("check", **dict.fromkeys(stage.settings, ""))
    assert code != 0, "an empty variable is a variable: it wins over the file"
    stage.settings = {}
    stage.write_template = lambda: None  # type: ignore[method-assign]
    code, out, _ = stage.cli("check")
    assert code == 0, out


def test_settings_that_are_missing_are_all_named_before_anything_is_touched(stage: Stage) -> None:
    service = stage.start(ready=False, QUEUE_NAME="", API_BASE_URL="ftp://x", MAX_GPUS="many")
    assert service.wait(60) == 2
    assert all(name in stage.log() for name in ("QUEUE_NAME", "API_BASE_URL", "MAX_GPUS"))


def test_a_template_that_cannot_work_is_refused_at_start_with_the_field_named(stage: Stage) -> None:
    stage.template["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    assert stage.start(ready=False).wait(60) == 2
    assert "spec.template.spec.restartPolicy must be Never" in stage.log()


def test_an_unreachable_queue_is_exit_code_69(stage: Stage) -> None:
    dead = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;QueueEndpoint=http://127.0.0.1:9/a;"
    code, _, err = stage.cli("submit", "model-1", AZURE_STORAGE_CONNECTION_STRING=dead)
    assert code == 69
    assert "Nothing was sent" in err
    for command in (("submit", "model-1"), ("status",), ("poison", "list")):
        code, _, err = stage.cli(*command, AZURE_STORAGE_CONNECTION_STRING="no-connection-string")
        assert code == 2, "a wrong setting, not an outage"
        assert "AZURE_STORAGE_CONNECTION_STRING is no connection string" in err


def test_kubectl_describe_lists_the_events_of_a_job(stage: Stage) -> None:
    model = stage.submit("invalid")
    stage.start()
    stage.wait_status(model, "Failed")

    def reasons() -> list[str]:
        events = stage.cluster.api("GET", f"/api/v1/namespaces/{stage.namespace}/events")["items"]
        ours = [e for e in events if e["reportingComponent"] == "training-dispatcher"]
        return [f"{e['type']} {e['reason']}: {e['message']}" for e in ours]

    stage.wait(lambda: len(reasons()) == 2)
    message_id = objects.annotation(stage.job(model) or {}, names.MESSAGE_ID)
    assert sorted(reasons()) == [
        f"Normal Launched: Launched for message {message_id}: resumed; the portal has acknowledged Processing",
        "Warning Failed: DatasetInvalid: Invalid dataset: train.csv: it is empty. To train it again, set the model to"
        " Reconfigure at the portal, then put the request on the queue again (reported)",
    ]


def test_a_request_for_more_gpus_than_any_node_has_is_told_with_the_largest_where_nodes_may_be_listed(
    stage: Stage,
) -> None:
    """The stand-in lets everybody list nodes unless that is denied; the right is optional."""
    stage.settings["MAX_GPUS"] = "99"
    stage.start()
    model = stage.submit("runs", resources={"gpus": 99})
    stage.wait(lambda: "it asks for 99 of nvidia.com/gpu, and the largest node has " in stage.message(model))
    assert "ok   sizes of nodes: may be listed" in stage.cli("check")[1]
    stage.cluster.deny({"verb": "list", "resource": "nodes"})
    assert "and no node that it may use has so many" in stage.cli("explain", model)[1]
    assert "--   sizes of nodes: not known: the right to list nodes is optional" in stage.cli("check")[1]
