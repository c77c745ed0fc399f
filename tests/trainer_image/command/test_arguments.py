"""Names in the arguments: what is filled in, what stays, and what can only be a slip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer_image.command.programs import PYTHON, inputs_for
from trainer_image import command, errors
from trainer_image.command import arguments

GIVEN = {"DATASET_DIR": "/pod/data", "OUTPUT_DIR": "/pod/out", "NNODES": "2"}

WORDS = {
    "{DATASET_DIR}": "/pod/data",
    "--data={DATASET_DIR}/train": "--data=/pod/data/train",
    "{DATASET_DIR}:{OUTPUT_DIR}": "/pod/data:/pod/out",
    "--nnodes={NNODES}": "--nnodes=2",
    "{LATEST_MODEL_DIR}": "",
    "${DATASET_DIR}": "${DATASET_DIR}",
    "{{DATASET_DIR}}": "{{DATASET_DIR}}",
    "$DATASET_DIR": "$DATASET_DIR",
    '{"lr": 1}': '{"lr": 1}',
    "{print $NF}": "{print $NF}",
    "{NF}": "{NF}",
    "{dataset_dir}": "{dataset_dir}",
    "{PATH_}": "{PATH_}",
    "{": "{",
}


@pytest.mark.parametrize("word", WORDS)
def test_only_the_names_that_a_program_is_given_are_filled_in(word: str) -> None:
    arguments.check(["train", word])
    assert arguments.filled(["train", word], GIVEN) == ["train", WORDS[word]]


def test_what_runs_is_not_filled_in() -> None:
    assert arguments.filled(["{DATASET_DIR}/own", "x"], GIVEN) == ["{DATASET_DIR}/own", "x"]


@pytest.mark.parametrize("word", ["{DATA_DIR}", "--out={OUT_DIR}/x", "{DATASET}", "{LOG_FILE}"])
def test_a_path_that_there_is_none_of_is_told_before_the_dataset_is_fetched(tmp_path: Path, word: str) -> None:
    inputs = inputs_for(tmp_path, "train", word)
    with pytest.raises(
        errors.ConfigInvalid, match=r"command\.argv\.1: \{\w+\} stands for nothing; known are \{DATASET"
    ):
        command.check_config(inputs.config, inputs.limits)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ["python3", "trian.py"],
            "command.argv.1: there is no file trian.py in this image, seen from the working directory",
        ),
        (["/usr/bin/sh", "nowhere/run.sh", "x"], "there is no file nowhere/run.sh"),
        (["torchrun", "trian.py"], "there is no file trian.py"),
        (["python3", "here.py"], None),
        (["python3", "-m", "theirs.train"], None),
        (["python3", "{DATASET_DIR}/train.py"], None),
        (["my-program", "predict"], None),
        (["python3"], None),
    ],
)
def test_a_script_that_is_not_there_is_told_before_the_dataset_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], told: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.py").touch()
    if told is None:
        arguments.check(argv)
        return
    with pytest.raises(errors.ConfigInvalid) as refused:
        arguments.check(argv)
    assert told in refused.value.sentence


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ["torchrun", "--nnodes", "$NNODES"],
            "command.argv.2 is $NNODES as it stands, since no shell reads it: {NNODES}",
        ),
        (["python", "x.py", "--data=${DATASET_DIR}"], "command.argv.2 is --data=${DATASET_DIR} as it stands"),
        (["python", "x.py", "$(OUTPUT_DIR)"], "{OUTPUT_DIR} would be filled in"),
        (["sh", "-c", "torchrun --nnodes $NNODES"], None),
        (["python", "x.py", "$HOME"], None),
    ],
)
def test_a_dollar_that_no_shell_reads_is_remarked_on(tmp_path: Path, argv: list[str], told: str | None) -> None:
    assert [told in remark for remark in arguments.remarks(argv) if told] == [True] * (told is not None)
    assert (told or "is in the image") in command.validate_dataset(inputs_for(tmp_path, *argv))


def test_the_same_arguments_name_the_nodes_on_one_node_too(tmp_path: Path) -> None:
    code = "import json, os, sys; json.dump(sys.argv[1:], open(sys.argv[1] + '/argv', 'w'))"
    words = ["{OUTPUT_DIR}", "{NNODES}", "{NODE_RANK}", "{MASTER_ADDR}:{MASTER_PORT}", "{NPROC_PER_NODE}"]
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, *words)
    inputs.output.mkdir(parents=True)
    command.train(inputs)
    told = json.loads((inputs.output / "argv").read_text())
    assert told == [str(inputs.output), "1", "0", "127.0.0.1:29500", "1"]
    report = json.loads((inputs.output / "report.json").read_text())
    assert report["training"]["program"][3:] == words, "as it was written, not a path of this pod"
