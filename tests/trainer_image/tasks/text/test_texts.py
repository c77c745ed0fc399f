"""Texts: what is read, the sentence for what cannot be used, and the features of a classifier."""

from __future__ import annotations

import codecs
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.world.training_data import TEXTS, run_inputs, text_records, write_csv, write_jsonl
from trainer_image.data import text_reader
from trainer_image.data.formats import cells
from trainer_image.data.spill import Scratch
from trainer_image.data.text_folders import Fields
from trainer_image.data.text_store import TextKeeper
from trainer_image.engine.training import train, validate_dataset
from trainer_image.errors import DatasetInvalid, LimitExceeded
from trainer_image.limits import Limits
from trainer_image.predict import predict
from trainer_image.tasks.base import Batch, TaskSettings, rows_in, take
from trainer_image.tasks.text import baselines, beginning, features, linear
from trainer_image.tasks.text.network import TextNetwork, TextSizes
from trainer_image.tasks.text.task import TextClassification, TextProblem

ROWS = text_records(30)


def lines(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train.jsonl", lines(*ROWS, {"txt": "a"}), "row 31: has no 'text' (data.text); did you mean 'txt'?"),
        ("train.jsonl", lines(*ROWS, {"text": 3, "label": "sea"}), "row 31: 'text' holds no text"),
        ("train.jsonl", lines({"text": " ", "label": "sea"}), "row 1: 'text' is empty; every row needs"),
        ("train.jsonl", lines({"text": "a"}), "row 1: 'label' (data.target) is empty or missing"),
        ("train.jsonl", lines(*ROWS, {"text": "a", "label": ["b", "c"]}), "row 31: 'label' holds 2 labels; one"),
        ("train.jsonl", lines(*ROWS) + b"{oops\n", "row 31: is no JSON object; one object a line is expected"),
        ("train.jsonl", lines(*ROWS) + b'{"text": "\\ud800", "label": "a"}', "row 31: 'text' holds half of a"),
        ("train.jsonl", lines(*ROWS) + b'{"text": "a", "label": "\\ud800"}', "row 31: 'label' holds half of a"),
        ("train.jsonl", lines(*ROWS) + b'{"text": "\x01\xff"}', "row 31 is not UTF-8 (byte 0xff)"),
        ("train.jsonl", lines(*({**row, "label": "sea"} for row in ROWS)), "'label' has one class only ('sea')"),
        (
            "train.jsonl",
            lines(*ROWS) + b'{"text": "a", "label": 1' + b"0" * 9999 + b"}",
            "row 31: holds a number of thousands of digits; write it in quotes",
        ),
        ("train.csv", b"PK\x03\x04\x14\0", "train.csv: is a zip archive, or a workbook"),
        ("train.jsonl", b"\n", "holds no texts"),
        ("train.csv", b"words,label\na,b\n", "has no column 'text' (data.text); it has words, label"),
        ("train.csv", b"text,labels\na,b\n", "has no column 'label' (data.target); did you mean 'labels'?"),
        ("train.csv.gz", b"not gzip", "cannot be unpacked as gzip"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetInvalid) as caught:
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TEXTS))
    assert caught.value.sentence.startswith(f"Invalid dataset: {name}: ")
    assert told in caught.value.sentence


def test_no_text_at_all_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        DatasetInvalid, match=r"expected train\.jsonl, train\.csv or a folder train/ .* found notes\.txt"
    ):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TEXTS))


def class_folders(root: Path, count: int = 30) -> Path:
    for number, row in enumerate(text_records(count)):
        place = root / str(row["label"]) / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(row["text"]))
    return root


@pytest.mark.parametrize("inside", ["train", "", "reviews/train", "reviews"])
def test_text_files_in_folders_are_of_the_class_that_the_folder_is_named_for(tmp_path: Path, inside: str) -> None:
    class_folders(tmp_path / inside)
    problem = TextClassification().prepare(tmp_path, TaskSettings())
    assert problem.description == "Texts in 2 classes (kitchen, sea); rows: 19 train, 5 validation, 6 test."


def test_folders_as_reviews_are_handed_out_are_read_without_what_nobody_labelled(tmp_path: Path) -> None:
    class_folders(tmp_path / "aclImdb" / "train")
    class_folders(tmp_path / "aclImdb" / "test", 10)
    (tmp_path / "aclImdb" / "README").write_text("what this is")
    (tmp_path / "aclImdb" / "train" / "urls_sea.txt").write_text("an address")
    unlabelled = tmp_path / "aclImdb" / "train" / "unsup"
    unlabelled.mkdir()
    (unlabelled / "0.txt").write_text("perhaps")
    problem = TextClassification().prepare(tmp_path, TaskSettings())
    assert "rows: 24 train, 6 validation, 10 test" in problem.description
    assert "Texts without a label were not used: train/unsup (1 files)." in problem.notes
    rows = problem.predictor.read(tmp_path, Limits())
    assert rows.labelled
    assert len(rows.names) == 10
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.txt").write_text("the old harbour")
    assert list(problem.predictor.read(tmp_path / "new", Limits()).names) == ["a.txt"]


def test_a_text_that_is_null_is_one_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines(*ROWS, {"text": None, "label": "sea"}))
    told = "1 of 31 texts of the train split was left out, the first of them for this: train.jsonl: row 31: 'text' is e"
    assert any(note.startswith(told) for note in TextClassification().prepare(tmp_path, TaskSettings()).notes)


def test_an_empty_file_among_many_is_left_out_and_an_unreadable_one_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "sea" / "x.txt").write_text("  ")
    told = "1 of 31 texts of the train split was left out, the first of them for this: sea/x.txt: 'text' is empty."
    assert told in TextClassification().prepare(tmp_path, TaskSettings()).notes
    (tmp_path / "sea" / "x.txt").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DatasetInvalid, match=r"sea/x\.txt: is a PNG image"):
        TextClassification().prepare(tmp_path, TaskSettings())


@pytest.mark.parametrize(
    ("name", "content"), [("n.csv", ""), ("n.csv", "text\n"), ("n.csv", "text,x"), ("n.jsonl", "\n")]
)
def test_a_table_without_rows_has_no_predictions_and_that_is_said(tmp_path: Path, name: str, content: str) -> None:
    class_folders(tmp_path / "data")
    predictor = TextClassification().prepare(tmp_path / "data", TaskSettings()).predictor
    (tmp_path / name).write_text(content)
    rows = predictor.read(tmp_path / name, Limits())
    assert (list(rows.names), rows.labelled) == ([], False)
    assert rows.notes == [f"{name} has no rows: there is nothing to predict."]
    outputs = predictor.outputs(predictor.build_model(), take(rows.tensors, slice(0, 1)))
    assert outputs.shape == (0, len(predictor.labels))


def test_what_is_asked_about_is_predicted_but_for_files_that_are_no_texts_and_that_is_said(tmp_path: Path) -> None:
    class_folders(tmp_path / "data")
    predictor = TextClassification().prepare(tmp_path / "data", TaskSettings()).predictor
    (tmp_path / "new").mkdir()
    for name, content in {
        "a.txt": b"the sea",
        "b.txt": b"%PDF-1.7 \xe9",
        "c.txt": b"",
        "d.txt": "Küste ".encode("cp1252"),
    }.items():
        (tmp_path / "new" / name).write_bytes(content)
    rows = predictor.read(tmp_path / "new", Limits())
    assert list(rows.names) == ["a.txt", "c.txt", "d.txt"]
    assert [note.split(",")[0] for note in rows.notes] == [
        "d.txt is not UTF-8 and was read as Windows-1252 (Western European); save it as UTF-8 if letters look wrong.",
        "1 of 4 files are no texts and have no prediction",
        "1 of 3 texts are empty",
    ]
    (tmp_path / "new" / "a.txt").unlink()
    write_jsonl(tmp_path / "more.jsonl", [ROWS[0], {"text": "a", "label": "moon"}])
    told = "There are no figures: 1 of 2 texts have a label that the model does not know, 'moon' say."
    assert told in predictor.read(tmp_path / "more.jsonl", Limits()).notes
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        archive.writestr("x/1.txt", "the old harbour")
        archive.writestr("x/2.txt", "yeast")
    assert list(predictor.read(tmp_path / "new.zip", Limits()).names) == ["1.txt", "2.txt"]


def test_a_table_that_labels_a_text_in_two_ways_or_two_texts_by_one_name_is_an_error(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.txt").write_text("the sea")
    write_csv(tmp_path / "labels.csv", ["file", "label"], [["a/1", "sea"], ["b/1", "oven"], ["a/1.txt", "oven"]])
    with pytest.raises(DatasetInvalid, match=r"labels\.csv: labels 'a/1\.txt' as 'sea' and as 'oven'"):
        TextClassification().prepare(tmp_path, TaskSettings())
    write_csv(tmp_path / "labels.csv", ["file", "label"], [["1.txt", "sea"]])
    with pytest.raises(DatasetInvalid, match=r"row 1: several texts are called '1\.txt'; name them with their folder"):
        TextClassification().prepare(tmp_path, TaskSettings())
    write_csv(tmp_path / "labels.csv", ["file", "mood", "author"], [["a/1", "sea", "x"]])
    with pytest.raises(
        DatasetInvalid, match=r"has no column 'label' .*name the column with the classes in data.target"
    ):
        TextClassification().prepare(tmp_path, TaskSettings())


def test_first_weights_promise_on_validation_what_they_keep(tmp_path: Path) -> None:
    """Of texts that say nothing of their labels nothing is sure."""
    random = np.random.default_rng(0)
    letters = [" ".join("".join(random.choice(list("abcdefgh"), 3)) for _ in range(6)) for _ in range(200)]
    write_jsonl(tmp_path / "train.jsonl", [{"text": t, "label": "xy"[random.integers(2)]} for t in letters])
    problem = TextClassification().prepare(tmp_path, TaskSettings())
    assert isinstance(problem, TextProblem)
    model = problem.predictor.build_model()
    problem.begin(model, ["train"])
    asked = take(problem.splits["test"], slice(None))
    with torch.no_grad():
        figures = problem.predictor.score(problem.predictor.outputs(model.eval(), asked), asked)
    assert problem._beginning.certainty < 0.5
    assert figures["log_loss"] < 0.8


def test_a_label_that_only_the_test_has_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "test.jsonl", [ROWS[0], {"text": "a", "label": "moon"}])
    with pytest.raises(DatasetInvalid, match=r"test\.jsonl: row 2: 'label' holds the label 'moon', which no training"):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TEXTS))


def test_a_long_field_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [*ROWS, {"text": "x" * 2000, "label": "sea"}])
    with pytest.raises(LimitExceeded, match=r"train\.jsonl: row 31: 'text' has 2000 bytes; the limit is 1000"):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TEXTS, limits=Limits(field_bytes=1000)))


def test_a_packed_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(b" " * 3_000_000))
    with pytest.raises(LimitExceeded, match=r"unpacks to more than .* \(MAX_DATASET_BYTES\)"):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TEXTS, limits=Limits(dataset_bytes=2_000_000)))


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv", "shards"])
def test_every_form_of_the_same_texts_is_the_same_problem(tmp_path: Path, form: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if form == "csv":
        write_csv(data / "train.csv", ["text", "label"], [[row["text"], row["label"]] for row in ROWS])
    elif form == "shards":
        write_jsonl(data / "train" / "0.jsonl", ROWS[:10])
        write_jsonl(data / "train" / "1.jsonl", ROWS[10:])
    else:
        packed = gzip.compress(lines(*ROWS)) if form.endswith("gz") else lines(*ROWS)
        (data / f"train.{form}").write_bytes(packed)
    problem = TextClassification().prepare(data, TaskSettings())
    assert problem.description == "Texts in 2 classes (kitchen, sea); rows: 19 train, 5 validation, 6 test."


def test_groups_stay_together_and_columns_may_have_other_names(tmp_path: Path) -> None:
    records = [{"body": row["text"], "topic": row["label"], "author": n // 3} for n, row in enumerate(ROWS)]
    write_jsonl(tmp_path / "train.jsonl", records)
    problem = TextClassification().prepare(tmp_path, TaskSettings(text="body", target="topic", group="author"))

    def author(start: bytes) -> object:  # a text of the test may be cut, where the training texts are shorter
        [found] = {row["author"] for row in records if bytes(str(row["body"]), "utf-8").startswith(start)}
        return found

    authors = [
        {author(bytes(t[:n])) for t, n in zip(split["texts"].numpy(), split["lengths"].tolist(), strict=True)}
        for split in (take(split, slice(None)) for split in problem.splits.values())
    ]
    assert not authors[0] & authors[1] | authors[1] & authors[2] | authors[0] & authors[2]


def test_a_group_that_no_file_could_hold_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines(*({**row, "user": "\ud800"} for row in ROWS)))
    with pytest.raises(DatasetInvalid, match="row 1: 'user' holds half of a surrogate pair"):
        TextClassification().prepare(tmp_path, TaskSettings(group="user"))


def test_a_plain_file_is_checked_across_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reader, "BLOCK_BYTES", 5)
    read, broken, cut = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"
    read.write_bytes(codecs.BOM_UTF8 + "größer\nals ein Stück ü".encode())
    keeper = TextKeeper(Scratch())
    text_reader.read_texts([read], tmp_path, Fields(), Limits(), keeper)
    [content] = keeper.texts().contents()
    assert content.tobytes().decode() == "größer\nals ein Stück ü"
    broken.write_bytes("ü\nöö\nä".encode() + b"\xc3\n")
    cut.write_bytes("ü\nä".encode()[:-1])
    for path, row in ((broken, 3), (cut, 2)):
        with pytest.raises(DatasetInvalid, match=rf"row {row} is not UTF-8 \(byte 0xc3\)"):
            text_reader.read_texts([path], tmp_path, Fields(), Limits(), TextKeeper(Scratch()))


def test_a_line_that_no_text_within_the_limit_could_fill_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "BLOCK_BYTES", 1000)
    (tmp_path / "train.jsonl").write_bytes(lines(*ROWS, {"text": "x" * 2000, "label": "sea"}))
    with pytest.raises(LimitExceeded, match=r"train\.jsonl: row 31 is longer than 1600 bytes"):
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", TEXTS, limits=Limits(field_bytes=100)))


def test_a_label_is_the_same_number_however_it_is_written(tmp_path: Path) -> None:
    rows = [{"text": f"word {n}", "label": [0, 1, 1.0, "1"][n % 4]} for n in range(40)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    assert "in 2 classes (0, 1)" in validate_dataset(run_inputs(tmp_path, tmp_path / "out", TEXTS))


def test_rare_labels_and_imbalance_are_said(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{**row, "label": "sea"} for row in text_records(60)] + ROWS[1:8:2] * 2)
    write_jsonl(tmp_path / "test.jsonl", ROWS)
    problem = TextClassification().prepare(tmp_path, TaskSettings())
    assert (problem.headline.name, problem.selection.name) == ("balanced_accuracy", "log_loss")
    assert any("imbalanced" in note for note in problem.notes)
    chosen = TextClassification().prepare(tmp_path, TaskSettings(metric="accuracy"))
    assert not any("imbalanced" in note for note in chosen.notes)
    write_jsonl(tmp_path / "train.jsonl", [*ROWS, {"text": "a moon", "label": "moon"}])
    [warning] = TextClassification().prepare(tmp_path, TaskSettings()).warnings
    assert warning.startswith("Classes of 'label' with one training text only: 'moon'")


def test_of_very_many_texts_evenly_spaced_ones_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "train.jsonl", text_records(400))
    problem = TextClassification().prepare(tmp_path, TaskSettings(preset="fast"))
    whole = problem.splits["train"]

    def weights(most: int, split: Batch) -> torch.Tensor:
        monkeypatch.setattr(beginning, "MOST_COUNTED", most)
        problem.splits = {**problem.splits, "train": split}
        model = problem.predictor.build_model()
        problem.begin(model, ["train"])
        return model.get_buffer("weights")

    some = weights(100, whole)
    assert torch.equal(some, weights(1000, take(whole, slice(None, None, 3))))
    assert not torch.equal(some, weights(1000, whole))


def test_the_baselines_of_many_texts_see_a_sample_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "train.jsonl", text_records(120))
    whole = TextClassification().prepare(tmp_path, TaskSettings(preset="fast"))
    monkeypatch.setattr(baselines, "MOST_BYTES", 1000)
    sampled = TextClassification().prepare(tmp_path, TaskSettings(preset="fast"))
    assert [note for note in sampled.notes if note not in whole.notes] == [
        "The linear baseline is fitted and tested on evenly spaced texts, 1000 bytes of a split at most."
    ]
    seen: list[int] = []
    monkeypatch.setattr(baselines, "_decoded", lambda texts: seen.append(len(texts)) or decoded(texts))
    figures = sampled.baselines(["train"])
    rows = [rows_in(sampled.splits[split]) for split in ("train", "test")]
    assert 0 < seen[0] < rows[0] / 2
    assert 0 < seen[1] <= rows[1]
    assert figures["linear"]["accuracy"] >= 0.5


decoded = baselines._decoded


def test_texts_without_labels_are_predicted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data" / "train.jsonl", text_records(200))
    train(run_inputs(tmp_path / "data", tmp_path / "out", TEXTS))
    write_csv(tmp_path / "new.csv", ["text"], [["old yeast near the oven"], ["sail and anchor"], [""]])
    result = predict(tmp_path / "out", tmp_path / "new.csv", None)
    assert "metrics" not in result
    assert [note.split(",")[0] for note in result["notes"]] == ["1 of 3 texts are empty"]
    assert [(row["row"], row["label"]) for row in result["predictions"]][:2] == [
        ("new.csv, row 2", "kitchen"),
        ("new.csv, row 3", "sea"),
    ]


def buckets(text: bytes, width: int = 64) -> set[int]:
    up, down = features.powers(width)
    padded = torch.tensor([list(text.ljust(width, b"\0"))], dtype=torch.uint8)
    found = features.buckets_of(padded, torch.tensor([len(text)]), up, down, features.word_bytes(), 2**30)
    return set(found.flatten().tolist()) - {-1}


@given(st.binary(max_size=20), st.binary(max_size=20), st.integers(40, 64))
def test_a_feature_is_the_same_wherever_it_stands_and_however_long_the_padding(a: bytes, b: bytes, width: int) -> None:
    assert buckets(a, 40) == buckets(a, width)
    assert buckets(a) - buckets(b"- " + a + b" -") == set()
    assert len(buckets(a) - buckets(b + b" " + a)) == 0


def test_features_are_all_short_ngrams_words_and_pairs_of_them() -> None:
    assert len(buckets(b"ab, cde")) == 7 + 6 + 5 + 4 + 3 + 2 + 1
    assert len(buckets(b"aaaa")) == 4 + 1
    assert buckets(b"old sea") & buckets(b"old  sea!") > buckets(b"old") | buckets(b"sea")


@given(st.lists(st.lists(st.integers(-1, 7), min_size=6, max_size=6), min_size=1, max_size=3))
def test_a_bag_counts_each_bucket_once_and_each_kind_has_its_length(rows: list[list[int]]) -> None:
    index, value = features.bags(torch.tensor(rows), torch.ones(8))
    for given_row, at, weight in zip(rows, index.tolist(), value.tolist(), strict=True):
        counted = [bucket for bucket, w in zip(at, weight, strict=True) if w]
        assert sorted(counted) == sorted({bucket for bucket in given_row if bucket >= 0})
        for kind, length in ((range(6), 1.0), (range(6, 8), features.WORDS_LENGTH)):
            squares = [w * w for bucket, w in zip(at, weight, strict=True) if bucket in kind]
            assert sum(squares) == pytest.approx(length**2 * any(bucket in kind for bucket in given_row), abs=1e-5)


def test_a_text_is_told_the_same_beside_long_texts_as_by_itself() -> None:
    """Texts of a batch are padded together with those of like length: rows must come back where they were."""
    network = TextNetwork(TextSizes(4096, 4096, 0, 0, 0.0), 3)
    torch.nn.init.normal_(network.table.weight)
    random = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 4000, 64, 700, 0, 65, 5, 2000])
    texts = torch.randint(97, 123, (8, 4096), generator=random, dtype=torch.uint8)
    together = network.eval()(texts, lengths)
    alone = torch.cat([network(texts[row : row + 1], lengths[row : row + 1]) for row in range(8)])
    assert torch.allclose(together, alone, atol=1e-5)


def first_weights(
    rows: list[list[float]], targets: list[int], classes: int, groups: list[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(rows, np.float32)
    indices = np.tile(np.arange(values.shape[1]), len(values))
    ends = np.arange(0, values.size + 1, values.shape[1])
    of_group = None if groups is None else np.array(groups)
    return linear.first_weights(values.ravel(), indices, ends, np.array(targets), 8, classes, of_group)


def test_a_feature_that_all_classes_share_alike_says_nothing_and_a_rare_one_of_a_class_speaks_for_it() -> None:
    weight, _ = first_weights([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], [0, 0, 1, 2], 3)
    spread = weight.max(0) - weight.min(0)
    assert spread[0] < spread[1:4].min() / 2
    assert weight[:, 1:4].argmax(0).tolist() == [0, 1, 2]
    assert not weight[:, 4:].any()  # features that no text has


def test_what_one_group_repeats_speaks_less_for_a_class_than_what_many_groups_say() -> None:
    rows = [[1, 0, 0]] * 6 + [[0, 1, 0]] * 6 + [[0, 0, 1]] * 12
    targets = [0] * 12 + [1] * 12
    alone, _ = first_weights(rows, targets, 2)
    assert alone[0, 0] == pytest.approx(alone[0, 1], rel=1e-2)
    # A group may hold texts of several classes: the last of each is in group 0.
    weight, _ = first_weights(rows, targets, 2, [0] * 6 + list(range(1, 7)) + list(range(7, 18)) + [0])
    assert weight[0, 0] < 0.95 * weight[0, 1]
    assert weight[0, 0] > 0 > weight[0, 2]


@pytest.mark.parametrize("known", [[0, 2], [0, 1, 2]])
def test_training_texts_are_told_apart_and_a_class_without_one_is_never_chosen(known: list[int]) -> None:
    rows = [[1.0 if column == label else 0.1 for column in range(8)] for label in known for _ in range(3)]
    targets = [label for label in known for _ in range(3)]
    weight, bias = first_weights(rows, targets, 4)
    logits = np.array(rows) @ weight.T + bias
    assert logits.argmax(1).tolist() == targets
    assert logits[:, 3].max() < logits[:, known].min()


def test_first_weights_of_many_bytes_take_a_share_of_the_time_budget_and_know_every_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [*text_records(200), *({"text": f"a {moon} moon", "label": "moon"} for moon in ("new", "full", "blue"))]
    write_jsonl(tmp_path / "train.jsonl", records)
    monkeypatch.setattr(beginning, "FEW_BYTES", 100)
    fitted: list[int] = []
    first_weights = linear.first_weights

    def counted(
        values: linear.Array, indices: linear.Array, ends: linear.Array, targets: linear.Array, *rest: Any
    ) -> tuple[linear.Array, linear.Array]:
        fitted.append(len(targets))
        return first_weights(values, indices, ends, targets, *rest)

    monkeypatch.setattr(linear, "first_weights", counted)

    def begun(seconds: float) -> TextNetwork:
        problem = TextClassification().prepare(tmp_path, TaskSettings(time_budget=seconds))
        model = problem.predictor.build_model()
        problem.begin(model, ["train"])
        return model

    plenty, none = begun(3600.0), begun(0.0)
    part, whole, alone = fitted
    assert part == alone < whole / 4
    for model in (plenty, none):
        assert model.bias.min() > linear.NEVER
