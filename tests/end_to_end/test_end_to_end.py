"""The main job on real processes: a queue message becomes a trained, published and reported model, or a sentence."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
from typing import Any

import pytest
from house import PATIENCE, House

from local_stack.demo import data
from local_stack.demo.requests import CREATED, REQUESTS, Outcome, mismatch, train_message
from local_stack.demo.watch import FINALIZER
from local_stack.processes import bare_environment, log_tail, wait_until
from local_stack.stack import NAMESPACE, QUEUE
from tests.world.programs.chain_program import undisturbed
from tests.world.repository import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(PATIENCE + 60)]

BY_NAME = {request.name: request for request in REQUESTS}
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"


@pytest.mark.parametrize("name", BY_NAME)
def test_each_request_of_the_demo_ends_as_it_should(settled: dict[str, Outcome], name: str) -> None:
    assert mismatch(BY_NAME[name], settled[name]) is None


def test_the_portal_is_told_the_documented_statuses_in_order(house: House, settled: dict[str, Outcome]) -> None:
    model = house.stack.portal.models()["tumours"]
    told = [(entry.status, entry.message) for entry in model.history]
    assert told[0] == CREATED
    assert told[1] == ("Processing", "Model training started")
    assert told[-1] == ("Completed", "Model training completed successfully")
    assert {status for status, _ in told[1:-1]} == {"Processing"}


def test_the_published_model_is_whole_and_readable_by_its_manifest(house: House, settled: dict[str, Outcome]) -> None:
    container = house.stack.blobs.get_container_client("model-tumours")
    latest = json.loads(container.download_blob("latest.json").readall())
    folder = f"runs/{latest['run_id']}"
    manifest = container.download_blob(f"{folder}/MANIFEST.json").readall()
    assert hashlib.sha256(manifest).hexdigest() == latest["manifest_sha256"]
    files = json.loads(manifest)
    files = files.get("files", files)
    assert {"model.safetensors", "model.json", "report.json"} <= set(files)
    for name, told in files.items():
        content = container.download_blob(f"{folder}/{name}").readall()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (told["size"], told["sha256"])


def test_poison_entries_carry_the_original_message_and_a_sentence(house: House, settled: dict[str, Outcome]) -> None:
    entries = [json.loads(message.content) for message in house.stack.poison.peek_messages(32)]
    assert {entry["original"] for entry in entries} == {BY_NAME["bad name"].message, BY_NAME["no JSON"].message}
    assert all(entry["sentence"] and entry["poisoned_at"] for entry in entries)


def test_nothing_is_left_on_the_queue_and_every_job_is_let_go(house: House, settled: dict[str, Outcome]) -> None:
    assert house.stack.queue().get_queue_properties().approximate_message_count == 0
    held = [job["metadata"]["name"] for job in house.stack.cluster.jobs(NAMESPACE) if _finalizers(job)]
    assert held == []


def test_the_dispatchers_own_check_passes_on_the_house_it_runs_in(house: House) -> None:
    command = [sys.executable, "-m", "dispatcher", "--config", str(house.stack.write_environment()), "check"]
    reply = subprocess.run(
        command,
        cwd=house.stack.folder,
        env={**bare_environment(), "KUBECONFIG": house.stack.settings["KUBECONFIG"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert reply.returncode == 0, reply.stdout + reply.stderr


def test_no_secret_of_ours_stands_in_any_log(house: House, settled: dict[str, Outcome]) -> None:
    key = house.stack.portal.api_key.encode()
    account_key = house.stack.storage.connection_string.split("AccountKey=")[1].split(";")[0].encode()
    logs = [path for path in house.stack.folder.rglob("*.log") if path.is_file()]
    assert logs != []
    assert [path.name for path in logs if key in path.read_bytes() or account_key in path.read_bytes()] == []


def test_a_team_that_loses_a_pod_publishes_the_same_model(house: House, settled: dict[str, Outcome]) -> None:
    """Two nodes from a message to the model; the second one's pod is deleted while they train."""
    stack, steps = house.stack, 40
    program = [sys.executable, str(ROOT / "tests" / "world" / "programs" / "chain_program.py"), str(steps), "0.1"]
    lines = ("task: command", "checkpoint: {every: 1s}", f"command: {json.dumps({'argv': program})}")
    data.upload_config(stack.blobs, "model-team", lines)
    stack.portal.set_model("team", *CREATED)
    message = train_message("model-team", "dataset-tumours", resources={"nodes": 2, "gpus": 1})
    stack.queue().send_message(message)
    wait_until(lambda: _step_of_team(house) >= 5, PATIENCE, what="the team to reach step 5")
    pods = [pod["metadata"]["name"] for pod in stack.cluster.pods(NAMESPACE)]
    (pod,) = (name for name in pods if name.startswith("model-team-1-"))
    stack.cluster.api("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")
    wait_until(
        lambda: stack.portal.model("team").status == "Completed",
        PATIENCE,
        what=lambda: f"the team to publish; the portal says {stack.portal.model('team')}",
    )
    container = stack.blobs.get_container_client("model-team")
    (model,) = [name for name in container.list_blob_names() if name.endswith("/model.txt")]
    assert container.download_blob(model).readall().decode() == undisturbed(steps)
    assert "on 2 nodes" in " ".join(entry.message for entry in stack.portal.models()["team"].history)


def _step_of_team(house: House) -> int:
    found = re.match(r"Step ([0-9]+), on 2 nodes", house.stack.portal.model("team").message)
    return int(found[1]) if found else -1


def test_stopping_the_dispatcher_leaves_a_training_alone_and_the_next_one_reports_it(
    house: House, settled: dict[str, Outcome]
) -> None:
    """SIGTERM: exit 0, the pod runs on. The next dispatcher finds the Job, and reports that a person deleted it."""
    stack, job_path = house.stack, f"{JOBS}/model-slow"
    slow = ("task: tabular", "data: {target: diagnosis}", "train: {time_budget: 1h, epochs: 1000000}")
    data.upload_config(stack.blobs, "model-slow", slow)
    stack.portal.set_model("slow", *CREATED)
    second = stack.start_dispatcher(name="dispatcher-2")
    house.dispatcher.send_signal(signal.SIGTERM)
    assert house.dispatcher.wait(60) == 0, log_tail(house.dispatcher.log)

    stack.queue().send_message(train_message("model-slow", "dataset-tumours"))
    pod = wait_until(
        lambda: _running_pod(house),
        PATIENCE,
        what=lambda: f"the slow model's pod to run; the dispatcher's log ends:\n{log_tail(second.log, 60)}",
    )
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0, log_tail(second.log)
    assert (_running_pod(house) or {}).get("metadata", {}).get("uid") == pod["metadata"]["uid"]
    assert _finalizers(stack.cluster.api("GET", job_path)) == [FINALIZER]
    assert stack.portal.model("slow").status == "Processing"

    stack.start_dispatcher(name="dispatcher-3")
    stack.cluster.api("DELETE", f"{job_path}?propagationPolicy=Background")
    wait_until(lambda: stack.portal.model("slow").status == "Failed", PATIENCE, what="the deletion to be reported")
    assert "delete" in stack.portal.model("slow").message
    wait_until(lambda: _gone(house, job_path), 60, what="the Job to go")
    assert _running_pod(house) is None
    assert stack.queue(QUEUE).get_queue_properties().approximate_message_count == 0


def _finalizers(job: Any) -> list[str]:
    return list(job["metadata"].get("finalizers", []))


def _running_pod(house: House) -> Any:
    """The slow model's pod while it runs."""
    for pod in house.stack.cluster.pods(NAMESPACE):
        mine = pod["metadata"].get("labels", {}).get("training-dispatcher/model-id") == "slow"
        if mine and pod["status"].get("phase") == "Running":
            return pod
    return None


def _gone(house: House, path: str) -> bool:
    try:
        house.stack.cluster.api("GET", path)
    except urllib.error.HTTPError as error:
        return error.code == 404
    time.sleep(0.2)
    return False
