"""A training on several nodes: what its Job has that another has not, and the NetworkPolicy beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from dispatcher.cluster import names
from dispatcher.cluster.errors import (
    ClusterError,
    ClusterForbidden,
    ClusterUnavailable,
    ObjectConflict,
    ObjectNotFound,
    QuotaExceeded,
    RequestDenied,
)
from dispatcher.cluster.jobs import Job
from dispatcher.launch.job_spec import JobDefaults, build_job
from dispatcher.launch.job_template import RESERVED_ENV, TEAM_ENV, TemplateError, load_template
from dispatcher.launch.request import Bounds, TrainingRequest, decode
from dispatcher.launch.teams import TeamNetworks
from dispatcher.telemetry.job_events import EventRecorder, Kind
from portal_client.statuses import ProcessingStatus
from tests.dispatcher.launch.built_jobs import DEFAULTS, POD, a_template, changed, trainer_of
from tests.world import json_objects as objects
from tests.world.repository import read

BOUNDS = Bounds(8, 3600.0, ("urgent",), max_nodes=16)
# Jobs as they were before a training could have several nodes.
BEFORE: list[dict[str, Any]] = json.loads(read("tests/dispatcher/launch/single_node_jobs.json"))


def a_request(nodes: object, **fields: Any) -> TrainingRequest:
    body = {"task": "train", "model_container_name": "model-123", "resources": {"nodes": nodes, "gpus": 8}, **fields}
    return decode(json.dumps(body), BOUNDS)


def built(nodes: int, template: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    given = {"message_id": "message-1", "queued_at": 1.8e9, "defaults": DEFAULTS, **options}
    job: dict[str, Any] = build_job(template or a_template(), a_request(nodes), **given)
    return job


def as_before(case: dict[str, Any], **resources: Any) -> dict[str, Any]:
    options = dict(case["options"])
    if "shown" in options:
        options["shown"] = ProcessingStatus[options["shown"].upper()]
    message = dict(case["message"])
    if resources:
        message["resources"] = {**message.get("resources", {}), **resources}
    defaults = JobDefaults(time_limit=3600, **case["defaults"])
    load_template(yaml.safe_dump(case["template"]), defaults.image)
    return build_job(
        case["template"],
        decode(json.dumps(message), Bounds(8, 3600.0, ("urgent",))),
        message_id="message-1",
        queued_at=1795420800.0,
        defaults=defaults,
        **options,
    )


@pytest.mark.parametrize("case", BEFORE, ids=lambda case: case["message"]["model_container_name"][:9])
def test_a_training_on_one_node_has_exactly_the_job_that_it_had_before(case: dict[str, Any]) -> None:
    assert json.dumps(as_before(case)) == json.dumps(case["job"])
    # Said or not, one is one: nothing differs but the message itself.
    said, request = as_before(case, nodes=1), json.loads(case["job"]["metadata"]["annotations"][names.REQUEST])
    request["resources"] = {**request.get("resources", {}), "nodes": 1}
    kept = json.dumps(request, separators=(",", ":"))
    assert said["metadata"]["annotations"].pop(names.REQUEST) == kept
    (variable,) = [entry for entry in trainer_of(said)["env"] if entry["name"] == "TRAINING_REQUEST"]
    assert variable["value"] == kept.replace("$", "$$")
    variable["value"] = next(e["value"] for e in trainer_of(case["job"])["env"] if e["name"] == "TRAINING_REQUEST")
    said["metadata"]["annotations"][names.REQUEST] = case["job"]["metadata"]["annotations"][names.REQUEST]
    assert said == case["job"]


def test_several_nodes_are_one_indexed_job_that_differs_in_nothing_else() -> None:
    one, four = built(1), built(4)
    spec = four["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
    pod = spec["template"]
    assert pod["spec"]["subdomain"] == names.TEAM_SERVICE
    assert pod["metadata"]["labels"].pop(names.TEAM) == "true"
    trainer_of(four)["env"] = [entry for entry in trainer_of(four)["env"] if entry["name"] not in TEAM_ENV]
    del spec["completionMode"], pod["spec"]["subdomain"]
    spec |= {"completions": 1, "parallelism": 1}
    assert json.dumps(four).replace('\\"nodes\\":4', '\\"nodes\\":1') == json.dumps(one)


def test_each_node_is_told_how_to_find_the_others() -> None:
    env = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in trainer_of(built(4))["env"]}
    assert {name: env[name] for name in TEAM_ENV} == {
        "NNODES": "4",
        "NODE_RANK": {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}},
        "MASTER_ADDR": "model-123-0.model-training",
        "MASTER_PORT": "29500",
        "POD_IP": {"fieldRef": {"fieldPath": "status.podIP"}},
    }
    assert env["GPUS"] == "8", "of this node"
    assert not TEAM_ENV & RESERVED_ENV


def test_each_node_asks_for_the_messages_gpus() -> None:
    template = changed(f"{POD}/trainer/resources", {"limits": {"nvidia.com/gpu": 1}})
    job = build_job(template, a_request(3), message_id="m", queued_at=0.0, defaults=DEFAULTS)
    assert trainer_of(job)["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert objects.job(job).gpus == 8
    assert objects.job(job).nodes == 3


def test_the_templates_own_service_and_topology_stay() -> None:
    template = changed(f"{POD}/subdomain", "their-own")
    topology = {"kueue.x-k8s.io/podset-required-topology": "cloud.provider.com/rack"}
    template["spec"]["template"]["metadata"] = {"annotations": topology}
    job = built(2, template, kueue=True)
    assert job["spec"]["template"]["spec"]["subdomain"] == "their-own"
    assert job["spec"]["template"]["metadata"]["annotations"] == topology
    env = {entry["name"]: entry.get("value") for entry in trainer_of(job)["env"]}
    assert env["MASTER_ADDR"] == "model-123-0.their-own"
    assert job["metadata"]["labels"][names.KUEUE_QUEUE_LABEL] == names.KUEUE_HOLD


@pytest.mark.parametrize("name", sorted(TEAM_ENV))
def test_a_templates_own_variable_of_that_name_is_refused_where_teams_are_on(name: str) -> None:
    text = yaml.safe_dump(changed(f"{POD}/trainer/env", [{"name": name, "value": "x"}]))
    load_template(text)
    with pytest.raises(TemplateError, match=rf"env\[{name}\] must be left out"):
        load_template(text, max_nodes=2)


def test_a_template_by_which_kueue_would_start_a_part_of_the_nodes_is_refused_where_teams_are_on() -> None:
    template = a_template()
    template["metadata"] = {"annotations": {"kueue.x-k8s.io/job-min-parallelism": "1"}}
    load_template(yaml.safe_dump(template))
    with pytest.raises(TemplateError, match="a training has all of its nodes or none"):
        load_template(yaml.safe_dump(template), max_nodes=2)


class Cluster:
    """Takes policies, once each. answer: what it raises in place of that."""

    def __init__(self, answer: ClusterError | None = None) -> None:
        self.answer = answer
        self.policies: dict[str, dict[str, Any]] = {}

    def create_network_policy(self, policy: dict[str, Any]) -> None:
        if self.answer is not None:
            raise self.answer
        name = policy["metadata"]["name"]
        if name in self.policies:
            raise ObjectConflict(f"{name} exists")
        self.policies[name] = policy


class Recorder(EventRecorder):
    def __init__(self) -> None:
        self.said: list[tuple[str, str, Kind]] = []

    def record(self, job: Job, reason: str, message: str, kind: Kind = "Normal", *, once: str | None = None) -> None:
        self.said.append((reason, message, kind))


def a_job(uid: str = "uid-1") -> Job:
    job = built(2)
    job["metadata"]["uid"] = uid
    return objects.job(job)


def networks(cluster: Cluster, events: EventRecorder | None = None) -> TeamNetworks:
    return TeamNetworks(cluster, events or Recorder())  # type: ignore[arg-type]  # what it needs of it


def test_the_policy_is_made_once_and_found_after_a_crash() -> None:
    cluster = Cluster()
    for _ in range(2):
        assert networks(cluster).open(a_job()) == ""
    assert list(cluster.policies) == ["model-123-uid-1"]


def test_the_policy_of_the_job_before_is_not_taken_for_the_next_ones() -> None:
    """Until the garbage collector has come: it goes with its own Job, and the team would be cut off in the middle."""
    cluster = Cluster()
    for uid in ("uid-1", "uid-2"):
        networks(cluster).open(a_job(uid))
    assert [p["metadata"]["ownerReferences"][0]["uid"] for p in cluster.policies.values()] == ["uid-1", "uid-2"]


@pytest.mark.parametrize(
    "answer", [ClusterForbidden("no"), QuotaExceeded("no"), RequestDenied("no"), ObjectNotFound("no")]
)
def test_where_it_may_not_be_made_the_job_waits_and_its_operator_is_told(answer: ClusterError) -> None:
    recorder = Recorder()
    said = networks(Cluster(answer), recorder).open(a_job())
    assert "no; apply manifests/components/teams, or set TEAM_NETWORK_POLICY=off" in said
    [(reason, message, kind)] = recorder.said
    assert (reason, kind) == ("NetworkPolicyMissing", "Warning")
    assert "model-123" in message


def test_an_outage_is_an_outage() -> None:
    recorder = Recorder()
    with pytest.raises(ClusterUnavailable):
        networks(Cluster(ClusterUnavailable("gone")), recorder).open(a_job())
    assert recorder.said == []
