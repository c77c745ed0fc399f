"""The report and the model card say what is so, stay readable for any size, and let nothing of the dataset act."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.trainer_image.report import contents
from tests.trainer_image.report.contents import EVIL
from tests.world.browser import Tab
from tests.world.training_data import IMAGES, TABULAR, image_folder, run_inputs, value_table
from trainer_image import report
from trainer_image.engine.training import train
from trainer_image.report import charts, mistakes, program
from trainer_image.report import pictures as drawing
from trainer_image.report.card import card
from trainer_image.report.html import number, seconds
from trainer_image.report.page import page
from trainer_image.report.pictures import Shots
from trainer_image.report.verdict import verdict
from trainer_image.tasks.base import Example
from trainer_image.tasks.metrics import CLASSIFICATION, REGRESSION

WHOLE = ("verdict", "data", "figures", "curves", "time", "training", "surroundings", "use")
PAGES: dict[str, tuple[Callable[[], tuple[dict[str, Any], dict[int, Shots]]], tuple[str, ...]]] = {
    "table": (
        lambda: (contents.classification(("no", EVIL)), {}),
        ("confusions", "classes", "calibration", "mistakes"),
    ),
    "images": (contents.images, ("confusions", "classes", "calibration", "mistakes")),
    "many classes": (
        lambda: (contents.classification([f"class {k} {contents.LONG}" for k in range(45)], rows=300), {}),
        ("confusions", "classes", "calibration", "mistakes"),
    ),
    "regression": (lambda: (contents.regression(), {}), ("predictions", "residuals", "mistakes")),
    "language model": (lambda: (contents.language(), {}), ("files", "samples", "findings")),
    "custom": (contents.pictured, ("findings", "mistakes", "pictures")),
}


class Parsed(HTMLParser):
    """Tags, ids, sources and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


@pytest.mark.parametrize("name", PAGES)
def test_every_kind_of_report_has_its_sections_and_lets_no_text_of_the_dataset_act(name: str) -> None:
    make, special = PAGES[name]
    content, pictures = make()
    parsed = Parsed(page(content, pictures))
    sections = re.findall(r'<section id="([a-z-]+)"', page(content, pictures))
    assert sections == [*WHOLE[:4], *special, *WHOLE[4:]]
    assert "script" not in parsed.tags
    assert len(parsed.ids) == len(set(parsed.ids))
    assert not [pair for pair in parsed.attributes if pair[0].startswith("on") or pair[0] == "style"]
    assert {value for key, value in parsed.attributes if key == "href"} <= {f"#{anchor}" for anchor in parsed.ids}
    assert all((value or "").startswith("data:image/png;base64,") for key, value in parsed.attributes if key == "src")
    assert EVIL in " ".join(parsed.said), "hostile text is shown as text"


@pytest.mark.parametrize(
    ("own", "kind", "title"),
    [
        (0.9, "good", "Better than its baselines"),
        (0.72, "close", "Better than its baselines, perhaps by chance"),
        (0.6, "bad", "This model does not beat its baselines"),
    ],
)
def test_the_verdict_is_loud_where_the_model_does_not_beat_its_baselines(own: float, kind: str, title: str) -> None:
    content = contents.classification()
    figures, ends = content["metrics"] | {"accuracy": own}, (own - 0.05, own + 0.05)
    judged = verdict(CLASSIFICATION["accuracy"], figures, content["baselines"], ends)
    text = page(content | {"metrics": figures, "verdict": judged}, {})
    assert f'<section id="verdict" class="verdict {kind}"' in text
    assert f">{title}</h2>" in text
    assert f"test accuracy {own:.4g}" in text or f"Test accuracy {own:.4g}" in text


def test_a_figure_that_is_not_defined_on_the_test_rows_is_shown_as_such() -> None:
    content = contents.regression()
    del content["metrics"]["r2"], content["intervals"]["r2"]
    judged = verdict(REGRESSION["r2"], content["metrics"], content["baselines"], None)
    for text in (page(content | {"verdict": judged}, {}), card(content | {"verdict": judged})):
        assert "is not defined" in text
        assert "nan" not in Parsed(text).text.lower().split()
    assert ">not defined<" in page(content | {"verdict": judged}, {})


def test_the_importance_of_columns_is_drawn_and_listed_and_its_names_do_nothing() -> None:
    columns = [
        {"column": EVIL if k == 2 else f"c{k}", "loss": 1 / k, "lowest": 0.9 / k, "highest": 1.1 / k}
        for k in range(1, 40)
    ]
    importance = {"figure": "r2", "whole": 0.8, "rows": 150, "repeats": 5, "columns": columns}
    parsed = Parsed(page(contents.regression(importance=importance), {}))
    assert "script" not in parsed.tags
    assert "importance" in parsed.ids
    assert "The 15 largest of 39." in parsed.text
    assert "By how much R² gets worse" in parsed.text
    assert "importance" not in Parsed(page(contents.regression(), {})).ids


def test_the_report_says_how_probabilities_were_scaled_and_answers_decided() -> None:
    content = contents.classification()
    assert "temperature" not in Parsed(page(content, {})).text
    content["findings"]["calibration"]["temperature"] = 2.5
    content["findings"]["offsets"] = {"no": 0.0, "yes": 1.0986}
    text = Parsed(page(content, {})).text
    assert "scaled by a temperature of 2.5" in text
    assert "'yes' counts 3 times its probability" in text


def test_without_baselines_no_victory_is_claimed() -> None:
    text = page(contents.language(), {})
    assert "There is no baseline to compare with" in text
    assert "linear model" not in text


def test_many_classes_become_lists_of_what_was_mixed_up_and_what_is_weakest() -> None:
    content, _ = PAGES["many classes"][0]()
    text = page(content, {})
    assert 'class="matrix"' not in text
    assert "45 classes are too many for a matrix" in text
    assert "Most frequent confusions" in text
    assert "The 40 classes with the lowest F1 of 45" in text
    assert len(text) < 300_000


def test_a_report_with_the_most_and_largest_pictures_is_below_two_megabytes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    problem = SimpleNamespace(
        examples=lambda rows, outputs: [
            Example(EVIL, pixels=torch.from_numpy(random.integers(0, 255, (3, 512, 512), dtype=np.uint8))) for _ in rows
        ]
    )
    content = contents.classification()
    content["findings"]["worst"] = [{**content["findings"]["worst"][0], "row": row} for row in range(100)]
    pictures = mistakes.named(problem, content["findings"], torch.zeros(100))  # type: ignore[arg-type]
    report.write(tmp_path, content, pictures)
    assert len(pictures) == len(content["findings"]["worst"]) == drawing.MOST_EXAMPLES
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_neither_endless_labels_nor_ten_thousand_remarks_nor_a_plug_in_s_flood_make_the_page_large(
    tmp_path: Path,
) -> None:
    content = contents.classification([f"{k}{'x' * 100_000}" for k in range(12)])
    content["dataset"] |= {"description": "d" * 10**6, "warnings": ["w" * 5000] * 10_000, "notes": ["n"] * 10_000}
    content["config"]["data"]["drop"] = ["column"] * 10_000
    report.write(tmp_path, content)
    assert (tmp_path / "report.html").stat().st_size < 400_000
    assert (tmp_path / "README.md").stat().st_size < 50_000
    assert "And 9,980 more in report.json." in (tmp_path / "report.html").read_text()
    flood: dict[str, Any] = {f"f{k}": [{"x": "y" * 999}] * 999 for k in range(99)} | {f"s{k}": k for k in range(9999)}
    report.write(tmp_path, contents.report(flood, {"score": 0.5}, "score"))
    assert (tmp_path / "report.html").stat().st_size < 500_000


@pytest.mark.parametrize("channels", [1, 3])
def test_a_thumbnail_is_a_png_of_the_very_pixels(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (channels, 20, 30), dtype=np.uint8)
    image = Image.open(io.BytesIO(drawing.thumbnail(pixels)))
    assert (image.format, image.size, image.info) == ("PNG", (30, 20), {})
    assert np.array_equal(np.atleast_3d(np.asarray(image)), pixels.transpose(1, 2, 0))


def test_a_plug_in_whose_examples_fail_or_are_boundless_costs_names_only() -> None:
    def failing(rows: list[int]) -> list[Example]:
        raise KeyError("row")

    def named(findings: dict[str, Any], **hooks: Any) -> Any:
        problem = SimpleNamespace(notes=notes, **hooks)
        return mistakes.named(problem, findings, torch.zeros(3))  # type: ignore[arg-type]

    notes: list[str] = []
    findings: dict[str, Any] = {"worst": [{"row": 1}, {"row": 2}]}
    assert named(findings, examples=failing) == {}
    endless = Example("n" * 9999, {f"c{k}": "x" * 9999 for k in range(99)}, "t" * 9999)
    named(findings, examples=lambda rows: (endless for _ in rows))
    assert len(json.dumps(findings["worst"][0])) < 3000
    assert named({"worst": "none"}, examples=failing) == {}
    [note] = notes
    told = "The report names the worst mistakes by number only: types:SimpleNamespace.examples failed: KeyError: 'row'"
    assert note == told


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (torch.rand(3, 8, 8), "one of float32 (3, 8, 8) was given"),
        (torch.zeros(8, 8, dtype=torch.uint8), "one of uint8 (8, 8) was given"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), "one of uint8 (2, 8, 8) was given"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "one of uint8 (8, 8, 3) was given"),
    ],
)
def test_what_is_no_picture_is_told_with_the_hook_that_gave_it(pixels: torch.Tensor, told: str) -> None:
    notes: list[str] = []
    problem = SimpleNamespace(gallery=lambda model, outputs: [Example("x", pictures={"a": pixels})], notes=notes)
    assert mistakes.gallery(problem, torch.nn.Identity(), None) == []  # type: ignore[arg-type]
    assert notes[0].startswith("The report has no pictures of the task's: types:SimpleNamespace.gallery failed: ")
    assert told in notes[0]


def test_the_outputs_of_the_named_rows_come_with_them_and_their_pictures_stand_side_by_side() -> None:
    def examples(rows: list[int], outputs: dict[str, torch.Tensor]) -> list[Example]:
        return [
            Example(f"row {row}", {"x": "y"}, pictures={"image": shot[None], "<b>": shot[None]})
            for row, shot in zip(rows, outputs["mask"], strict=True)
        ]

    masks = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1).expand(4, 5, 5)
    content = contents.custom()
    content["findings"]["worst"] = [{"row": 3, "overlap": 0.5}, {"row": 1, "overlap": 0.75}]
    problem = SimpleNamespace(examples=examples)
    shots = mistakes.named(problem, content["findings"], {"mask": masks})  # type: ignore[arg-type]
    values = [np.asarray(Image.open(io.BytesIO(shots[row]["image"]))).max() for row in (3, 1)]
    assert values == [3, 1]
    parsed = Parsed(page(content | {"gallery": [{"name": "made", "text": EVIL}]}, shots, [shots[3]]))
    assert [value for key, value in parsed.attributes if key == "alt"] == [
        *("row 3: image", "row 3: <b>", "row 1: image", "row 1: <b>", "made: image", "made: <b>")
    ]
    assert "overlap: 0.5 x: y row 3" in parsed.text
    assert "Pictures As the task drew them." in parsed.text


def test_pictures_beyond_what_a_page_may_hold_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shot = torch.zeros(1, 4, 4, dtype=torch.uint8)
    one = len(drawing.thumbnail(shot))
    monkeypatch.setattr(drawing, "MOST_BYTES", 5 * one)
    notes: list[str] = []
    four = [Example("x", pictures={"a": shot, "b": shot})] * 4
    made = mistakes.gallery(SimpleNamespace(gallery=lambda *_: four, notes=notes), torch.nn.Identity(), None)  # type: ignore[arg-type]
    assert [len(shots) for _, shots in made] == [2, 2, 0, 0]
    assert notes[0].startswith("The report lacks the pictures of 2 of 4 examples: all together may take ")


@pytest.mark.parametrize(
    "findings",
    [
        {"kind": "classification"},
        {"kind": "classification", "per_class": [{"label": "a"}]},
        {"kind": "classification", "calibration": None},
        {"kind": "regression", "points": "all"},
        {},
        {"kind": []},
    ],
)
def test_findings_that_are_not_what_their_kind_promises_are_shown_as_tables(findings: dict[str, Any]) -> None:
    content = contents.report({**findings, "note": "from a plug-in"}, {"score": 0.5}, "score")
    assert "from a plug-in" in page(content, {})
    assert "## Limits" in card(content)


def test_a_figure_that_is_no_number_becomes_null(tmp_path: Path) -> None:
    content = contents.custom()
    content["findings"]["error"] = float("nan")
    content["metrics"]["other"] = float("inf")
    report.write(tmp_path, content)
    assert json.loads((tmp_path / "report.json").read_text())["findings"]["error"] is None


def test_the_parts_of_a_loss_have_curves_and_columns_of_their_own() -> None:
    content = contents.custom()
    for record in content["history"][:12]:
        record["parts"] = {EVIL: 0.5 / record["epoch"], "dice": 0.25 if record["epoch"] > 1 else None}
    text = Parsed(page(content, {})).text
    assert "Training dice By epoch, 2 to 12: training dice from 0.25 to 0.25" in text
    assert "training loss training <script>document" in text


def test_the_curves_mark_the_best_epoch_and_where_a_run_was_resumed() -> None:
    text = Parsed(page(contents.classification(), {})).text
    assert "best epoch 9" in text
    assert "resumed in epoch 5" in text
    assert "(logarithmic)" in text, "a loss that falls from 300 to 2"
    assert "trained afresh on training and validation rows together, for 2 epochs" in text


def test_one_epoch_makes_no_curve() -> None:
    content = contents.classification()
    content["history"] = content["history"][:1]
    assert "Too few epochs for a curve." in page(content, {})


def test_ten_thousand_epochs_are_thinned() -> None:
    content = contents.classification()
    content["history"] = [
        {**content["history"][0], "epoch": epoch, "step": epoch, "loss": 1.0} for epoch in range(1, 10_001)
    ]
    text = page(content, {})
    assert len(text) < 200_000
    assert "every 50th epoch" in text


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
def test_ticks_are_within_the_axis_ascending_and_few(low: float, width: float) -> None:
    found = charts.ticks(low, low + width)
    assert 1 <= len(found) <= 11 or low + width == low
    assert found == sorted(found)
    slack = 1e-6 * width + 1e-9 * abs(low)  # numbers of that size may not lie closer
    assert all(low - slack <= tick <= low + width + slack for tick in found)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.97368, "0.9737"), (1, "1"), (12345, "12,345"), (12345.6, "12,346"), (-0.0015, "−0.0015"), (1e-7, "1e−07"),
        (float("nan"), "–"), (None, "–"), (True, "–"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_people_read_them(value: object, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0001, "1 ms"), (0.25, "250 ms"), (59.9, "59.9 s"), (75, "1 min 15 s"), (7290, "2 h 1 min")]
)
def test_durations_have_the_unit_that_people_would_use(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_long_ticks_move_the_frame_instead_of_meeting_the_axis_name() -> None:
    def left(up: charts.Axis) -> float:
        frame = charts.Chart("t", "s", charts.Axis(0, 1, "epoch"), up).svg()
        return float(re.findall(r'class="axis" d="M(\d+)', frame)[0])

    assert left(charts.Axis(0, 1, "loss")) == 54
    ticks = [charts.tick_label(value) for value in charts.Axis(0.5067, 0.5085, "balanced accuracy").ticks]
    assert max(map(len, ticks)) == 6
    assert left(charts.Axis(0.5067, 0.5085, "balanced accuracy")) >= 54 + 12


def test_figures_have_the_names_that_people_read_everywhere() -> None:
    content = contents.classification()
    content["training"]["selected_by"] = "validation balanced_accuracy"
    content["history"] = [record for record in content["history"] if record["phase"] == "search"]
    content["history"].append({"phase": "refit", "epoch": 1, "step": 121, "seconds": 7.0, "loss": 0.1})
    text = page(content, {})
    assert "validation balanced accuracy" in text
    assert "validation balanced_accuracy" not in text
    assert "together, for 1 epoch; the" in text
    assert "chosen by validation balanced accuracy" in card(content)


def test_the_model_card_has_use_data_intervals_limits_and_fingerprint_and_is_inert() -> None:
    text = card(contents.classification(("no", EVIL)))
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Intended use", "Data", "Figures", "Limits", "Decisions on your behalf", "How to use it"]
    assert "0123456789abcdef" * 4 in text
    assert re.search(r"\| accuracy \| 0\.\d+ \| 0\.\d+ to 0\.\d+ \| 0\.5 \| 0\.7 \|", text)
    assert "<script" not in text
    assert "<img" not in text
    assert "looks like a row number" in text


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        (
            {"verdict": {"level": "bad", "better_than_baselines": False, "beyond_chance": False, "sentence": ""}},
            "does not beat its baselines",
        ),
        (
            {"verdict": {"level": "close", "better_than_baselines": True, "beyond_chance": False, "sentence": ""}},
            "less than the test split",
        ),
        ({"dataset": {**contents.classification()["dataset"], "rows": {"test": 17}}}, "17 rows only"),
    ],
)
def test_the_model_card_warns_of_what_limits_the_model(changes: dict[str, Any], limit: str) -> None:
    assert limit in card(contents.classification(**changes))
    assert limit not in card(contents.classification())


def test_the_model_card_warns_of_unequal_classes_and_of_probabilities_that_cannot_be_believed() -> None:
    content = contents.classification()
    content["findings"]["per_class"][0]["rows"] = 4000
    content["findings"]["calibration"] |= {"expected_calibration_error": 0.3, "error_by_chance": 0.1}
    text = card(content)
    assert "The classes are unequal: 4,000 test rows of no" in text
    assert "probabilities are not calibrated" in text


def test_a_training_names_the_very_rows_that_it_got_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = value_table(tmp_path / "data")
    (data / "test.csv").write_text((data / "train.csv").read_text().replace("\n", "\n\n", 3))
    train(run_inputs(data, tmp_path / "out", TABULAR.replace("epochs: 3", "epochs: 1")))
    worst = json.loads((tmp_path / "out" / "report.json").read_text())["findings"]["worst"]
    lines = (data / "test.csv").read_text().splitlines()
    for entry in worst:
        line = lines[int(entry["example"]["name"].removeprefix("test.csv, row ")) - 1].split(",")
        assert list(entry["example"]["cells"].values()) == line[:3]
        assert entry["true"] == pytest.approx(float(line[3]), rel=1e-6)
    assert entry["example"]["name"] in (tmp_path / "out" / "report.html").read_text()
    assert "shown as tables" not in caplog.text


def test_a_training_shows_the_very_images_that_it_got_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = image_folder(tmp_path / "data", 24)
    (data / "train" / "left").rename(data / "train" / "swap")  # the test's classes are the other way round
    shutil.copytree(data / "train" / "right", data / "test" / "swap")
    shutil.copytree(data / "train" / "swap", data / "test" / "right")
    train(run_inputs(data, tmp_path / "out", IMAGES.replace("epochs: 2", "epochs: 15")))
    worst = json.loads((tmp_path / "out" / "report.json").read_text())["findings"]["worst"]
    assert worst
    text = (tmp_path / "out" / "report.html").read_text()
    shown = dict(re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', text))
    for entry in worst:
        name = entry["example"]["name"]
        assert name.split("/")[1] == entry["true"] != entry["predicted"]
        ours = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[name]))))
        assert np.array_equal(ours, np.asarray(Image.open(data / name)))
    assert "shown as tables" not in caplog.text


def test_the_report_of_a_program_shows_what_it_told_in_the_same_frame() -> None:
    history = b"".join(b'{"step": %d, "loss": %f, "once": 1}\n' % (k, 9 / k) for k in range(1, 5000))
    drawn = program.page(contents.program(), io.BytesIO(history))
    parsed = Parsed(drawn)
    assert "9.5" in parsed.text
    assert EVIL in " ".join(parsed.said)
    assert "script" not in parsed.tags
    assert [value for key, value in parsed.attributes if key == "id" and value in PROGRAM] == list(PROGRAM)
    assert "By step: from 9 to 0.00" in parsed.text
    for told in (
        "3 files, 4.0 KiB.",
        "And 1 smaller ones in MANIFEST.json.",
        "minutes",
        "0.125",
        "epoch 7",
        "lowest 0.5, highest 2 CPUs",
    ):
        assert told in parsed.text
    assert {"CPUs in use", "Memory", "GPUs in use", "Memory of the GPUs"} <= set(
        re.findall(r'aria-label="([^"]*)"', drawn)
    )
    assert len(program.page(contents.program(), io.BytesIO(history))) < 60_000


PROGRAM = ("figures", "curves", "program", "files", "resources", "last-lines", "time", "surroundings")
ODD = (
    b"", b"\n", b"[1]\n", b"{\n", b'{"loss": 1}\n', b'{"step": "x", "loss": 1}\n', b'{"step": 1, "loss": "<b>"}\n',
    b'{"step": 1, "loss": NaN}\n', b'{"step": 1e999, "loss": 1}\n', b'{"step": 1, "loss": 1e300}\n', b"\xff\n",
    b'{"step": 1, "loss": 1' + b"0" * 70_000 + b"}\n", b"[" * 60_000 + b"\n",
)  # fmt: skip


@pytest.mark.parametrize("line", ODD, ids=lambda line: repr(line[:24]))
def test_what_a_program_wrote_into_its_history_by_itself_costs_no_report(line: bytes) -> None:
    good = b'{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n'
    text = program.page(contents.program(), io.BytesIO(good + line + good))
    assert "By step: from 2 to 1," in text


def test_a_program_that_told_nothing_still_has_a_report() -> None:
    content = contents.program() | {"metrics": {}, "headline": None, "resources": {}, "last_lines": []}
    text = program.page(content, io.BytesIO())
    assert "The program reported none (metrics.json)." in text
    assert "Resources over time" not in text
    assert "Last lines" not in text


def test_the_report_of_a_program_needs_no_torch() -> None:
    code = "import sys, trainer_image.report.program; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def shown(open_tab: Callable[..., Tab], tmp_path: Path) -> Callable[..., Tab]:
    """`shown(name, dark=False, width=1280)`: the report of that name in a browser."""

    def open_(name: str, **how: Any) -> Tab:
        content, pictures = PAGES[name][0]()
        path = tmp_path / f"{name.replace(' ', '-')}.html"
        path.write_text(page(content, pictures), encoding="utf-8")
        return open_tab(path.as_uri(), **how)

    return open_


@pytest.mark.parametrize(
    ("name", "how"),
    [("table", {}), ("regression", {}), *((name, {"dark": True, "width": 320}) for name in PAGES)],
    ids=["table, light", "regression, light", *(f"{name}, dark, phone" for name in PAGES)],
)
def test_a_browser_shows_the_report_without_a_complaint_a_request_or_a_riddle(
    shown: Callable[..., Tab], name: str, how: dict[str, Any]
) -> None:
    tab = shown(name, **how)
    tab.page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    assert tab.complaints() == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [tab.page.url]
    assert tab.low_contrast() == []
    assert tab.sticking_out() == []
    assert tab.nameless() == []
    assert tab.page.title().startswith("Training report: ")


def test_pictures_are_drawn_and_the_keyboard_reaches_what_scrolls(shown: Callable[..., Tab]) -> None:
    tab = shown("images", width=320)
    images = tab.page.eval_on_selector_all("img", "all => all.map(i => [i.naturalWidth, i.alt])")
    assert images
    assert all(width == 96 and alt for width, alt in images)
    unreachable = """all => all.filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).map(e => e.outerHTML)"""
    assert tab.page.eval_on_selector_all(".wide", unreachable) == []
    for link in tab.page.locator("nav a").all():
        link.click()
        target = (link.get_attribute("href") or "").removeprefix("#")
        assert tab.page.evaluate("id => document.querySelector(':target').id === id", target)


def test_what_a_report_may_do_is_nothing(open_tab: Callable[..., Tab], tmp_path: Path) -> None:
    """The second line of defence: were a text ever not escaped, the policy still stops it."""
    text = page(contents.custom(), {})
    evil = "<script>document.title='taken'</script><img src='http://127.0.0.1:9/x.png'><p style='color:red'>x</p>"
    (tmp_path / "report.html").write_text(text.replace("<main>", "<main>" + evil), encoding="utf-8")
    tab = open_tab((tmp_path / "report.html").as_uri())
    assert tab.page.title() == "Training report: custom"
    refused = " ".join(tab.complaints())
    assert refused.count("Content Security Policy") >= 3
