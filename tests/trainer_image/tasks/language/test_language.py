"""A language model's data and figures: every byte is judged once, by what stands before it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.world.training_data import LANGUAGE, class_table, documents, run_inputs, write_jsonl
from trainer_image import cli
from trainer_image.engine.training import train, validate_dataset
from trainer_image.errors import DatasetInvalid
from trainer_image.predict import _rows, predict
from trainer_image.tasks.base import Batch, TaskSettings, rows_in, take
from trainer_image.tasks.language import ngrams, presets, task, windows
from trainer_image.tasks.language.generate import _Text, in_characters
from trainer_image.tasks.language.network import LanguageNetwork, LanguageSizes
from trainer_image.tasks.language.task import LanguageModel, LanguagePredictor, by_document, scored
from trainer_image.tasks.language.windows import MARK, find_matches, scoring_windows, stream, training_windows

SIZES = LanguageSizes(
    context=8, width=16, depth=1, heads=2, orders=(2, 3), buckets=64, hashed=4, matches=(1, 3), dropout=0.0
)
SOME = st.lists(st.binary(max_size=40).map(lambda b: bytes(x % 3 + 97 for x in b)), min_size=1, max_size=5)


def whole(split: Batch) -> dict[str, torch.Tensor]:
    """All rows of the split as one batch."""
    return take(split, slice(None))


@given(SOME)
def test_a_match_is_what_followed_the_last_earlier_occurrence(texts: list[bytes]) -> None:
    tokens, starts = stream(texts)
    found = find_matches(tokens, starts, (1, 3))
    for start, text in zip(starts.tolist(), texts, strict=True):
        for position in range(len(text) + 1):
            for column, order in enumerate((1, 3)):
                context = text[position - order : position] if position >= order else None
                earlier = text.rfind(context, 0, position - 1) if context else -1
                expected = text[earlier + order] if earlier >= 0 else MARK
                assert found[start + position, column] == expected


@given(SOME)
def test_matches_are_found_block_by_block(texts: list[bytes]) -> None:
    """As in one go for documents of up to a block; in longer ones the nearest block before is seen at least."""
    block = 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "BLOCK", block)
        split = training_windows(texts, 8, (1, 3))
    tokens, starts = stream(texts)
    at_once = find_matches(tokens, starts, (1, 3))
    assert split.sources["tokens"].source.tolist() == tokens.tolist()
    found = split.sources["matches"].source.numpy()
    for start, text in zip(starts.tolist(), texts, strict=True):
        for position in range(len(text) + 1):
            for column, order in enumerate((1, 3)):
                ours, theirs = found[start + position, column], at_once[start + position, column]
                if len(text) < block:
                    assert ours == theirs
                else:
                    context = text[position - order : position] if position >= order else None
                    near = text.rfind(context, max(0, position - block), position - 1) if context else -1
                    assert ours == theirs if near >= 0 else ours in (theirs, MARK)


@given(SOME)
def test_training_windows_hold_every_token_once_in_order(texts: list[bytes]) -> None:
    batch = whole(training_windows(texts, 8, (1,)))
    tokens, _ = stream(texts)
    assert batch["tokens"][:, 1:][scored(batch)].tolist() == tokens[1:].tolist()
    assert batch["tokens"][:, :-1][scored(batch)].tolist() == tokens[:-1].tolist()


@given(SOME)
def test_scoring_windows_score_every_byte_once_with_half_a_window_before_it(texts: list[bytes]) -> None:
    batch = whole(scoring_windows(texts, 8, (1,)))
    counted = scored(batch)
    assert batch["tokens"][:, 1:][counted].tolist() == list(b"".join(texts))
    for number, text in enumerate(texts):
        rows = (batch["document"] == number).nonzero().flatten().tolist()
        assert (len(rows) == 0) == (text == b"")
        for place, row in enumerate(rows):
            first = int(batch["scored"][row, 0])
            assert first == (4 if place else 0)


@given(SOME.filter(any), st.integers(0, 40))
def test_what_is_written_sees_what_scoring_sees(texts: list[bytes], cut: int) -> None:
    text = next(text for text in texts if text)
    growing = _Text(SIZES, text[: cut % len(text)])
    for byte in text[cut % len(text) : -1]:
        growing.add(byte)
    tokens, matches = growing.window(8)
    batch = whole(scoring_windows([text], 8, SIZES.matches))
    if len(text) <= 8:
        size = len(text)
        assert tokens[:size] == batch["tokens"][0, :size].tolist()
        assert matches[:size] == batch["matches"][0, :size].tolist()
    assert growing.last == min(len(text), 8) - 1


def test_windows_of_one_document_are_rows_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a long document " * 9)
    rows = _rows(LanguagePredictor(SIZES, "text"), tmp_path / "long.txt")
    assert len(rows.names) == 1 < rows_in(rows.tensors)


def test_a_prediction_does_not_depend_on_what_follows() -> None:
    torch.manual_seed(0)
    model = LanguageNetwork(SIZES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(0, 256, (1, 8))
    matches = torch.randint(0, 257, (1, 8, 2))
    before = model(tokens, matches)
    tokens[0, 5:], matches[0, 5:] = 7, 9
    after = model(tokens, matches)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_figures_are_means_over_bytes_and_files() -> None:
    torch.manual_seed(0)
    predictor = LanguagePredictor(SIZES, "text")
    model = predictor.build_model()
    batch = whole(scoring_windows([b"x" * 20, b"yz"], 8, SIZES.matches))
    outputs = predictor.outputs(model, batch).detach()
    figures = predictor.score(outputs, batch)
    # Fresh weights know nothing: all 257 tokens are as likely, but for what copying adds.
    assert figures["bits_per_byte"] == pytest.approx(math.log2(257), rel=0.05)
    assert figures["perplexity"] == pytest.approx(2 ** figures["bits_per_byte"])
    counts = by_document(outputs)
    assert [count for count, _ in counts] == [20, 2]
    assert sum(c * b for c, b in counts) / 22 == pytest.approx(figures["bits_per_byte"])


@given(SOME, st.binary(min_size=1, max_size=3))
def test_the_ngram_models_chances_add_up_to_one(texts: list[bytes], context: bytes) -> None:
    seen = stream(texts)[0].astype(np.int64)
    everything = np.arange(257)
    chance, guess = np.full(257, 1 / 257), np.zeros(257, np.int64)
    packed = sum(byte << (9 * back) for back, byte in enumerate(reversed(context)))
    for order in range(len(context) + 1):
        asked = np.full(257, packed & ((1 << 9 * order) - 1))
        chance, guess = ngrams._refined(ngrams._contexts(seen, order), seen[1:], asked, everything, chance, guess)
        assert chance.sum() == pytest.approx(1)


def test_baselines_of_a_large_text_are_counted_on_evenly_spaced_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [bytes([97 + number]) * 10 for number in range(20)]
    monkeypatch.setattr(ngrams, "MOST_BYTES", 200)
    assert ngrams.sample(texts) == texts
    monkeypatch.setattr(ngrams, "MOST_BYTES", 60)
    assert ngrams.sample(texts) == texts[::4]
    assert ngrams.sample([b"x" * 100]) == [b"x" * 60]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train.txt", b"too short", "train.txt: 9 bytes of training text are too few for a language model"),
        ("train.txt", b"line\n" * 2000 + b"\xe9t\xc3\xa9", "train.txt: row 2001 is not UTF-8 (byte 0xe9)"),
        ("train.jsonl", b'{"body": "a"}\n', "train.jsonl: row 1: has no 'text' (data.text); it has body"),
        ("train.txt", b"", "train.txt: holds no text"),
        ("train.txt", b"%PDF-1.7\n%\xe2\xe3", "train.txt: is a PDF, not a text; save its text as a text file"),
        ("train.txt", b"\x89PNG\r\n\x1a\n", "train.txt: is a PNG image, not a text; leave it out"),
        (
            "train.txt",
            b"PK\x03\x04\x14\0",
            "train.txt: is a zip archive, or a workbook or document of",
        ),
        ("train.txt", "Küste ".encode("utf-16")[:-1], "train.txt: begins as UTF-16 and is none (truncated data)"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetInvalid) as caught:
        validate_dataset(run_inputs(tmp_path, tmp_path / "out", LANGUAGE))
    assert told in caught.value.sentence


def test_one_long_file_is_cut_so_that_a_part_can_be_held_out(tmp_path: Path) -> None:
    content = "".join(f"line {number}\n" for number in range(5000)).encode()
    (tmp_path / "train.txt").write_bytes(content)
    problem = LanguageModel().prepare(tmp_path, TaskSettings())
    assert any("1 document is few: it was cut into" in note for note in problem.notes)
    held = sum(int(scored(whole(problem.splits[split])).sum()) for split in ("validation", "test"))
    assert 0.2 < held / len(content) < 0.4


def test_a_text_without_a_line_end_is_cut_between_characters(tmp_path: Path) -> None:
    content = "größer " * 2000
    (tmp_path / "train.txt").write_text(content, encoding="utf-8")
    problem = task.LanguageProblem(tmp_path, TaskSettings())
    pieces = [text.tobytes() for texts in problem._documents.values() for text in texts.contents()]
    assert sum(len(piece.decode()) for piece in pieces) == len(content)
    assert len(pieces) >= 20


def test_sizes_to_choose_from_see_the_same_windows(tmp_path: Path) -> None:
    problem = LanguageModel().prepare(documents(tmp_path), TaskSettings())
    before = problem.recipe, problem.predictor.build_model().state_dict().keys()
    names = [size.name for size in problem.sizes()]
    assert names == ["tiny", "small"]
    batch = take(problem.splits["train"], slice(2))
    widths = []
    for name in names:
        problem.resize(name)
        model = problem.predictor.build_model()
        assert math.isfinite(float(problem.loss(model, batch).detach()))
        assert problem.model_description()["architecture"]["depth"] == len(model.get_submodule("blocks"))
        widths.append(sum(parameter.numel() for parameter in model.parameters()))
    assert widths[0] < widths[1]
    assert (problem.recipe, problem.predictor.build_model().state_dict().keys()) == before
    assert LanguageModel().prepare(tmp_path, TaskSettings(preset="fast")).sizes() == []


@pytest.mark.parametrize("size", [5_000, 350_000, 5_000_000, 10**8, 10**9, 10**11])
def test_larger_texts_are_offered_larger_networks_that_want_fewer_passes(size: int) -> None:
    offered = presets.networks("auto", size)
    assert [network.size.enough for network in offered] == sorted(network.size.enough for network in offered)
    assert len({(network.sizes.context, network.sizes.matches) for network in offered}) == 1
    assert len(offered) >= len(presets.networks("auto", size // 10))
    assert presets.usual(offered).size.recipe.batch_size * offered[0].sizes.context <= max(size, 1024)
    for name in ("fast", "best"):
        assert len(presets.networks(name, size)) == 1


def test_json_lines_are_documents_with_groups(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"story": "once upon " * 30, "who": n // 5} for n in range(40)])
    problem = LanguageModel().prepare(tmp_path, TaskSettings(text="story", group="who"))
    assert problem.description.startswith("Text for a byte-level language model; documents: 30 train")


def test_the_report_has_files_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "SAMPLE_BYTES", 10)
    data, other = documents(tmp_path / "data"), documents(tmp_path / "other", 4)
    (other / "train").rename(data / "test")
    train(run_inputs(data, tmp_path / "out", LANGUAGE))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["findings"]["files"]) == 4
    assert all(sample["prompt"] and sample["text"] for sample in report["findings"]["samples"])
    assert report["baselines"]["n-gram"]["bits_per_byte"] < report["baselines"]["trivial"]["bits_per_byte"]
    assert predict(tmp_path / "out", data, tmp_path / "rows.csv")["metrics"] == report["metrics"], "to the last bit"
    (tmp_path / "new.txt").write_text("the old harbour near the sail")
    [row] = predict(tmp_path / "out", tmp_path / "new.txt", None)["predictions"]
    assert row["row"] == "new.txt"
    assert row["bytes"] == 29
    assert 0 < row["bits_per_byte"] < 9


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A published model that knows nothing, but not evenly so."""
    torch.manual_seed(0)
    model = LanguagePredictor(SIZES, "text").build_model()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    description = {"architecture": asdict(SIZES), "text": "text"}
    content = {"format": 1, "task": "language_model", "model": description}
    (folder / "model.json").write_text(json.dumps(content))
    return folder


def written(model: Path, *more: str, given: bytes = b"", code: int = 0) -> str:
    done = CliRunner().invoke(cli.cli, ["predict", "--model", str(model), *more], input=given)
    assert done.exit_code == code, done.output
    return str(done.stdout if code == 0 else done.stderr)


def test_a_prompt_is_continued_the_same_with_the_same_seed(untrained: Path, request: pytest.FixtureRequest) -> None:
    prompt = ["--prompt", "Brötchen, ", "--length", "30"]
    text = written(untrained, *prompt)
    request.getfixturevalue("without_worker")  # once through a worker is enough
    assert text.startswith("Brötchen, ")
    assert len(text) > len("Brötchen, \n")
    assert text == written(untrained, *prompt, "--seed", "0", "--temperature", "0.7")
    assert text != written(untrained, *prompt, "--seed", "1")
    assert text != written(untrained, *prompt, "--temperature", "30")
    stdin = ["--prompt", "-", "--length", "30"]
    assert text == written(untrained, *stdin, given="Brötchen, \n".encode())
    likeliest = [written(untrained, *prompt, "--temperature", "0", "--seed", seed) for seed in "01"]
    assert likeliest[0] == likeliest[1]
    assert likeliest[0] == written(untrained, *prompt, "--temperature", "0.00000001")


@pytest.mark.usefixtures("without_worker")
@pytest.mark.parametrize("prompt", ["", "a", "ab", "abcde", "abcdefg", "abcdefgh", "\0", "ö"])
def test_a_prompt_shorter_than_any_context_is_continued(untrained: Path, prompt: str) -> None:
    longer = replace(SIZES, matches=(1, 5, 16), orders=(2, 8))
    save_file(dict(LanguagePredictor(longer, "text").build_model().state_dict()), untrained / "model.safetensors")
    content = json.loads((untrained / "model.json").read_text())
    content["model"]["architecture"] = asdict(longer)
    (untrained / "model.json").write_text(json.dumps(content))
    assert written(untrained, "--prompt", "-", "--length", "20", given=prompt.encode()).startswith(prompt)


@pytest.mark.usefixtures("without_worker")
def test_what_cannot_be_continued_is_a_sentence(untrained: Path, tmp_path: Path) -> None:
    assert "takes either --data or --prompt" in written(untrained, code=64)
    assert "takes either --data or --prompt" in written(untrained, "--prompt", "a", "--data", str(tmp_path), code=64)
    assert "--seed does not go with --data" in written(untrained, "--data", str(tmp_path), "--seed", "1", code=64)
    assert "--out does not go with --prompt" in written(untrained, "--prompt", "a", "--out", "b.csv", code=64)
    assert "The prompt is not UTF-8" in written(untrained, "--prompt", "a\udcff", code=64)
    assert "stdin is not UTF-8" in written(untrained, "--prompt", "-", given=b"\xff", code=64)
    assert "longer than 1048576 bytes" in written(untrained, "--prompt", "-", given=b"a" * 2**20 + b"b", code=64)
    train(run_inputs(class_table(tmp_path / "table"), tmp_path / "out"))
    said = written(tmp_path / "out", "--prompt", "a", code=64)
    assert "is of task tabular, which writes no text: --prompt is for models of task language_model" in said


def test_a_text_that_would_steer_a_terminal_or_ends_within_a_character_is_shown_in_characters() -> None:
    assert in_characters("a\r\nb\x1b[2J\tö".encode()) == "a\nb\ufffd[2J\tö"
    assert in_characters("größ".encode()[:-1]) == "grö"
    assert in_characters(b"a\xffb") == "a\ufffdb"
