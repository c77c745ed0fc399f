"""A published model predicts from wherever it is kept, exactly as it was tested, and what is not it is refused."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from click.testing import CliRunner, Result

from tests.world.training_data import (
    TABULAR,
    class_rows,
    class_table,
    image_folder,
    run_inputs,
    text_rows,
    value_table,
    write_csv,
)
from trainer_image import cli
from trainer_image.engine.training import train
from trainer_image.errors import ConfigInvalid, DatasetInvalid
from trainer_image.predict import inert, predict
from trainer_image.storage import manifest
from trainer_image.storage.container import BlobInfo
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer import fetch_model, publish

RUN = "20261123t081500-1a2b3c4d"
COLUMNS = ["a", "b", "colour", "y"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as it comes out of a training, and `rows.csv` beside it."""
    folder = tmp_path_factory.mktemp("trained")
    train(run_inputs(class_table(folder / "data"), folder / "output"))
    write_csv(folder / "rows.csv", COLUMNS, class_rows(20, seed=1))
    return folder / "output"


@pytest.fixture
def container(trained: Path, tmp_path: Path) -> LocalContainer:
    """A local copy of a model's container, after publication."""
    (tmp_path / "model-1").mkdir()
    there = LocalContainer(tmp_path / "model-1")
    publish.publish(there, trained, RUN, publish.Latest(None))
    return there


pytestmark = pytest.mark.usefixtures("without_worker")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.cli, [str(a) for a in arguments])


AUTO = "task: tabular\ndata: {target: y}\ntrain: {epochs: 4}\n"
# Nothing of it is fitted once more.
TEXTS = "task: text_classification\nmodel: {preset: fast, candidates: [network]}\ntrain: {epochs: 2}\n"


@pytest.mark.parametrize(
    ("make", "config", "name"),
    [
        (class_table, AUTO, "test.csv"),
        (value_table, AUTO, "test.csv"),
        (image_folder, "task: image_classification\ntrain: {epochs: 2}\n", "test"),
        (text_rows, TEXTS, "test.jsonl"),
    ],
    ids=["classes", "values", "images", "texts"],
)
def test_a_model_predicts_its_test_figures_to_the_last_bit_also_after_a_refit(
    tmp_path: Path, make: Callable[[Path, int], Path], config: str, name: str
) -> None:
    data, other = make(tmp_path / "data", 70), make(tmp_path / "other", 52)
    next(other.glob("train*")).rename(data / name)
    result = train(run_inputs(data, tmp_path / "out", config))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    refitted = "text" not in config
    assert (report["training"]["fit_on"] == ["train", "validation"]) is refitted
    moved = (data / name).rename(tmp_path / name) if (data / name).is_file() else data
    predicted = predict(tmp_path / "out", moved, tmp_path / "p.csv")
    assert predicted["metrics"] == dict(result.metrics) == report["metrics"]


def test_a_copy_of_a_container_is_followed_by_latest_and_a_run_s_folder_is_taken_as_it_is(
    container: LocalContainer, trained: Path
) -> None:
    folder = container.root / "runs" / RUN
    assert fetch_model.local_folder(container.root) == folder
    assert fetch_model.local_folder(folder) == folder
    assert fetch_model.local_folder(trained) == trained, "before publication there is no manifest"


def damage(change: str, root: Path) -> None:
    run = root / "runs" / RUN
    match change:
        case "weights":
            (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-1] + b"x")
        case "manifest":
            (run / "MANIFEST.json").write_text((run / "MANIFEST.json").read_text() + " ")
        case "no manifest":
            (run / "MANIFEST.json").unlink()
        case "no weights":
            (run / "model.safetensors").unlink()
        case "no run":
            shutil.rmtree(run)
        case _:
            (root / "latest.json").write_text(change)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("weights", "model.safetensors is not what MANIFEST.json says"),
        ("manifest", "MANIFEST.json is not the one that latest.json names"),
        ("no manifest", "holds no MANIFEST.json, which latest.json names"),
        ("no weights", "lacks model.safetensors"),
        ("no run", "holds no model"),
        ("{}", "latest.json is not readable"),
        ("[", "latest.json is not readable"),
        ('{"run_id": "../../etc", "manifest_sha256": "a"}', "latest.json is not readable"),
    ],
)
def test_a_model_that_is_not_the_published_one_is_refused(container: LocalContainer, change: str, why: str) -> None:
    damage(change, container.root)
    with pytest.raises(ConfigInvalid) as refused:
        fetch_model.local_folder(container.root)
    assert why in refused.value.sentence


@pytest.mark.parametrize("name", ["latest.json", f"runs/{RUN}/MANIFEST.json", f"runs/{RUN}/model.json", f"runs/{RUN}"])
@pytest.mark.parametrize("instead", ["a folder", "a link to itself", "a sparse giant"])
def test_what_is_no_file_of_a_model_is_a_sentence(container: LocalContainer, name: str, instead: str) -> None:
    path = container.root / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if instead == "a folder":
        path.mkdir()
    elif instead == "a link to itself":
        path.symlink_to(path)
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    result = call("predict", "--model", container.root, "--data", container.root)
    assert result.exit_code in (64, 78), result.output
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"], ["../a"], ["a/../../b"], [""], ["a\n"]])
def test_a_manifest_whose_names_lead_elsewhere_or_collide_is_not_followed(tmp_path: Path, names: list[str]) -> None:
    content = b"{}"
    blobs = {name: BlobInfo(name, len(content), "e") for name in names}
    listed = {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name in names}

    class Blobs(LocalContainer):
        def pieces(self, blob: BlobInfo, offset: int, length: int) -> Iterator[bytes]:
            yield content

    wrong = manifest.fetch_all(Blobs(tmp_path / "c"), blobs, listed, tmp_path / "folder")
    assert wrong is not None
    assert wrong.isprintable()
    assert not any((tmp_path / "folder" / "..").glob("a*"))


def test_a_full_disk_on_the_way_is_a_sentence(
    container: LocalContainer, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch_model, "local_folder", full)
    result = call("predict", "--model", container.root, "--data", trained.parent / "rows.csv")
    assert (result.exit_code, "The disk of the training is full" in result.stderr) == (82, True)


def test_a_run_whose_report_was_edited_still_predicts(container: LocalContainer, trained: Path) -> None:
    (container.root / "runs" / RUN / "report.html").write_text("mine")
    assert predict(fetch_model.local_folder(container.root), trained.parent / "rows.csv", None)["rows"] == 20


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    result = call("predict", "--model", tmp_path, "--data", tmp_path)
    assert (result.exit_code, "holds no model" in result.stderr) == (78, True)


@pytest.mark.parametrize(
    ("name", "why"),
    [("no such/folder", "no name of a container"), ("model-1", "set AZURE_STORAGE_CONNECTION_STRING or")],
)
def test_what_is_neither_folder_nor_reachable_container_is_one_sentence(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_URL", raising=False)
    result = call("predict", "--model", name, "--data", tmp_path)
    assert result.exit_code == 64
    assert why in result.stderr
    assert len(result.stderr.splitlines()) == 1


class TestFromAzure:
    @pytest.fixture
    def name(self, azurite: Any, trained: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        from trainer_image.storage.azure import open_container

        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
        name = f"model-{secrets.token_hex(6)}"
        BlobServiceClient.from_connection_string(azurite.connection_string).create_container(name)
        there = open_container(azurite.connection_string, None, name)
        publish.publish(there, trained, RUN, publish.Latest(None))
        return name

    def test_a_container_s_model_predicts_what_its_folder_does(self, name: str, trained: Path, tmp_path: Path) -> None:
        rows = trained.parent / "rows.csv"
        result = call("predict", "--model", name, "--data", rows, "--out", tmp_path / "p.csv")
        assert result.exit_code == 0, result.output
        predict(trained, rows, tmp_path / "expected.csv")
        assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()

    def test_a_container_that_is_not_there_or_empty_or_damaged_is_one_sentence(
        self, name: str, trained: Path, azurite: Any
    ) -> None:
        service = BlobServiceClient.from_connection_string(azurite.connection_string)
        empty = f"model-{secrets.token_hex(6)}"
        service.create_container(empty)
        service.get_blob_client(name, f"runs/{RUN}/model.json").upload_blob(b"{}", overwrite=True)
        for model, why in [
            (f"model-{secrets.token_hex(6)}", "("),
            (empty, "(there is no latest.json: nothing was published)"),
            (name, "(model.json is not what its manifest says)"),
        ]:
            result = call("predict", "--model", model, "--data", trained.parent / "rows.csv")
            assert result.exit_code == 78
            assert result.stderr.startswith(f"error: Failed to read the model in container: {model} {why}")
            assert len(result.stderr.splitlines()) == 1


def test_additional_columns_and_unseen_categories_are_predicted(trained: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "new.csv", ["id", "colour", "b", "a"], [["x7", "mauve", 0.5, 0.5], ["x8", "", -2, -2]])
    predicted = predict(trained, tmp_path / "new.csv", None)
    assert [row["y"] for row in predicted["predictions"]] == ["yes", "no"]
    assert "metrics" not in predicted


def test_missing_columns_are_named(trained: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "new.csv", ["a", "color"], [[0.5, "red"]])
    with pytest.raises(DatasetInvalid, match=r"new\.csv: lacks the columns 'b', 'colour'.*has 'color' instead"):
        predict(trained, tmp_path / "new.csv", None)


def test_additional_columns_may_hold_what_cannot_be_read_and_stand_there_twice(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"tags": ["a"], "colour": "red", "b": 0.5, "a": 0.5, "more": {}}\n')
    (tmp_path / "new.csv").write_text("x,colour,x,b,,a\n1,red,2,0.5,9,0.5\n")
    lines, table = (predict(trained, tmp_path / name, None)["predictions"] for name in ("new.jsonl", "new.csv"))
    assert lines == table


@pytest.mark.parametrize(
    ("name", "content"),
    [("new.csv", ""), ("new.csv", "a,b,colour\n"), ("new.csv", "a,b,colour"), ("new.jsonl", "\n")],
)
def test_a_file_without_rows_gives_a_header_and_says_so(trained: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    result = call("predict", "--model", trained, "--data", tmp_path / name, "--out", tmp_path / "p.csv")
    assert result.exit_code == 0
    assert result.stderr == f"{name} has no rows: there is nothing to predict.\n"
    assert (tmp_path / "p.csv").read_text().splitlines() == ["row,y,p(no),p(yes)"]


def test_columns_that_tell_nothing_are_said(trained: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "new.csv", ["a", "b", "colour"], [["", 1, "mauve"], ["", 2, "ochre"]])
    assert predict(trained, tmp_path / "new.csv", None)["notes"] == [
        "new.csv: the column 'a' is empty: the predictions know nothing of it.",
        "new.csv: the column 'colour' holds no category that training had: the predictions know nothing of it.",
    ]


def test_a_folder_that_only_has_a_test_is_predicted(trained: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "new/test.csv", COLUMNS, class_rows(5, seed=1))
    assert predict(trained, tmp_path / "new", None)["rows"] == 5


def test_a_folder_of_several_tables_is_no_matter_of_training(trained: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / "new" / name, COLUMNS, class_rows(5, seed=1))
    with pytest.raises(DatasetInvalid, match=r"no table to predict found: .* found a\.csv, b\.csv; name one of them"):
        predict(trained, tmp_path / "new", None)


def test_a_file_without_a_header_is_told_so(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("0.5,1.5,red\n0.25,2.5,blue\n")
    with pytest.raises(DatasetInvalid, match="does it lack a header that names the columns"):
        predict(trained, tmp_path / "new.csv", None)


def test_a_label_that_the_model_does_not_know_is_said_and_predicted_all_the_same(trained: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "new.csv", COLUMNS, [[0.5, 0.5, "red", "perhaps"]])
    found = predict(trained, tmp_path / "new.csv", None)
    assert "metrics" not in found
    assert "holds the label 'perhaps', which no training row has" in found["notes"][0]


def test_rows_in_lines_of_json_are_those_of_the_table(trained: Path, tmp_path: Path) -> None:
    rows = trained.parent / "rows.csv"
    assert call("predict", "--model", trained, "--data", rows, "--out", tmp_path / "p.jsonl").exit_code == 0
    predict(trained, rows, tmp_path / "p.csv")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    with (tmp_path / "p.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in line.items()} for line in lines] == table
    assert isinstance(lines[0]["p(yes)"], float)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("-1", "-1"),
        ("+5.0", "+5.0"),
        ("cat", "cat"),
        ("", ""),
        (-0.5, -0.5),
    ],
)
def test_a_label_that_a_spreadsheet_would_run_is_written_as_text(cell: str | float, written: str | float) -> None:
    assert inert(cell) == written


def test_a_hostile_label_is_inert_in_csv_and_itself_in_jsonl(tmp_path: Path) -> None:
    rows = [[*row[:3], "=cmd()" if row[3] == "yes" else "no"] for row in class_rows(60)]
    write_csv(tmp_path / "data" / "train.csv", ["a", "b", "colour", "=y"], rows)
    config = TABULAR.replace("target: y", "target: '=y'").replace("epochs: 3", "epochs: 1")
    train(run_inputs(tmp_path / "data", tmp_path / "out", config))
    write_csv(tmp_path / "new.csv", ["a", "b", "colour"], [[3, 3, "red"]])
    predict(tmp_path / "out", tmp_path / "new.csv", tmp_path / "p.csv")
    predict(tmp_path / "out", tmp_path / "new.csv", tmp_path / "p.jsonl")
    header, line = (tmp_path / "p.csv").read_text().splitlines()
    assert header.startswith("row,'=y,")
    assert line.startswith("1,'=cmd(),")
    assert json.loads((tmp_path / "p.jsonl").read_text())["=y"] == "=cmd()"


def test_an_output_that_cannot_be_written_is_one_sentence(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call(
        "predict", "--model", trained, "--data", trained.parent / "rows.csv", "--out", tmp_path / "file" / "p.csv"
    )
    assert (result.exit_code, "cannot be written" in result.stderr) == (64, True)
