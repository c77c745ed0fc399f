"""The examples of the authors' page: its own commands, killed and resumed; what it quotes is what lies there."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from local_stack.processes import wait_until
from tests.world.pages import blocks
from tests.world.processes import alive, children
from tests.world.repository import ROOT, read
from tests.world.training_data import run_inputs
from trainer_image.cli import cli
from trainer_image.config.model_config import parse_config
from trainer_image.engine.training import train, validate_dataset
from trainer_image.errors import TrainerError
from trainer_image.predict import predict
from trainer_image.tasks.registry import GROUP

pytestmark = pytest.mark.long

AUTHORS = read("docs/trainer-authors.md")
TASK = read("docs/bring-a-task.md")
EXAMPLES = ROOT / "examples"
TRAINER = "python -m trainer_image "


def test_what_the_page_quotes_is_what_lies_in_the_examples() -> None:
    quoted = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", AUTHORS + TASK, re.DOTALL)
    assert len(quoted) == 4
    for name, text in quoted:
        assert text == read(name), f"{name} and its quotation differ"


@pytest.mark.parametrize("name", ["forecasting", "segmentation", "command", "nodes"])
def test_an_example_s_image_is_built_on_ours_and_has_no_other_user(name: str) -> None:
    lines = (EXAMPLES / name / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert set(bases) == {"${BASE_IMAGE}"}
    final = lines[max(n for n, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert not any(line.startswith(("USER", "RUN", "ENTRYPOINT", "CMD")) for line in final)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the examples, where the page's commands are run; no setting of this machine."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "API_", "MODEL_", "STATUS_", "DATASET_", "LAUNCHED_", "RUN_", "WORK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERMINATION_MESSAGE_PATH", str(tmp_path / "last-words"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(line: str) -> Result:
    return CliRunner().invoke(cli, shlex.split(line.removeprefix(TRAINER)))


@pytest.fixture
def own_task(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's own task in a folder, with its data, installed as the page says, but as in the image into `site`."""
    for name, text in re.findall(r"<!-- own: (\S+) -->\n```\w+\n(.*?)```\n", TASK, re.DOTALL):
        (place / name).write_text(text)
    offline = "--no-deps --no-build-isolation --no-index --no-compile --disable-pip-version-check --quiet --target site"
    assert "pip install --no-deps .\n" in TASK
    script = f"{sys.executable} make.py && {sys.executable} -m pip install {offline} ."
    subprocess.run(["bash", "-euc", script], cwd=place, check=True)
    (place / "my_task.py").unlink()  # only what is installed is there
    monkeypatch.syspath_prepend(place / "site")
    monkeypatch.setenv("PYTHONPATH", str(place / "site"))  # as in the image: the worker has it from there
    yield place
    sys.modules.pop("my_task", None)


def test_the_page_s_whole_task_validates_trains_and_predicts(own_task: Path) -> None:
    validate, train, predict = [line for line in TASK.splitlines() if line.startswith(TRAINER) and "throws" in line]
    said = call(validate)
    assert said.exit_code == 0, said.output
    assert "A table of 1000 rows: far, high from 2 columns." in said.stdout
    config = own_task / "config.yaml"
    config.write_text(config.read_text().replace("time_budget: 1m", "time_budget: 1m, epochs: 30"))
    said = call(train)
    assert said.exit_code == 0, said.output
    run, report = published(own_task / "model")
    assert report["verdict"]["better_than_baselines"] is True
    assert report["metrics"]["mae"] < 0.4 * report["baselines"]["mean"]["mae"]
    assert "<h1>Several numbers model</h1>" in (run / "report.html").read_text()
    assert (run / "README.md").read_text().startswith("# Several numbers model\n")
    assert call(predict).exit_code == 0
    with (own_task / "new.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (len(rows), set(rows[0])) == (1000, {"row", "far", "high"})


def registered(place: Path, monkeypatch: pytest.MonkeyPatch, example: str, module: str) -> Path:
    """The example's folder, its package there to be imported, and its task known."""
    task = tomllib.loads((EXAMPLES / example / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    info = place / "site" / "example-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{k} = {v}\n" for k, v in task.items()))
    monkeypatch.syspath_prepend(place / "site")
    monkeypatch.syspath_prepend(EXAMPLES / example)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    return EXAMPLES / example


def trained(config: Path, data: Path, out: Path, epochs: int) -> dict[str, Any]:
    """The report of a training in this process."""
    text = re.sub(r"time_budget: (\w+)", rf"time_budget: \1, epochs: {epochs}", config.read_text())
    train(run_inputs(data, out, text))
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_the_forecaster_beats_its_baselines_and_shows_its_worst_forecasts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = registered(place, monkeypatch, "forecasting", "my_forecaster")
    (place / "demand").mkdir()
    made = subprocess.run([sys.executable, example / "make_data.py"], check=True, capture_output=True)
    (place / "demand" / "demand.csv").write_bytes(made.stdout)
    report = trained(example / "config.yaml", place / "demand", place / "model", 45)
    assert report["dataset"]["description"].endswith("forecasts: 205 train, 43 validation, 43 test.")
    assert report["verdict"]["better_than_baselines"] is True
    assert set(report["baselines"]) == {"seasonal naive", "linear"}
    html = (place / "model" / "report.html").read_text()
    assert "<h1>Forecasting model</h1>" in html
    assert "12 ahead" in html
    worst = report["findings"]["worst"][0]["example"]
    demand = dict(csv.reader((place / "demand" / "demand.csv").open()))
    assert f"after {list(demand)[1 + 306]}" <= worst["name"] <= f"after {list(demand)[1 + 348]}"
    month = list(demand).index(worst["name"].removeprefix("after ")) + 12
    assert worst["cells"]["12 ahead"].endswith(f", came {float(list(demand.values())[month]):.4g}")
    [forecast] = predict(place / "model", place / "demand" / "demand.csv", None)["predictions"]
    assert forecast.pop("row") == "after 2024-12-01"
    assert len(forecast) == 12
    assert all(100 < value < 220 for value in forecast.values())


def test_the_segmenter_shows_what_is_true_beside_what_it_predicts_and_writes_masks(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = registered(place, monkeypatch, "segmentation", "my_segmenter")
    subprocess.run([sys.executable, example / "make_pebbles.py", "pebbles"], check=True)
    for image in place.glob("pebbles/*/*/*"):  # few are enough to see that it works
        if int(image.stem) >= 24:
            image.unlink()
    report = trained(example / "config.yaml", place / "pebbles", place / "model", 2)
    assert set(report["history"][0]["parts"]) == {"cross entropy", "dice"}
    assert report["history"][1]["loss"] == pytest.approx(sum(report["history"][1]["parts"].values()), rel=1e-3)
    html = (place / "model" / "report.html").read_text()
    assert "Training dice" in html
    assert [html.count(f': {caption}" src=') for caption in ("image", "truth", "prediction")] == [8, 8, 8]
    found = predict(place / "model", place / "pebbles", place / "masks.csv")
    assert found["metrics"] == report["metrics"]
    for mask in (place / "masks").iterdir():
        with Image.open(mask) as drawn, Image.open(place / f"pebbles/test/images/{mask.stem}.jpg") as image:
            assert drawn.size == image.size
            assert set(drawn.tobytes()) <= {0, 1, 2}
    assert len((place / "masks.csv").read_text().splitlines()) == 1 + found["files"] == 25
    (place / "pebbles" / "test" / "masks" / "003.png").unlink()
    (place / "pebbles" / "train" / "masks" / "003.png").write_bytes((place / "masks" / "004.png").read_bytes())
    for config, told in {
        "size: 50": "custom.params: size must be a multiple of 8",
        "classes: [sand]": "custom.params: classes must be a list of 2 to 255 names",
        "size: 48": "003.jpg: there is no masks/003.png",
    }.items():
        params = re.sub(rf"{config.partition(':')[0]}: (\[.*?\]|\d+)", config, (example / "config.yaml").read_text())
        with pytest.raises(TrainerError) as refused:
            validate_dataset(run_inputs(place / "pebbles", place / "out", params))
        assert told in refused.value.sentence


@pytest.mark.parametrize(
    ("params", "rows", "code", "told"),
    [
        ("{horizn: 3}", [], 78, "custom.params.horizn: unknown; known are horizon, season, window, time"),
        ("{horizon: 1.5}", [], 78, "custom.params.horizon: input should be a valid integer; it is 1.5"),
        ("{horizon: true}", [], 78, "custom.params.horizon: input should be a valid integer"),
        ("{window: 3}", [], 78, "custom.params: window must not be shorter than season"),
        ("{time: [a]}", [], 78, "custom.params.time: input should be a valid string"),
        ("{}", [["a", "1"]] * 20, 65, "the series has 20 steps; a window of 36 and a horizon of 12 need"),
        ("{}", [["a", "x"]], 65, "series.csv: row 2: 'y' must be a number; it is 'x'"),
        ("{time: day}", [["soon", "1"]], 65, "series.csv: row 2: 'day' must be a date like 2026-01-31; it is 'soon'"),
        ("{time: day}", [["2026-01-02", "1"], ["2026-01-02", "1"]], 65, "row 3: 'day' is not after the row before"),
        ("{time: month}", [["a", "1"]], 65, "series.csv: there is no column 'month'"),
    ],
)  # fmt: skip
def test_mistakes_in_parameters_and_series_are_one_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, params: str, rows: list[list[str]], code: int, told: str
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "forecasting")
    from my_forecaster.task import Forecasting

    from trainer_image.tasks.base import TaskSettings

    config = parse_config(f"task: custom\ncustom: {{entry_point: a:B, params: {params}}}".encode())
    with (place / "series.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["day", "y"], *rows])
    with pytest.raises(TrainerError) as refused:
        Forecasting().prepare(place, TaskSettings(target="y", params=config.custom.params))
    assert refused.value.exit_code == code
    assert told in refused.value.sentence


def test_no_step_of_the_backtest_s_future_is_seen_in_training(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "forecasting")
    from my_forecaster.task import Forecasting

    from trainer_image.tasks.base import TaskSettings

    (place / "series.csv").write_text("y\n" + "\n".join(str(step) for step in range(400)))
    splits = Forecasting().prepare(place, TaskSettings(target="y")).splits
    steps = {name: set(split["target"].flatten().int().tolist()) for name, split in splits.items()}
    assert max(steps["train"]) < min(steps["validation"])
    assert max(steps["validation"]) < min(steps["test"])
    assert set.union(*steps.values()) == set(range(36, 400)), "every step but those of the first window is a target"
    assert max(splits["train"]["past"].flatten().tolist()) < min(steps["validation"])
    for split in splits.values():
        assert (split["past"][:, -1] + 1 == split["target"][:, 0]).all()


@pytest.fixture
def shop(place: Path) -> Path:
    """The command's example with the dataset that the page makes; gives its folder."""
    folder = place / "examples" / "command"
    subprocess.run([sys.executable, "make_shop.py", "shop"], cwd=folder, check=True)
    return folder


def published(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The published run's folder and its report."""
    run = json.loads((folder / "latest.json").read_text())["run_id"]
    return folder / "runs" / run, json.loads((folder / "runs" / run / "report.json").read_text())


def test_the_walk_through_of_the_program_trains(shop: Path) -> None:
    [line] = [block for block in blocks(AUTHORS, "bash") if block.startswith("cd examples/command")]
    shutil.rmtree(shop / "shop")  # the page's own words make it
    allowed = re.search(r'^ENV ALLOW_COMMAND="(.*)"$', (EXAMPLES / "command" / "Dockerfile").read_text(), re.MULTILINE)
    assert allowed
    assert f'ALLOW_COMMAND="{allowed[1]}"' in line
    done = subprocess.run(["bash", "-euc", line], cwd=shop.parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run, report = published(shop / "model")
    assert report["metrics"]["accuracy"] > 0.8
    assert (run / "weights.json").exists()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 100
    refused = subprocess.run(
        ["bash", "-euc", re.sub(r'ALLOW_COMMAND="[^"]*" ', "", line)],
        cwd=shop.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 78
    assert "task: command is switched off here" in refused.stderr


def test_the_page_s_way_to_bring_a_script_is_one(place: Path) -> None:
    [block] = [block for block in blocks(read("docs/bring-a-script.md"), "bash") if "make_flowers" in block]
    done = subprocess.run(["bash", "-euc", block], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is in the image; validating does not run it." in done.stdout
    run, report = published(place / "examples" / "scripts" / "model")
    assert report["files"]["largest"][0]["name"] == "model.pkl"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 5
    assert set(report["printed"]) == {"loss", "accuracy"}
    assert "Epoch 5/5 - loss: " in (run / "report.html").read_text()


def start(shop: Path, out: str, *arguments: str) -> subprocess.Popen[str]:
    """The trainer with the example's program, which saves after each epoch; the trainer stores every second."""
    argv = ["python3", "train.py", "--target", "bought", "--epochs", "250", *arguments]
    config = {"task": "command", "checkpoint": {"every": "1s"}, "command": {"argv": argv}}
    (shop / "small.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "trainer_image", "train", "--data", "shop", "--config", "small.yaml"]
    return subprocess.Popen(
        [*command, "--out", out],
        cwd=shop,
        env={**os.environ, "ALLOW_COMMAND": "python3 train.py", "GRACE_SECONDS": "20"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_program_that_is_killed_and_one_that_is_stopped_go_on_to_the_same_weights(shop: Path) -> None:
    # Long enough that it has not come to its end when a busy machine has let us read its first line.
    slowly = ("--pause", "0.05")
    killed = start(shop, "model", *slowly)
    try:
        wait_until(lambda: list((shop / "model").glob("checkpoints/*/step-*/MANIFEST.json")), timeout=120)
        programs = children(killed.pid)
        assert programs
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        wait_until(lambda: not any(map(alive, programs)), what="the end of the program whose trainer was killed")
    finally:
        killed.kill()
    stopped = start(shop, "model", *slowly)
    assert stopped.stdout is not None
    log = []
    for line in stopped.stdout:
        log.append(line)
        if "Epoch " in line:
            stopped.send_signal(signal.SIGTERM)
            break
    rest, _ = stopped.communicate(timeout=120)
    assert any("going on after epoch" in line for line in log), log
    assert stopped.returncode == 143, rest
    assert "the program ended, its checkpoint is stored" in rest
    assert json.loads((shop.parent.parent / "last-words").read_text())["code"] == "Terminated"
    resumed = start(shop, "model", *slowly)
    rest, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, rest
    run, report = published(shop / "model")
    assert report["training"]["resumed_from_step"] > 0
    undisturbed = start(shop, "other")
    rest, _ = undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0, rest
    assert (run / "weights.json").read_text() == (published(shop / "other")[0] / "weights.json").read_text()
    assert not (shop / "model" / "checkpoints").exists(), "the model is published"


def test_a_dataset_that_the_program_refuses_is_the_dataset_s_fault(shop: Path) -> None:
    (shop / "shop" / "train.csv").write_text("visits,minutes,bought\n1,x,0\n")
    refused = start(shop, "model")
    said, _ = refused.communicate(timeout=120)
    assert refused.returncode == 65
    assert "ended with exit code 65 (DatasetInvalid): train.csv cannot be trained on: ValueError" in said
