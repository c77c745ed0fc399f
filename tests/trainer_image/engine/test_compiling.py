"""torch.compile: only where it is expected to pay, given up where it does not, never the end of a training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.world.training_data import TABULAR, class_table, run_inputs
from trainer_image.engine.preparing import make_plan, prepare
from trainer_image.engine.steps import compiling as engine_compile
from trainer_image.engine.steps.compiling import MEASURED, WARM_UP, Compiling, lacking, pays
from trainer_image.engine.training import train

CPU = torch.device("cpu")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_compile, "lacking", lambda device: None)


@pytest.mark.parametrize(
    ("steps_left", "seconds_a_step", "worth_it"),
    [(100, 0.01, False), (1000, 0.05, False), (100_000, 0.05, True), (1_000_000, 1e-5, False)],
)
def test_compiling_pays_where_much_is_left_to_do(steps_left: int, seconds_a_step: float, worth_it: bool) -> None:
    assert pays(steps_left, seconds_a_step) is worth_it


@pytest.mark.parametrize(
    ("device", "installed", "variable", "lacks"),
    [
        ("cuda", ["gcc"], {}, None),
        ("cuda", ["clang"], {}, None),
        ("cuda", ["my-cc"], {"CC": "my-cc"}, None),
        ("cuda", ["cc"], {}, "a C compiler (gcc or clang)"),  # Triton does not look for that name
        ("cuda", ["gcc"], {"CC": "lost"}, "a C compiler"),
        ("cpu", ["gcc"], {}, "a C++ compiler (g++)"),
        ("cpu", ["gcc", "g++"], {}, None),
    ],
)
def test_what_torch_compile_will_look_for_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    device: str,
    installed: list[str],
    variable: dict[str, str],
    lacks: str | None,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    for name in installed:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr(engine_compile.sysconfig, "get_path", lambda *which: str(tmp_path))
    assert (lacking(torch.device(device)) or "").startswith(lacks or "")
    assert (lacking(torch.device(device)) is None) == (lacks is None)
    (tmp_path / "Python.h").unlink()
    assert lacking(torch.device(device)) is not None


def test_without_a_compiler_a_wish_is_a_note_and_auto_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_compile, "lacking", lambda device: "a C compiler")
    notes: list[str] = []
    assert not Compiling(nn.Linear(1, 1), CPU, None, notes).on
    assert notes == []
    assert not Compiling(nn.Linear(1, 1), CPU, True, notes).on
    assert "needs a C compiler" in notes[0]


class Broken(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: object) -> None:
        raise RuntimeError("the backend fell over")


@pytest.mark.usefixtures("compiler")
def test_a_compiler_that_fails_leaves_the_training_as_it_would_be_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **options: Broken(model))
    data = class_table(tmp_path / "data")
    wished = TABULAR.replace("epochs: 3", "epochs: 3, compile: true")
    train(run_inputs(data, tmp_path / "wished", wished))
    train(run_inputs(data, tmp_path / "plain"))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("wished", "plain")]
    assert weights[0] == weights[1]
    notes = json.loads((tmp_path / "wished" / "report.json").read_text())["training"]["notes"]
    assert "torch.compile failed (RuntimeError): trained without it." in notes


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("steps_left", "compiled", "decisions", "on", "said"),
    [
        (100, 0.0, [], False, ""),
        (10_000_000, 0.5, ["compile"], True, "torch.compile: 500 ms a step instead of 1e+03 ms"),
        (10_000_000, 2.0, ["compile", "eager"], False, "was given up"),
    ],
)
def test_what_is_faster_when_measured_stays(
    monkeypatch: pytest.MonkeyPatch, steps_left: int, compiled: float, decisions: list[str], on: bool, said: str
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **options: Broken(model))
    notes: list[str] = []
    compiling = Compiling(nn.Linear(1, 1), CPU, None, notes)

    def clock() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += MEASURED * (compiled if compiling.on else 1.0)

    ticks = clock()
    monkeypatch.setattr(compiling, "_now", lambda: next(ticks))
    told = [word for _ in range(3 * (WARM_UP + MEASURED)) if (word := compiling.after_step(steps_left))]
    assert (told, compiling.on) == (decisions, on)
    assert said in "".join(notes)


def test_on_the_cpu_auto_neither_compiles_nor_probes(tmp_path: Path) -> None:
    inputs = run_inputs(class_table(tmp_path / "data"), tmp_path / "out")
    plan = make_plan(inputs, prepare(inputs).recipe, CPU)
    assert (plan.compile, plan.probe) == (False, False)
