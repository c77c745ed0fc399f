"""The runs of a model: listed, named, found without latest.json, and gone back to."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import pytest

from trainer_image.data.rows import known
from trainer_image.errors import ConfigInvalid, Fenced
from trainer_image.storage.container import Container
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer import fetch_model, runs
from trainer_image.transfer.publish import End, Latest, ended, publish, read_latest

FIRST, SECOND, THIRD = (f"20261123t08150{number}-1a2b3c4d" for number in range(3))


def published(container: Container, tmp_path: Path, run_id: str, instead: str | None = None) -> None:
    """One run more, with a figure of its own."""
    folder = tmp_path / secrets.token_hex(4)
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"run_id": run_id}))
    (folder / "model.safetensors").write_bytes(run_id.encode())
    report = {"task": "tabular", "headline": "accuracy", "metrics": {"accuracy": int(run_id[14]) / 8}}
    (folder / "report.json").write_text(json.dumps(report))
    publish(container, folder, run_id, read_latest(container), instead=instead)


def test_all_runs_are_listed_with_what_became_of_them(container: Container, tmp_path: Path) -> None:
    for run_id in (FIRST, SECOND):
        published(container, tmp_path, run_id)
    published(container, tmp_path, THIRD, instead="NOT BETTER")
    container.write("runs/20261123t081509-1a2b3c4d/metrics.live.jsonl", b"{}\n")
    container.write("runs/not a run/MANIFEST.json", b"{}")
    found = {line["run_id"]: line for line in runs.lines(container)}
    assert {run_id: line["state"] for run_id, line in found.items()} == {
        FIRST: "whole", SECOND: "published", THIRD: "held back", "20261123t081509-1a2b3c4d": "not whole"
    }  # fmt: skip
    assert (found[SECOND]["task"], found[SECOND]["figure"]) == ("tabular", "accuracy 0.125")


def test_the_run_that_ended_last_is_listed_first(tmp_path: Path) -> None:
    container = LocalContainer(tmp_path)
    for age, run_id in enumerate((SECOND, FIRST, THIRD)):
        published(container, tmp_path, run_id)
        os.utime(tmp_path / "runs" / run_id / "MANIFEST.json", (1e9 - age,) * 2)
    assert [line["run_id"] for line in runs.lines(container)] == [SECOND, FIRST, THIRD]


def test_a_model_that_is_not_to_be_published_is_stored_and_its_run_has_ended(
    container: Container, tmp_path: Path
) -> None:
    published(container, tmp_path, FIRST)
    published(container, tmp_path, SECOND, instead="NOT BETTER")
    assert read_latest(container).run_id == FIRST
    assert [ended(container, run_id) for run_id in (FIRST, SECOND, THIRD)] == [End(), End("NOT BETTER"), None]


def test_a_run_that_was_published_and_rolled_back_from_has_ended_and_one_that_died_before_has_not(
    tmp_path: Path,
) -> None:
    container = LocalContainer(tmp_path)
    for run_id in (FIRST, SECOND):
        published(container, tmp_path, run_id)
    runs.roll_back(container, FIRST)
    os.utime(tmp_path / "runs" / SECOND / "MANIFEST.json", (1e9, 1e9))
    for after, end in ((1, End(since := f"run {FIRST} has been published since")), (0, End(since)), (-1, None)):
        # As in a storage that tells whole seconds; -1: as it was when the second one's model was not there yet.
        os.utime(tmp_path / "latest.json", (1e9 + after,) * 2)
        assert ended(container, SECOND) == end


def test_an_earlier_run_is_published_again_and_readers_get_it(container: Container, tmp_path: Path) -> None:
    for run_id in (FIRST, SECOND):
        published(container, tmp_path, run_id)
    said = runs.roll_back(container, FIRST)
    assert said == f"Run {FIRST} is published in place of run {SECOND}: {container.name}/runs/{FIRST}"
    folder = fetch_model.fetched(container, tmp_path / "fetched")
    assert (folder / "model.safetensors").read_text() == FIRST
    assert runs.roll_back(container, FIRST) == f"Run {FIRST} is the published one already"


def test_a_rollback_brings_a_lost_latest_json_back(container: Container, tmp_path: Path) -> None:
    published(container, tmp_path, FIRST)
    container.delete("latest.json")
    runs.roll_back(container, FIRST)
    assert read_latest(container).run_id == FIRST


def test_a_rollback_to_what_is_no_whole_run_changes_nothing_and_names_those_there_are(
    container: Container, tmp_path: Path
) -> None:
    for run_id in (FIRST, SECOND):
        published(container, tmp_path, run_id)
    with pytest.raises(ConfigInvalid, match=f"there is no whole run {THIRD}; there are .*{FIRST}"):
        runs.roll_back(container, THIRD)
    with pytest.raises(ConfigInvalid, match=r"there is no whole run \.\./x"):
        runs.roll_back(container, "../x")
    container.delete(f"runs/{FIRST}/model.safetensors")
    with pytest.raises(ConfigInvalid, match=r"is not whole: model\.safetensors is not what"):
        runs.roll_back(container, FIRST)
    assert read_latest(container).run_id == SECOND


def test_a_run_that_publishes_during_a_rollback_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = LocalContainer(tmp_path)
    for run_id in (FIRST, SECOND):
        published(container, tmp_path, run_id)
    whole = runs._incomplete

    def meanwhile(where: Container, run_id: str) -> str | None:
        published(container, tmp_path, THIRD)
        return whole(where, run_id)

    monkeypatch.setattr(runs, "_incomplete", meanwhile)
    with pytest.raises(Fenced, match="another run has published meanwhile"):
        runs.roll_back(container, FIRST)
    assert read_latest(container).run_id == THIRD


@pytest.mark.parametrize("lost", [None, b"{"], ids=["gone", "damaged"])
def test_without_latest_json_the_published_model_is_the_whole_run_that_ended_last_and_that_is_said(
    tmp_path: Path, lost: bytes | None
) -> None:
    container = LocalContainer(tmp_path)
    for age, run_id in enumerate((SECOND, FIRST)):
        published(container, tmp_path, run_id)
        os.utime(tmp_path / "runs" / run_id / "MANIFEST.json", (1e9 - age,) * 2)
    published(container, tmp_path, THIRD, instead="NOT BETTER")
    container.delete("latest.json")
    if lost:
        container.write("latest.json", lost)
    latest = read_latest(container)
    found, said = runs.champion(container, latest, without="run-9")
    assert (found.run_id, found.etag) == (SECOND, latest.etag)
    assert said is not None
    assert "latest.json" in said
    assert f"3 whole runs lie in {tmp_path}: run {SECOND}, which ended last," in said
    folder = fetch_model.fetch_model(container, found, tmp_path / "fetched", only=fetch_model.NEEDED)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert runs.champion(container, latest, without=SECOND)[0].run_id == FIRST, "a run is not its own predecessor"


def test_where_nothing_lies_nothing_is_found(container: Container) -> None:
    assert runs.champion(container, Latest(None), without="run-9") == (Latest(None), None)
    assert list(runs.lines(container)) == []


def test_predictions_are_made_from_a_named_run_and_a_lost_latest_json_is_told_with_the_way_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "model").mkdir()
    container = LocalContainer(tmp_path / "model")
    for run_id in (FIRST, SECOND):
        published(container, tmp_path, run_id)
    assert fetch_model.local_folder(tmp_path / "model", FIRST).name == FIRST
    assert (fetch_model.fetched(container, tmp_path / "fetched", FIRST) / "model.safetensors").read_text() == FIRST
    with pytest.raises(ConfigInvalid, match=f"there is no whole run {THIRD}; there are"):
        fetch_model.local_folder(tmp_path / "model", THIRD)
    container.delete("latest.json")
    for read in (
        lambda: fetch_model.local_folder(container.root),
        lambda: fetch_model.fetched(container, tmp_path / "f"),
    ):
        with pytest.raises(ConfigInvalid, match="ended last: name it with --run, or publish it with rollback --run"):
            read()


def test_what_a_run_knew_of_its_rows_has_one_name() -> None:
    assert fetch_model.ROWS == known.NAME
