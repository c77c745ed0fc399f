"""Tasks of one's own: only what is registered is imported, and every mistake of theirs is one sentence."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from pydantic import Field

from tests.world.training_data import class_table, run_inputs
from trainer_image import errors
from trainer_image.config.model_config import parse_config
from trainer_image.engine import training
from trainer_image.engine.training import check_config, train, validate_dataset
from trainer_image.limits import Limits
from trainer_image.predict import predict
from trainer_image.tasks import hooks, plugins, registry
from trainer_image.tasks.base import Rows, checked_params

# A whole plug-in: the built-in tabular task under another name, but for what a test adds below it.
PLUGIN = """
from trainer_image.errors import ConfigInvalid
from trainer_image.tasks.base import Task
from trainer_image.tasks.tabular.task import Tabular

class Own(Task):
    name = "own"
    interface = 1

    def prepare(self, data, settings):
        if "colour" in settings.params:
            raise ConfigInvalid("Invalid configuration: custom.params.colour: is unknown")
        problem = Tabular().prepare(data, settings)
        {prepared}
        return problem

    def restore(self, description):
        return Tabular().restore(description)
"""
CONFIG = """
task: custom
data: {{target: y}}
model: {{candidates: [network]}}
train: {{epochs: 2}}
custom: {{entry_point: "{module}:Own", params: {params}}}
"""
Register = Callable[..., str]


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Installs a module with this source, registered as `module:Own`, and gives the module's name."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    made: list[str] = []

    def install(source: str, *, group: str = registry.GROUP, there: bool = True) -> str:
        module = f"own_{secrets.token_hex(4)}"
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nown = {module}:Own\n")
        if there:
            (site / f"{module}.py").write_text(source)
        made.append(module)
        return module

    yield install
    for module in made:
        sys.modules.pop(module, None)


def plugin(prepared: str = "pass") -> str:
    return PLUGIN.format(prepared=prepared)


def refused(module: str) -> errors.TrainerError:
    with pytest.raises(errors.TrainerError) as told:
        plugins.load(f"{module}:Own")
    return told.value


def test_a_registered_task_trains_and_its_model_is_restored_by_it(register: Register, tmp_path: Path) -> None:
    # Written for the first version of the interface: `examples` takes the rows alone.
    shown = "from trainer_image.tasks.base import Example; "
    shown += "problem.examples = lambda rows: [Example(f'the row {row}') for row in rows]"
    module = register(plugin(shown))
    data = class_table(tmp_path / "data")
    result = train(run_inputs(data, tmp_path / "out", CONFIG.format(module=module, params="{}")))
    assert result.task == "custom"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["task"], report["plug_in"]) == ("custom", "own")
    worst = report["findings"]["worst"]
    assert worst
    assert [entry["example"]["name"] for entry in worst] == [f"the row {entry['row']}" for entry in worst]
    assert json.loads((tmp_path / "out" / "model.json").read_text())["entry_point"] == f"{module}:Own"
    assert predict(tmp_path / "out", data, None)["rows"] == 120


CHECKED = """
    def check(self, settings):
        if settings.params.get("horizon") == 0:
            raise ConfigInvalid("Invalid configuration: custom.params.horizon: must be at least 1")
        settings.params["window"]
"""


@pytest.mark.parametrize(
    ("params", "error", "told"),
    [
        ("{horizon: 0}", errors.ConfigInvalid, "Invalid configuration: custom.params.horizon: must be at least 1"),
        ("{}", errors.UserCodeFailed, "failed in check: KeyError: 'window' ("),
        ("{window: 3}", None, ""),
    ],
)
def test_parameters_are_checked_without_a_dataset(
    register: Register, params: str, error: type[errors.TrainerError] | None, told: str
) -> None:
    config = parse_config(CONFIG.format(module=register(plugin() + CHECKED), params=params).encode())
    if error is None:
        check_config(config, Limits())
        return
    with pytest.raises(error) as refused:
        check_config(config, Limits())
    assert told in refused.value.sentence


def test_a_task_without_a_check_of_its_own_goes_on_to_the_dataset(register: Register) -> None:
    check_config(parse_config(CONFIG.format(module=register(plugin()), params="{}").encode()), Limits())


def test_what_a_class_must_be_is_told_in_one_sentence(register: Register) -> None:
    says = {
        "": "there is no Own in {m}",
        "Own = 3": "Own is no class that derives from trainer_image.tasks.base.Task",
        "class Own: pass": "Own is no class that derives from trainer_image.tasks.base.Task",
        "raise KeyError('x')": "importing it failed with KeyError: 'x' ({m}.py, line 1)",
        "import sys; sys.exit(0)": "importing it failed with SystemExit: 0 ({m}.py, line 1)",
        "import nowhere_to_be_found": "importing it failed with ModuleNotFoundError: No module named",
        "def Own(:": "importing it failed with SyntaxError: invalid syntax ({m}.py, line 1)",
        plugin().replace("interface = 1", ""): "does not say for which version of the plug-in interface",
        plugin().replace("interface = 1", "interface = 3"): "was written for version 3 of the plug-in interface; this",
        plugin().replace("restore", "restored"): "failed: TypeError: Can't instantiate abstract class Own",
        plugin() + "    def __init__(self):\n        1 / 0\n": "failed: ZeroDivisionError: division by zero ({m}.py",
    }
    for source, words in says.items():
        module = register(source)
        error = refused(module)
        assert (error.exit_code, error.code) == (79, "UserCodeFailed"), source
        assert words.format(m=module) in error.sentence, (source, error.sentence)
        assert error.sentence.startswith(f"The task {module}:Own ")
        assert "\n" not in error.sentence


def test_a_package_without_its_module_is_told_as_such(register: Register) -> None:
    module = register("", there=False)
    assert refused(module).sentence.endswith(f"its package is installed, but has no module {module}")


@pytest.mark.parametrize(
    "entry_point",
    ["os:system", "subprocess:Popen", "trainer_image.tasks.tabular.task:Tabular", "tests.trap:Own", "x.y:Z"],
)
def test_what_no_package_registered_is_not_imported_whoever_names_it(entry_point: str, register: Register) -> None:
    register("", group="console_scripts")
    known = register(plugin())
    before = set(sys.modules)
    with pytest.raises(errors.ConfigInvalid) as told:
        plugins.load(entry_point)
    assert told.value.sentence == (
        f"Invalid configuration: custom.entry_point: {entry_point} is not registered as a task"
        f" (group trainer_image.tasks); registered are {known}:Own"
    )
    assert {name for name in set(sys.modules) - before if not name.startswith("trainer_image")} == set()


TRAP = "import pathlib\npathlib.Path({mark!r}).touch()\n"


def test_a_model_s_folder_cannot_choose_what_predict_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, register: Register
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    mark = tmp_path / "ran"
    (model / "evil.py").write_text(TRAP.format(mark=str(mark)) + plugin())
    info = model / "evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nevil = evil:Own\n")
    (model / "model.safetensors").write_bytes(b"")
    monkeypatch.chdir(model)
    monkeypatch.syspath_prepend(model)  # as `python -m` does with the folder that it is started in
    for entry_point in ("evil:Own", "os:system", "a\nb:C", ["evil:Own"]):
        (model / "model.json").write_text(
            json.dumps({"format": 1, "task": "custom", "entry_point": entry_point, "model": {}})
        )
        with pytest.raises(errors.UsageError, match="which is not installed here") as told:
            predict(model, tmp_path, None)
        assert "\n" not in told.value.sentence
    assert not mark.exists()


def test_a_module_beside_the_data_is_not_taken_for_a_registered_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, register: Register
) -> None:
    module = register(plugin())
    data = class_table(tmp_path / "data")
    mark = tmp_path / "ran"
    (data / f"{module}.py").write_text(TRAP.format(mark=str(mark)) + plugin())
    monkeypatch.chdir(data)
    monkeypatch.syspath_prepend(data)
    assert "classification of 'y'" in validate_dataset(
        run_inputs(data, tmp_path / "out", CONFIG.format(module=module, params="{}"))
    )
    assert not mark.exists()


def test_the_task_judges_its_parameters(register: Register, tmp_path: Path) -> None:
    config = CONFIG.format(module=register(plugin()), params="{colour: red}")
    with pytest.raises(errors.ConfigInvalid, match=r"custom\.params\.colour: is unknown"):
        train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", config))


@pytest.mark.parametrize(
    ("prepared", "line"),
    [
        ("raise KeyError('price')", " in prepare: KeyError: 'price'"),
        ("raise SystemExit(0)", " in prepare: SystemExit: 0"),
        ("raise RuntimeError('two\\nlines')", " in prepare: RuntimeError: two lines"),
        ("problem.loss = lambda model, batch: batch['nothing']", ": KeyError: 'nothing'"),
        ("problem.findings = lambda outputs: 1 / 0", ": ZeroDivisionError: division by zero"),
    ],
)
def test_an_exception_of_the_task_is_one_sentence_and_its_traceback_is_in_the_log(
    register: Register, tmp_path: Path, caplog: pytest.LogCaptureFixture, prepared: str, line: str
) -> None:
    module = register(plugin(prepared))
    inputs = run_inputs(class_table(tmp_path / "data"), tmp_path / "out", CONFIG.format(module=module, params="{}"))
    with pytest.raises(errors.UserCodeFailed) as told:
        train(inputs)
    assert told.value.sentence.startswith(f"The task {module}:Own failed{line}")
    assert "\n" not in told.value.sentence
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("prepared", "told"),
    [
        ("splits = {}", "splits has no 'train'; train, validation and test are needed"),
        ("splits['test']['target'] = problem.splits['test']['target'][1:]", "as many rows of each are needed"),
        ("model_description = lambda: {'a': float('nan')}", "model_description returned nan as 'a', which JSON"),
    ],
)
def test_what_would_show_when_the_training_is_over_is_told_before_it(
    register: Register, tmp_path: Path, prepared: str, told: str
) -> None:
    config = CONFIG.format(module=register(plugin(f"problem.{prepared}")), params="{}")
    with pytest.raises(errors.UserCodeFailed) as failed:
        validate_dataset(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", config))
    assert told in failed.value.sentence
    assert failed.value.sentence.startswith("trainer_image.tasks.tabular.task:TabularProblem.")


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("{'log_loss': float('nan')}", "NaN as 'log_loss', by which weights are chosen, for "),
        ("None", "NoneType; a dict of names and numbers is expected"),
        ("{'log_loss': outputs}", "as 'log_loss'; a figure is one number, or left out"),
        ("{'log_loss': 'good'}", "str as 'log_loss'"),
    ],
)
def test_what_a_score_returns_that_is_no_figure_is_told_at_the_first_epoch(
    register: Register, tmp_path: Path, returned: str, told: str
) -> None:
    module = register(plugin(f"problem.predictor.score = lambda outputs, batch: {returned}"))
    inputs = run_inputs(class_table(tmp_path / "data"), tmp_path / "out", CONFIG.format(module=module, params="{}"))
    with pytest.raises(errors.UserCodeFailed) as failed:
        train(inputs)
    assert told in failed.value.sentence
    assert ".score returned" in failed.value.sentence


def test_a_score_of_tensors_is_as_good_as_one_of_numbers(register: Register, tmp_path: Path) -> None:
    module = register(
        plugin(
            "score = problem.predictor.score; import torch; problem.predictor.score = lambda outputs, batch: "
            "{name: torch.tensor(value) for name, value in score(outputs, batch).items()}"
        )
    )
    train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", CONFIG.format(module=module, params="{}")))
    assert isinstance(json.loads((tmp_path / "out" / "report.json").read_text())["metrics"]["accuracy"], float)


FILES = """
from trainer_image.tasks.tabular.predictor import TabularPredictor

FOUND = []

class Files(TabularPredictor):
    def predictions(self, outputs):
        return TABLE(super().predictions(outputs))

    def files(self, outputs, rows):
        for k, found in enumerate(FOUND):
            yield found(outputs[k]) if callable(found) else found

def TABLE(found):
    return found
"""


@pytest.fixture
def filing(register: Register, tmp_path: Path) -> tuple[Any, Callable[[str], dict[str, Any]]]:
    """A model that predicts files, its module, and `predict` for the test rows with --out of this name."""
    own = plugin() + "        predictor.__class__ = Files\n        return predictor\n" + FILES
    module = register(own.replace("return Tabular().restore", "predictor = Tabular().restore"))
    data = class_table(tmp_path / "data")
    train(run_inputs(data, tmp_path / "model", CONFIG.format(module=module, params="{}")))
    return sys.modules[module], lambda out: predict(tmp_path / "model", data, tmp_path / out)


def test_predictions_that_are_no_table_become_files_beside_it(filing: Any, tmp_path: Path) -> None:
    module, predicted = filing
    module.FOUND[:] = [("a.npy", b"abc"), lambda output: ("b/c.txt", str(len(output)).encode())]
    (tmp_path / f".new.{os.getpid()}" / "a.npy").mkdir(parents=True)  # left by one that was killed
    found = predicted("new.csv")
    assert (found["rows"], found["files"], found["folder"]) == (120, 2, tmp_path / "new")
    assert (tmp_path / "new" / "a.npy").read_bytes() == b"abc"
    assert (tmp_path / "new" / "b" / "c.txt").read_text() == "2"
    assert len((tmp_path / "new.csv").read_text().splitlines()) == 121
    with pytest.raises(errors.UsageError, match="where something lies already: another name would be right"):
        predicted("new.jsonl")
    with pytest.raises(errors.UsageError, match=r"other\.csv or other\.jsonl would be right"):
        predicted("other")
    assert "which are written with --out only" in predict(tmp_path / "model", tmp_path / "data", None)["notes"][0]
    module.TABLE = lambda found: None
    assert "table" not in predicted("masks.csv")
    assert not (tmp_path / "masks.csv").exists()
    assert len(list((tmp_path / "masks").rglob("*.*"))) == 2
    assert not list(tmp_path.glob(".*")), "nothing is left half written"


def test_what_predict_cannot_write_is_told_with_the_hook_that_gave_it(
    filing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, predicted = filing
    monkeypatch.setattr("trainer_image.predict.MOST_FILES_BYTES", 5)
    x = {"x": torch.zeros(2)}
    said = {
        ("../x", b""): "Files.files returned a file named ../x: the name contains a . or .. folder",
        ("/etc/x", b""): "Files.files returned a file named /etc/x: the name is an absolute path",
        ("x", "text"): "Files.files returned tuple; pairs of a name and bytes are expected",
        "x": "Files.files returned str; pairs of a name and bytes are expected",
        (lambda output: 1 / 0): "failed in files: ZeroDivisionError: division by zero",
        ("a", b"123456"): "at most 1000000 files, and 5 bytes together are written",
    }
    for found, told in said.items():
        module.FOUND[:] = [("a/b", b""), found]
        with pytest.raises((errors.UserCodeFailed, errors.LimitExceeded)) as failed:
            predicted("new.csv")
        assert told in failed.value.sentence
    for pair in ([("a", b""), ("a/b", b"")], [("a", b""), ("a", b"")]):
        module.FOUND[:] = pair
        with pytest.raises(errors.UserCodeFailed, match="predicts two files named "):
            predicted("new.csv")
    module.FOUND[:] = []
    wrong = {
        "returned 3 lines; one for each of 120 rows is expected": lambda found: (found[0], found[1][:3]),
        "returned 1 cells for ": lambda found: (found[0], [line[:1] for line in found[1]]),
    }
    for told, table in wrong.items():
        module.TABLE = table
        with pytest.raises(errors.UserCodeFailed, match=f"Files.predictions {told}"):
            predicted("new.csv")
    for read, told in (lambda self, *_: [], "list; Rows of"), (lambda self, *_: Rows(x, ["a"], False), "1 names for 2"):
        module.Files.read = read
        with pytest.raises(errors.UserCodeFailed, match=f"Files.read returned {told}"):
            predicted("new.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"site", "data", "model"}


@dataclass(frozen=True)
class _Layer:
    width: int


@dataclass(frozen=True)
class _Params:
    window: Annotated[int, Field(ge=1, le=100)]
    horizon: int = 1
    name: str | None = None
    sizes: tuple[int, ...] = ()
    layers: tuple[_Layer, ...] = ()

    def __post_init__(self) -> None:
        if self.horizon > self.window:
            raise ValueError("horizon must not be longer than window")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "custom.params.window: field required"),
        ({"window": "3"}, "custom.params.window: input should be a valid integer; it is '3'"),
        ({"window": True}, "custom.params.window: input should be a valid integer; it is True"),
        ({"window": 0}, "custom.params.window: input should be greater than or equal to 1; it is 0"),
        ({"window": 3, "colour": 1}, "custom.params.colour: unknown; known are window, horizon, name, sizes, layers"),
        ({"window": 3, "horizon": 4}, "custom.params: horizon must not be longer than window"),
        ({"window": 3, "layers": [{"width": 1}, {"width": 1, "x": 1}]}, "custom.params.layers.1.x: unknown"),
        ({"window": 3, "sizes": [1, "a"]}, "custom.params.sizes.1: input should be a valid integer; it is 'a'"),
    ],
)
def test_a_parameter_of_another_kind_is_named_with_what_would_be_right(given: dict[str, object], told: str) -> None:
    with pytest.raises(errors.ConfigInvalid) as refused:
        checked_params(_Params, given)
    assert refused.value.sentence.startswith(f"Invalid configuration: {told}")


def test_parameters_become_the_dataclass_with_its_defaults() -> None:
    assert checked_params(_Params, {"window": 3, "sizes": [1, 2]}) == _Params(3, 1, None, (1, 2))


def test_an_error_that_the_task_means_is_passed_on_as_it_is(register: Register, tmp_path: Path) -> None:
    module = register(plugin("from trainer_image.errors import DatasetInvalid; raise DatasetInvalid('Invalid: a.csv')"))
    with pytest.raises(errors.DatasetInvalid, match=r"^Invalid: a\.csv$"):
        validate_dataset(
            run_inputs(class_table(tmp_path / "data"), tmp_path / "out", CONFIG.format(module=module, params="{}"))
        )


def test_findings_of_tensors_become_numbers_and_what_no_json_has_is_told() -> None:
    made = hooks.json_of(plugins, "findings", {"a": torch.ones(2), "b": np.float32(0.5), "c": [(1, None, True)], 4: {}})
    assert made == {"a": [1.0, 1.0], "b": 0.5, "c": [[1, None, True]], "4": {}}
    for found, told in ({"a": {"b": Path()}}, "PosixPath as 'b'; what JSON knows"), ([1], "list; a dict is expected"):
        with pytest.raises(errors.UserCodeFailed, match=rf"\.findings returned {told}"):
            hooks.json_of(plugins, "findings", found)


def test_nothing_of_a_row_is_shown_where_the_configuration_forbids_it() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    problem = SimpleNamespace(findings=lambda outputs: {"worst": [{"row": 1}], "a": 1}, examples=never, gallery=never)
    quiet = SimpleNamespace(config=SimpleNamespace(report=SimpleNamespace(examples=False)))
    shown = training._findings(quiet, problem, None, torch.ones(3))  # type: ignore[arg-type]
    assert shown == ({"a": 1, "worst": None}, {}, [])


def test_a_task_that_brings_no_baseline_is_not_called_better_than_one(register: Register, tmp_path: Path) -> None:
    module = register(plugin("problem.baselines = lambda fit_on: {}"))
    train(run_inputs(class_table(tmp_path / "data"), tmp_path / "out", CONFIG.format(module=module, params="{}")))
    sentence = json.loads((tmp_path / "out" / "report.json").read_text())["verdict"]["sentence"]
    assert sentence.endswith("there is no baseline to compare it with.")
