"""What is asked of kubectl on a real cluster, and in which order; what it answers is made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local_stack.cluster.client import StandInCluster
from tests.cluster import installed
from tests.cluster.installed import Installed
from tests.cluster.kubectl import CommandFailed, Kubectl
from tests.cluster.overlay import LABEL, MISSING
from tests.cluster.scenarios import SCENARIOS, configuration
from tests.world.manifests.kustomized import needs_kubectl

pytestmark = needs_kubectl

POD = {"spec": {"nodeName": "node-1"}, "metadata": {"labels": {"batch.kubernetes.io/job-name": "model-1"}}}


class Scripted(Kubectl):
    """asked: the words of each command, `apply` with what was applied. refuses: the verb that fails."""

    asked: list[str]
    applied: list[list[dict[str, Any]]]
    refuses = ""

    def __init__(self, kubeconfig: Path, logs: Path) -> None:
        super().__init__(kubeconfig, logs)
        self.asked, self.applied = [], []

    def tried(self, *words: str, stdin: Any = None, timeout: float = 120.0) -> tuple[int, str, str]:
        del timeout
        self.asked.append(" ".join(words))
        if stdin is not None:
            self.applied.append(stdin["items"])
        if self.refuses and self.refuses in words:
            return 1, "", f"no {self.refuses}"
        answers = {
            "crd": "v1beta1 v1beta2",
            "pod": json.dumps(POD),
            "node": json.dumps({"spec": {}}),
            "deployments": "deployment.apps/azurite\ndeployment.apps/portal\n",
            "serviceaccount": json.dumps({"kind": "ServiceAccount"}),
            "secret": json.dumps({"metadata": {"name": "login"}, "type": "Opaque", "data": {}}),
        }
        return 0, next((text for word, text in answers.items() if word in words), ""), ""

    def forward(self, namespace: str, service: str, *ports: int) -> Any:
        self.asked.append(f"forward {namespace} {service}")
        return type("Way", (), {"stop": lambda _: None})(), [4000 + port for port in range(len(ports))]


@pytest.fixture
def ground(cluster: StandInCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.setattr(installed, "Kubectl", Scripted)
    images = ("registry.example.com/d:1", "registry.example.com/t/trainer:1")
    return Installed(cluster.kubeconfig, "try", *images, tmp_path, drain=True, pull_secret="default/login")


def kubectl_of(ground: Installed) -> Scripted:
    assert isinstance(ground.kubectl, Scripted)
    return ground.kubectl


def test_namespaces_and_logins_come_before_the_pods_that_need_them(ground: Installed) -> None:
    ground.start()
    kubectl = kubectl_of(ground)
    kinds = [sorted({thing["kind"] for thing in things}) for things in kubectl.applied]
    assert kinds == [["Namespace"], ["Secret"], ["ConfigMap", "Deployment", "Service"]]
    rolled = [words for words in kubectl.asked if "rollout" in words]
    assert [words.split("deployment/")[1].split()[0] for words in rolled] == ["portal", "azurite"]
    assert ground.portal.url == "http://127.0.0.1:4000"
    assert "BlobEndpoint=http://127.0.0.1:4000/" in ground.storage
    assert "QueueEndpoint=http://127.0.0.1:4001/" in ground.storage
    assert ground.cannot == {}


def test_each_scenarios_dispatchers_are_applied_and_waited_for(ground: Installed) -> None:
    for scenario in {(s.with_, s.needs == "kueue"): s for s in SCENARIOS}.values():
        settings, template = configuration(ground, scenario)
        ground.configure(settings, template, kueue=scenario.needs == "kueue")
        things = kubectl_of(ground).applied[-1]
        (deployment,) = (thing for thing in things if thing["kind"] == "Deployment")
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/d:1"
        assert "rollout status deployment/training-dispatcher" in kubectl_of(ground).asked[-1]
    templates = {
        thing["data"]["job-template.yaml"]
        for things in kubectl_of(ground).applied
        for thing in things
        if "job-template.yaml" in thing.get("data", {})
    }
    assert len(templates) == 4, "the usual one, and those that ask for an image, a Secret and a node that nobody has"
    assert sum(MISSING in template for template in templates) == 3


@pytest.mark.parametrize("refused", ["", "drain"])
def test_a_drained_node_is_given_back_also_when_it_cannot_be_drained(ground: Installed, refused: str) -> None:
    kubectl = kubectl_of(ground)
    kubectl.refuses = refused
    if refused:
        with pytest.raises(CommandFailed, match="no drain"):
            ground.drain("model-1-abcde")
    else:
        ground.drain("model-1-abcde")
    assert kubectl.asked[-1] == "uncordon node-1"
    assert "--pod-selector=batch.kubernetes.io/job-name=model-1" in kubectl.asked[-2]


def test_a_rollout_that_does_not_end_is_told_with_the_pods_own_words(ground: Installed) -> None:
    kubectl_of(ground).refuses = "rollout"
    with pytest.raises(CommandFailed, match="no rollout"):
        ground.configure({}, ground.template)
    assert any("logs -l app.kubernetes.io/name=training-dispatcher" in words for words in kubectl_of(ground).asked)


def test_commands_kills_logs_and_the_end_name_the_runs_own_namespaces(ground: Installed) -> None:
    assert ground.command("check") == (0, "")
    ground.kill_dispatchers()
    ground.keep_logs()
    assert ground.stop() == []
    kubectl = kubectl_of(ground)
    assert kubectl.asked[-1].endswith(f"-l {LABEL}=try -o name"), "what is left"
    named = [words for words in kubectl.asked if words.startswith("-n ")]
    assert {words.split()[1] for words in named} <= {"try", "try-system", "try-contracts", "default"}
    deletions = [words for words in kubectl.asked if words.startswith("delete ")]
    assert deletions
    assert all(f"-l {LABEL}=try" in words for words in deletions)


def test_the_contract_suite_runs_beside_them_with_the_dispatchers_image(ground: Installed) -> None:
    kubectl = kubectl_of(ground)
    words = ground.contract_suite()
    assert words[2:] == ["--namespace", "try-contracts", "--image", "registry.example.com/d:1"]
    assert any("patch serviceaccount default" in asked for asked in kubectl.asked), "its pods need the login, too"
