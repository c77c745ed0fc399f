"""Candidates beside the network: who is published, what a checkpoint keeps of them, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tests.world.training_data import TABULAR, FolderStore, StopAtStep, class_rows, class_table, run_inputs, write_csv
from trainer_image.contract import Progress
from trainer_image.engine.checkpoint import Checkpointer
from trainer_image.engine.course import Course
from trainer_image.engine.training import train
from trainer_image.errors import ConfigInvalid, Terminated
from trainer_image.predict import predict
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.tabular.predictor import TabularPredictor
from trainer_image.tasks.tabular.task import TabularProblem

BOTH = TABULAR.replace("[network]", "[network, plane]")
ALONE = TABULAR.replace("[network]", "[plane]")


def value_table(folder: Path, count: int = 120) -> Path:
    """A plane."""
    rows = [[a, b, round(3 * a - b + 10, 3)] for a, b, *_ in class_rows(count)]  # type: ignore[operator]
    write_csv(folder / "train.csv", ["a", "b", "y"], rows)
    return folder


class Plane(nn.Module):
    """A linear model of the dense columns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(width + 1, dtype=torch.float64))

    def forward(self, dense: Tensor) -> Tensor:
        return (dense.double() @ self.weight[:-1] + self.weight[-1]).float()


class FitsPlane(Candidate):
    name = "plane"
    fits: ClassVar[list[tuple[tuple[str, ...], dict[str, Any] | None]]] = []

    def __init__(self, problem: TabularProblem) -> None:
        self.problem = problem

    def fit(
        self, fit_on: Sequence[str], allowance: Allowance, chosen: dict[str, Any] | None
    ) -> tuple[nn.Module, dict[str, Any]] | None:
        self.fits.append((tuple(fit_on), chosen))
        torch.rand(5)  # what it draws must not change what the network draws
        dense = torch.cat([self.problem.splits[name]["dense"] for name in fit_on]).double()
        target = torch.cat([self.problem.splits[name]["target"] for name in fit_on]).double()
        inputs = torch.cat([dense, torch.ones(len(dense), 1)], 1)
        plane = Plane(dense.shape[1])
        plane.weight.copy_(torch.linalg.lstsq(inputs, target[:, None], driver="gelsd").solution[:, 0])
        return plane, {"width": dense.shape[1]}


class Fails(FitsPlane):
    def fit(self, fit_on, allowance, chosen):
        raise ValueError("no such luck")


class SitsOut(FitsPlane):
    def fit(self, fit_on, allowance, chosen):
        self.note = "The table is larger than memory."


class Nonsense(FitsPlane):
    def fit(self, fit_on, allowance, chosen):
        plane, chosen = super().fit(fit_on, allowance, chosen)
        plane.weight.fill_(float("nan"))
        return plane, chosen


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch):
    """Offers this kind of candidate to tables of values."""

    def offer(kind: type[FitsPlane]) -> None:
        kind.fits = []
        outputs = TabularPredictor.outputs
        monkeypatch.setattr(TabularProblem, "candidates", lambda self: [kind(self)])
        monkeypatch.setattr(TabularPredictor, "build_candidate", lambda self, name, chosen: Plane(chosen["width"]))
        monkeypatch.setattr(
            TabularPredictor,
            "outputs",
            lambda self, model, batch: (
                model(batch["dense"]) if isinstance(model, Plane) else outputs(self, model, batch)
            ),
        )

    return offer


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def test_the_better_candidate_is_published_and_predict_says_what_the_report_said(tmp_path: Path, plane) -> None:
    plane(FitsPlane)
    data = value_table(tmp_path / "data")
    (data / "train.csv").rename(data / "test.csv")
    value_table(data, 200)
    result = train(run_inputs(data, tmp_path / "out", BOTH))
    report = report_of(tmp_path / "out")
    ours, network = report["candidates"]
    assert (ours["name"], network["name"]) == ("plane", "network")
    assert ours["weight"] + network["weight"] == pytest.approx(1)
    assert ours["weight"] > 0.5
    assert ours["validation"] < network["validation"]
    assert FitsPlane.fits == [(("train",), None), (("train", "validation"), {"width": ours_width(tmp_path / "out")})]
    assert predict(tmp_path / "out", data, tmp_path / "rows.csv")["metrics"] == dict(result.metrics)
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    assert described["format"] == 2
    assert [member["name"] for member in described["members"]] == [c["name"] for c in (ours, network) if c["weight"]]
    page, card = ((tmp_path / "out" / name).read_text() for name in ("report.html", "README.md"))
    assert 'id="candidates"' in page
    assert "| plane |" in card


def ours_width(folder: Path) -> int:
    members = json.loads((folder / "model.json").read_text())["members"]
    return next(member["chosen"]["width"] for member in members if member["name"] == "plane")


def test_a_candidate_changes_nothing_of_the_network_s_training(tmp_path: Path, plane) -> None:
    data = value_table(tmp_path / "data")
    train(run_inputs(data, tmp_path / "alone"))
    plane(FitsPlane)
    train(run_inputs(data, tmp_path / "beside", BOTH))
    histories = [
        [
            (entry["step"], entry["loss"])
            for entry in report_of(tmp_path / name)["history"]
            if entry["phase"] == "search"
        ]
        for name in ("alone", "beside")
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        (Fails, "It failed (ValueError: no such luck)."),
        (SitsOut, "larger than memory"),
        (Nonsense, "what is no number"),
    ],
)
def test_a_candidate_that_cannot_be_fitted_sits_out_and_the_report_says_why(tmp_path: Path, plane, kind, note) -> None:
    plane(kind)
    train(run_inputs(value_table(tmp_path / "data"), tmp_path / "out", BOTH))
    ours, network = report_of(tmp_path / "out")["candidates"]
    assert note in ours["note"]
    assert (ours["weight"], ours["validation"], network["weight"]) == (0.0, None, 1.0)


def test_a_candidate_is_not_begun_when_what_was_measured_before_has_taken_the_whole_budget(
    tmp_path: Path, plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane(FitsPlane)
    monkeypatch.setattr(Course, "left", property(lambda self: -1.0))
    train(run_inputs(value_table(tmp_path / "data"), tmp_path / "out", BOTH))
    ours, network = report_of(tmp_path / "out")["candidates"]
    assert (ours["note"], ours["weight"], network["weight"]) == ("No time was left for it.", 0.0, 1.0)
    assert FitsPlane.fits == []


def test_candidates_alone_train_no_network(tmp_path: Path, plane) -> None:
    plane(FitsPlane)
    result = train(run_inputs(value_table(tmp_path / "data"), tmp_path / "out", ALONE))
    assert result.steps == 0
    assert [member["name"] for member in json.loads((tmp_path / "out" / "model.json").read_text())["members"]] == [
        "plane"
    ]


def test_the_network_trains_where_no_candidate_could(tmp_path: Path, plane) -> None:
    plane(Fails)
    assert train(run_inputs(value_table(tmp_path / "data"), tmp_path / "out", ALONE)).steps > 0


def test_a_candidate_that_there_is_not_is_named(tmp_path: Path, plane) -> None:
    plane(FitsPlane)
    config = TABULAR.replace("[network]", "[network, trees]")
    with pytest.raises(ConfigInvalid, match=r"model.candidates: has 'trees', .*: network, plane would be right"):
        train(run_inputs(value_table(tmp_path / "data"), tmp_path / "out", config))


@pytest.mark.parametrize("asks", [1, 2, 3, 4])
def test_a_stopped_training_goes_on_with_the_candidates_it_has(tmp_path: Path, plane, asks: int) -> None:
    plane(FitsPlane)
    data = value_table(tmp_path / "data")
    train(run_inputs(data, tmp_path / "whole", BOTH))
    store = FolderStore(tmp_path / "store")
    FitsPlane.fits.clear()
    with pytest.raises(Terminated):
        train(run_inputs(data, tmp_path / "first", BOTH, store=store, stop=StopAtStep(asks)))
    assert [folder.name for folder in store.kept] == [f"step-{min(asks - 1, 3)}"]
    train(run_inputs(data, tmp_path / "out", BOTH, store=store))
    assert [fit_on for fit_on, _ in FitsPlane.fits] == [("train",), ("train", "validation")]
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out"))
    assert whole == resumed


class Free(FitsPlane):
    """Its refit takes no time as long as it remembers its first fit."""

    def fit(self, fit_on, allowance, chosen):
        self.again = 0.0
        return super().fit(fit_on, allowance, chosen)


@pytest.mark.parametrize("asks", [1, 2, 3, 4])
def test_a_resumed_training_fits_nothing_again_that_took_no_time(tmp_path: Path, plane, asks: int) -> None:
    plane(Free)
    data, store = value_table(tmp_path / "data"), FolderStore(tmp_path / "store")
    train(run_inputs(data, tmp_path / "whole", BOTH))
    Free.fits.clear()
    with pytest.raises(Terminated):
        train(run_inputs(data, tmp_path / "first", BOTH, store=store, stop=StopAtStep(asks)))
    before = [fit_on for fit_on, _ in Free.fits]
    assert before == [("train",), ("train", "validation")]
    train(run_inputs(data, tmp_path / "out", BOTH, store=store))
    assert [fit_on for fit_on, _ in Free.fits] == before
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out"))
    assert whole == resumed


class Clock:
    """A pace of its own: so many seconds pass each time that somebody looks at it."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now


class StopsAt(list[Progress]):
    """Sets `stop` with the n-th progress that begins with this word."""

    def __init__(self, word: str, count: int) -> None:
        super().__init__()
        self.stop, self._word, self._left = threading.Event(), word, count

    def append(self, said: Progress) -> None:
        self._left -= said.message.startswith(self._word)
        if not self._left:
            self.stop.set()


def test_a_resumed_training_goes_on_with_what_a_slow_clock_chose_however_fast_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boosted = "trainer_image.tasks.tabular.trees.boosted"
    monkeypatch.setattr(f"{boosted}.PLANS", ((1, True, 0.2), (1, False, 0.3)))
    config = TABULAR.replace("[network]", "[boosted trees, network]")
    data = tmp_path / "data"
    rows = [[a, b, "yes" if a * b > 0 else "no"] for a, b, *_ in class_rows(150)]  # type: ignore[operator]
    write_csv(data / "train.csv", ["a", "b", "y"], rows)

    def trained(name: str, tick: float, **more: Any) -> bytes:
        monkeypatch.setattr(f"{boosted}.time", Clock(tick))
        train(run_inputs(data, tmp_path / name, config, **more))
        return (tmp_path / name / "model.safetensors").read_bytes()

    slow, fast = trained("slow", 1.0), trained("fast", 1e-6)
    members = [json.loads((tmp_path / name / "model.json").read_text())["members"][0] for name in ("slow", "fast")]
    assert [member["chosen"]["ensembles"][0]["rate"] for member in members] == [0.3, 0.2]
    assert slow != fast
    for said in (StopsAt("Epoch", 1), StopsAt("Fitting a candidate", 2)):
        store = FolderStore(tmp_path / "store")
        with pytest.raises(Terminated):
            trained("stopped", 1.0, store=store, said=said, stop=said.stop)
        assert trained("resumed", 1e-6, store=store) == slow


def test_a_killed_training_does_not_fit_the_candidates_again_that_it_had(
    tmp_path: Path, plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(FitsPlane):
        name = "killed"
        dies = True

        def fit(self, fit_on, allowance, chosen):
            if self.dies:
                raise KeyboardInterrupt
            self.note = "It lives."

    plane(FitsPlane)
    monkeypatch.setattr(TabularProblem, "candidates", lambda self: [FitsPlane(self), Killed(self)])
    monkeypatch.setattr(Checkpointer, "due", lambda self, epoch_ended: epoch_ended)
    data, store = value_table(tmp_path / "data"), FolderStore(tmp_path / "store")
    config = TABULAR.replace("[network]", "[plane, killed]")
    with pytest.raises(KeyboardInterrupt):
        train(run_inputs(data, tmp_path / "first", config, store=store))
    Killed.dies = False
    train(run_inputs(data, tmp_path / "out", config, store=store))
    assert [fit_on for fit_on, _ in FitsPlane.fits] == [("train",), ("train", "validation")]


def test_a_warm_start_takes_the_network_out_of_a_model_with_members(tmp_path: Path, plane) -> None:
    data = class_table(tmp_path / "data")
    train(run_inputs(data, tmp_path / "first"))
    train(run_inputs(data, tmp_path / "second", initial=tmp_path / "first"))
    notes = report_of(tmp_path / "second")["training"]["notes"]
    taken = next(note for note in notes if note.startswith("Warm start"))
    assert "fresh ones" not in taken


def test_a_warm_start_from_a_model_without_a_network_says_so(tmp_path: Path, plane) -> None:
    plane(FitsPlane)
    data = value_table(tmp_path / "data")
    train(run_inputs(data, tmp_path / "first", ALONE))
    train(run_inputs(data, tmp_path / "second", BOTH, initial=tmp_path / "first"))
    notes = report_of(tmp_path / "second")["training"]["notes"]
    assert "Warm start: the previous model has no network; training starts afresh." in notes


def test_the_report_tells_the_time_and_why_training_stopped(tmp_path: Path) -> None:
    train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out"))
    training = report_of(tmp_path / "out")["training"]
    assert training["stopped"] == "all 3 epochs were done"
    assert training["time_budget"] == 1800
    assert 0 < training["seconds"] < 1800
