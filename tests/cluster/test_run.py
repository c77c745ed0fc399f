"""`make cluster-test`: on the stand-in as far as that goes; what it says, counts and removes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local_stack.cluster.client import StandInCluster
from tests.cluster import __main__ as program
from tests.cluster.installed import Installed, Occupied, clean
from tests.cluster.kubectl import Kubectl
from tests.cluster.overlay import LABEL
from tests.cluster.scenarios import SCENARIOS, Scenario
from tests.cluster.stand_in import StandIn
from tests.cluster.trial import Unexpected
from tests.world.kube import Kube
from tests.world.manifests.kustomized import needs_kubectl

# Two that take a second each, with a change of the template between them. `make cluster-test` by itself runs all.
TRIED, SKIPPED = ("deleted Job", "missing Secret"), ("drained node", "deleted Job, under Kueue")


def test_scenarios_go_as_expected_on_the_stand_in_and_what_it_cannot_do_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [word for name in (*TRIED, SKIPPED[0]) for word in ("--only", name)]
    code = program.main(["--folder", str(tmp_path / "run"), "--patience", "120", *chosen])
    said = capsys.readouterr().out
    assert code == program.EXIT_OK, said
    table = (tmp_path / "run" / "table.md").read_text()
    rows = {row[0]: row[1:] for row in (line.strip("| ").split(" | ") for line in table.splitlines()[2:])}
    assert {name for name, row in rows.items() if row[-1] == "ok"} == set(TRIED)
    assert [rows[name][1:] for name in SKIPPED] == [[StandIn.cannot[n], "0", "skipped"] for n in ("drain", "kueue")]
    assert "2 ok, 0 NOT OK, 2 skipped" in said


@dataclass
class Nowhere:
    """A ground where nothing is; `done` is what was asked of it."""

    left: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    cannot: dict[str, str] = field(default_factory=lambda: {"kueue": "none"})

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def called(*_: object, **__: object) -> Any:
            self.done.append(name)
            return self.left if name == "stop" else (0, "")

        return called


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Nowhere:
    ground = Nowhere()
    monkeypatch.setattr(program, "_ground", lambda options: ground)
    monkeypatch.setattr(program, "configuration", lambda *_: ({}, {}))
    monkeypatch.setattr(program, "Trial", FakeTrial)
    return ground


class FakeTrial:
    models = ("model-1",)

    def __init__(self, ground: Nowhere, *_: object) -> None:
        self.ground = ground

    def prepare(self) -> None: ...
    def close(self) -> None:
        self.ground.done.append("close")


def _run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *scenarios: Callable[[Any], str]) -> int:
    made = tuple(Scenario(f"scenario {number}", "fine", run) for number, run in enumerate(scenarios))
    monkeypatch.setattr(program, "SCENARIOS", made)
    return program.main(["--folder", str(tmp_path / "run")])


def test_one_that_goes_wrong_is_told_with_where_its_model_stands_and_the_next_one_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nowhere: Nowhere, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(_: Any) -> str:
        raise Unexpected("Failed: it | burned\nmore of it")

    def broken(_: Any) -> str:
        raise OSError("a connection broke")

    assert _run(monkeypatch, tmp_path, wrong, broken, lambda _: "seen") == program.EXIT_UNEXPECTED
    said = capsys.readouterr()
    assert "| scenario 0 | fine | Failed: it \\| burned | 0 | NOT OK |" in said.out
    assert "| scenario 1 | fine | OSError: a connection broke | 0 | NOT OK |" in said.out
    assert "| scenario 2 | fine | seen | 0 | ok |" in said.out
    assert "more of it" in said.err
    assert nowhere.done == ["start", "configure", "command", "command", "close", "keep_logs", "stop"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_cleans_up_and_shows_what_was_seen(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    nowhere: Nowhere,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    def interrupted(_: Any) -> str:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal came first")

    assert _run(monkeypatch, tmp_path, lambda _: "seen", interrupted) == program.EXIT_INTERRUPTED
    assert nowhere.done[-3:] == ["close", "keep_logs", "stop"]
    assert "| scenario 0 | fine | seen | 0 | ok |" in capsys.readouterr().out


def test_what_is_left_behind_is_named_and_no_success(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nowhere: Nowhere, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere.left.append("namespace/try")
    assert _run(monkeypatch, tmp_path, lambda _: "seen") == program.EXIT_LEFT
    assert "still there: namespace/try" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "deleted pods"], "there is no scenario 'deleted pods'"),
        (["--clean"], "name it with KUBECONFIG"),
        (["--kubeconfig", __file__], "KUBECONFIG is set, NAMESPACE is not"),
        (["--kubeconfig", "/nowhere", "--namespace", "try"], "there is no kubeconfig /nowhere"),
        (["--kubeconfig", __file__, "--namespace", "try", "--trainer-image", "t:1"], "images with a slash"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_made(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    with pytest.raises(SystemExit) as end:
        program.main(arguments)
    assert end.value.code == program.EXIT_NOT_BEGUN
    assert sentence in capsys.readouterr().err.splitlines()[-1]


@needs_kubectl
def test_what_carries_the_label_is_removed_with_its_jobs_and_nothing_else(
    cluster: StandInCluster, tmp_path: Path
) -> None:
    ours = {"labels": {LABEL: "try"}}
    for name, more in (("try", ours), ("try-system", ours), ("try-contracts", {}), ("bystander", {})):
        cluster.api("POST", "/api/v1/namespaces", {"metadata": {"name": name, **more}})
    kubes = [Kube(cluster.kubeconfig, namespace, "none:1") for namespace in ("try", "bystander")]
    for kube in kubes:
        kube.start("model-1", "exit 0", finalizer=True)
    kubectl = Kubectl(cluster.kubeconfig, tmp_path)
    with pytest.raises(Occupied, match="There is a namespace try already"):
        Installed(cluster.kubeconfig, "try", "dispatcher:1", "trainer:1", tmp_path)
    assert clean(kubectl, "try") == []
    there = {namespace["metadata"]["name"] for namespace in cluster.api("GET", "/api/v1/namespaces")["items"]}
    assert {"bystander", "try-contracts"} <= there, "these are not ours"
    assert not {"try", "try-system"} & there
    assert [kube.get("jobs", "model-1") is None for kube in kubes] == [True, False]
