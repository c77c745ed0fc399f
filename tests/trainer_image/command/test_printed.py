"""Progress that is read from what programs print, by lines that the libraries themselves have printed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal_client import progress_text
from tests.trainer_image.command.programs import LEAVE, PYTHON, inputs_for
from trainer_image import command
from trainer_image.command.course import Course
from trainer_image.command.printed import Reading
from trainer_image.command.process import plain_line
from trainer_image.contract import Progress

LINES: dict[str, Reading | None] = {
    "Epoch 2/5 - loss: 0.31 - val_loss: 0.4": Reading(2, 5, figures={"loss": 0.31, "val_loss": 0.4}),
    "Epoch 2/5": Reading(2, 5),
    "Epoch 3": Reading(3),
    "100/100 - 5s - 20ms/step - accuracy: 0.91 - loss: 0.31": Reading(
        step=100, steps=100, figures={"accuracy": 0.91, "loss": 0.31}
    ),
    "45/100 [=====>....] - ETA: 3s - loss: 0.31": Reading(step=45, steps=100, figures={"loss": 0.31}, bar=True),
    " 33%|███▎      | 500/1500 [00:10<00:20, 48it/s]": Reading(step=500, steps=1500, bar=True, counted_through=True),
    "Epochs:  20%|██        | 1/5 [00:01<00:04,  1.01s/it, loss=0.5]": Reading(1, 5, figures={"loss": 0.5}, bar=True),
    "{'eval_loss': 0.61, 'eval_runtime': 0.01, 'epoch': 1.0}": Reading(1.0, figures={"eval_loss": 0.61}),
    '{"step": 3, "loss": 0.4}': Reading(step=3, figures={"loss": 0.4}),
    "10:\tlearn: 0.5\ttest: 0.4\tbest: 0.4 (10)\ttotal: 1s\tremaining: 2s": Reading(
        step=10, figures={"learn": 0.5, "test": 0.4}
    ),
    "step=100 loss=0.3": Reading(step=100, figures={"loss": 0.3}),
    "step 250: train loss 2.0, val loss 2.1": Reading(step=250, figures={"train loss": 2.0, "val loss": 2.1}),
    "iter 100: loss 2.34, time 23.4ms, mfu 12%": Reading(step=100, figures={"loss": 2.34}),
    "Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.3": Reading(1, None, 640, 60000, {"Loss": 2.3}),
    "Epoch [2/5], Step [100/600], Loss: 0.2345": Reading(2, 5, 100, 600, {"Loss": 0.2345}),
    "Epoch: [0][  10/5005]\tTime  0.5 ( 1.0)\tLoss 6.9e+00 (7.0e+00)\tAcc@1   0.50 (  0.10)": Reading(
        0, None, 10, 5005, {"Loss": 6.9, "Acc@1": 0.5}
    ),
    "[1,  2000] loss: 2.204": Reading(1, None, 2000, None, {"loss": 2.204}),
    "loss: 2.303494  [   64/60000]": Reading(None, None, 64, 60000, {"loss": 2.303494}),
    "Test set: Average loss: 0.05, Accuracy: 9800/10000 (98%)": Reading(figures={"Average loss": 0.05}),
    "2026-01-01 12:00:00,123 INFO trainer: epoch=1 step=20 loss=0.3": Reading(1, None, 20, None, {"loss": 0.3}),
    "Episode 10/500, reward: 12.5": Reading(None, None, 10, 500, {"reward": 12.5}),
    "[Epoch 2][Batch 3/10] D loss: 0.5 G loss: 0.7": Reading(2, None, 3, 10, {"D loss": 0.5, "G loss": 0.7}),
    "Epoch: 1/10..  Training Loss: 0.512..  Test Loss: 0.433..": Reading(
        1, 10, figures={"Training Loss": 0.512, "Test Loss": 0.433}
    ),
    "INFO:root:epoch 1 loss 0.5": Reading(1, figures={"loss": 0.5}),
    "Epoch 3 | Batch 100/938 | Loss 0.31": Reading(3, None, 100, 938, {"Loss": 0.31}),
    "[rank0]: Epoch 1 loss 0.5": Reading(1, figures={"loss": 0.5}),
    "[rank1]: Epoch 1 loss 0.5": None,
    "Epoch 3/5: loss=tensor([0.5], device='cuda:0') val_loss=nan": Reading(3, 5, figures={"loss": 0.5}),
    "Epoch 2/5 loss: nan": Reading(2, 5),
    "Epoch 12,000/50,000 loss 1,234.5": Reading(12000, 50000, figures={"loss": 1234.5}),
    "Cost after iteration 100: 0.64": Reading(step=100, figures={"Cost": 0.64}),
    "Loss at epoch 3: 0.5": Reading(3, figures={"Loss": 0.5}),
    "Best loss 0.5 at epoch 3": Reading(figures={"Best loss": 0.5}),
    "Train: 2 [  50/1251 (  4%)]  Loss: 6.9 (6.9)  LR: 1.0e-05": Reading(2, None, 50, 1251, {"Loss": 6.9, "LR": 1e-05}),
    "Test:  [ 0/79]  eta: 0:00:10  loss: 0.9 (0.9)": Reading(figures={"Test loss": 0.9}),
    "epoch 3: {'accuracy': 0.8}": Reading(3, figures={"accuracy": 0.8}),
    "iteration      100/  500000 | lm loss: 1.012E+01 |": Reading(None, None, 100, 500000, {"lm loss": 10.12}),
    "12:00:00.123 | INFO     | __main__:train:12 - Epoch 3/10 train_loss=0.5": Reading(
        3, 10, figures={"train_loss": 0.5}
    ),
    "I1129 12:00:00.123456 140 train.py:150] epoch: 1, loss: 0.2": Reading(1, figures={"loss": 0.2}),
    "Batches:  50%|█████     | 1.50k/3.00k [00:01<00:01, 1.5kit/s, loss=0.5]": Reading(
        step=1500, steps=3000, figures={"loss": 0.5}, bar=True, counted_through=True
    ),
    "│         test_acc          │    0.9123     │": Reading(figures={"test_acc": 0.9123}),
    "  eval_loss               =     0.3123": Reading(figures={"eval_loss": 0.3123}),
    "|    total_timesteps | 2048     |": Reading(step=2048),
    "|    total_timesteps | 1e999    |": None,
    "|    total_timesteps | -5       |": None,
    "Epoch 0, global step 100: 'val_loss' reached 0.3, saving model to '/x/epoch=0-step=100.ckpt'": None,
    "[LightGBM] [Info] [binary:BoostFromScore]: pavg=0.62 -> initscore=0.5": None,
    "[1,0]<stdout>:Epoch 2/5 loss: 0.3": Reading(2, 5, figures={"loss": 0.3}),
    "[1,1]<stdout>:Epoch 2/5 loss: 0.3": None,
    "[GPU0] Epoch 2 | Batchsize: 32 | loss 0.3": Reading(2, figures={"loss": 0.3}),
    "[Rank 1] step 3 loss 0.4": None,
    "worker-1: Epoch 2/5 loss: 0.3": None,
    "(RayTrainWorker pid=123, ip=10.0.0.1) Epoch 2/5 loss: 0.3": Reading(2, 5, figures={"loss": 0.3}),
    "Epochs 3/5 loss 0.3": Reading(3, 5, figures={"loss": 0.3}),
    "Ep. 3 loss 0.3": Reading(3, figures={"loss": 0.3}),
    "Downloading: 45%|████▌     | 45/100 [00:01<00:01, 40.2it/s]": None,
    "epochs: 10": None,
    "batch_size = 32": None,
    "INFO: loading 300 rows from train.csv": None,
    "the loss of 3 rows": None,
    "Error: 3 files": None,
    "loss: nan": None,
    "epoch 1 loss 1e999": None,
    "{'a': 1}": None,
    "": None,
}


def read(line: str) -> Reading | None:
    """What the line says by itself."""
    return Course().read(line)


@pytest.mark.parametrize("line", LINES)
def test_a_line_says_where_the_training_is_and_its_figures(line: str) -> None:
    assert read(line) == LINES[line]


@settings(max_examples=60)
@given(st.text(max_size=300) | st.lists(st.sampled_from([*"".join(LINES), *LINES]), max_size=30).map("".join))
def test_no_line_breaks_the_reading(line: str) -> None:
    reading = read(line)
    course = Course()
    if reading is not None:
        course.go_on(reading)
        assert str(course)
        assert course.step >= 0


HOSTILE = ("a ", "a=", "1/", "%|", "{'", "Epoch ", "9", "[", "━1/1 ", "a.b 1")


@pytest.mark.parametrize("line", HOSTILE)
def test_a_line_that_is_made_to_be_slow_takes_milliseconds(line: str) -> None:
    began = time.process_time()
    read(line * 1000)
    read("step=1 " + line * 1000 + "}")
    assert time.process_time() - began < 0.1


RECORDED = Path(__file__).parent / "recorded"
# What the library of that name has printed into a pipe → what a person is told at its end, the step, how many lines
# have figures at least.
LIBRARIES = {
    "keras": ("Epoch 2 of 2, step 3 of 3, loss 0.689, accuracy 0.6042, val_accuracy 0.75, val_loss 0.6583", 12, 6),
    "lightning": ("Epoch 2, step 4 of 4, loss 3.19, val_loss 2.04", 8, 8),
    "lightning_rich": ("Epoch 2 of 2, step 4 of 4, loss 1.35, val_loss 1.523", 8, 2),
    "transformers": (
        "Epoch 2 of 2, step 6 of 6, loss 0.692, eval_loss 0.6927, train_loss 0.6922, grad_norm 0.3989",
        12,
        7,
    ),
    "tqdm": ("Epoch 2 of 2, step 30 of 30, loss 0.0167", 60, 60),
    "xgboost": ("Step 5, train-logloss 0.2647, validation-logloss 0.6", 5, 4),
    "lightgbm": ("Step 6, valid_0's binary_logloss 0.4954", 6, 3),
    "sklearn": ("Step 4, loss 0.927", 4, 4),
}


def told(name: str) -> tuple[list[str], int, list[dict[str, Any]]]:
    course, said, figures = Course(), [], []
    text = (RECORDED / f"{name}.txt").read_bytes().decode()
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        reading = course.read(plain_line(line).rstrip())
        if reading is not None:
            course.go_on(reading)
            said.append(str(course))
            if reading.figures:
                figures.append({"step": course.step, **reading.figures})
    return said, course.step, figures


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_a_library_printed_is_read_to_its_end(name: str) -> None:
    said, step, figures = told(name)
    last, steps, lines = LIBRARIES[name]
    assert (said[-1], step) == (last, steps)
    assert len(figures) >= lines
    assert [record["step"] for record in figures] == sorted(record["step"] for record in figures)
    if last.startswith("Epoch ") and " of " in last.partition(",")[0]:
        assert progress_text.parse(last) is not None, "the status page has a bar for it"


TABLES = {
    "epoch     train_loss  valid_loss  accuracy  time    \n0         0.71        0.61        0.70      00:05\n"
    "1         0.51        nan         0.80      00:05": (
        "Epoch 2, loss 0.51, valid_loss 0.61, accuracy 0.8",
        {"train_loss": 0.51, "accuracy": 0.8},
    ),
    "      Iter       Train Loss   Remaining Time \n         1           0.6123            1.20s\n"
    "         2           0.5123            1.10s": ("Step 2, Train Loss 0.5123", {"Train Loss": 0.5123}),
    "E    #       LOSS NER  ENTS_F  SCORE \n---  ------  --------  ------  ------\n"
    "  0     200      50.00   40.1   0.40": (
        "Epoch 1, LOSS NER 50, SCORE 0.4, ENTS_F 40.1",
        {"LOSS NER": 50.0, "ENTS_F": 40.1, "SCORE": 0.4},
    ),
    "      Epoch    GPU_mem   box_loss       Size\n"
    "        1/3      2.31G      1.204        640: 100%|███| 8/8 [00:03<00:00]": (
        "Epoch 1 of 3, box_loss 1.204",
        {"box_loss": 1.204},
    ),
    "epoch,loss\n1,0.5": ("Epoch 1, loss 0.5", {"loss": 0.5}),
}


@pytest.mark.parametrize("before", ["", "[rank0]: ", "[1,0]<stdout>:", "(train pid=123) "])
@pytest.mark.parametrize("text", TABLES)
def test_rows_below_a_header_are_figures_of_an_epoch_or_a_step(text: str, before: str) -> None:
    course, last = Course(), None
    for line in text.splitlines():
        if (reading := course.read(before + line)) is not None:
            course.go_on(last := reading)
    assert last is not None
    assert (str(course), last.figures) == TABLES[text]


def test_a_bar_that_counts_whole_epochs_ends_with_the_last_one() -> None:
    course = Course()
    for done in range(4):
        reading = read(f"Epochs: {33 * done}%|###| {done}/3 [00:01<00:01,  1.01s/it]")
        assert reading is not None
        course.go_on(reading)
    assert (str(course), course.step) == ("Epoch 3 of 3", 3)


def test_what_a_program_prints_is_progress_until_it_writes_to_its_file(tmp_path: Path) -> None:
    code = LEAVE + (
        "import sys\n"
        "print('Epoch 1/3 - loss: 0.5'); print('Epoch 2/3 - loss: 0.25')\n"
        "sys.stdout.write('Epoch 3/3:  50%|█████     | 1/2 [00:01<00:01, 1it/s, loss=0.2]\\r')\n"
        "sys.stdout.write('Epoch 3/3: 100%|██████████| 2/2 [00:02<00:00, 1it/s, loss=0.1]\\n')\n"
    )
    said: list[Progress] = []
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, said=said)
    inputs.output.mkdir(parents=True)
    command.train(inputs)
    assert said[-1].message == "Epoch 3 of 3, step 2 of 2, loss 0.1"
    kept = [json.loads(line) for line in (inputs.output / "metrics.jsonl").read_text().splitlines()]
    assert [record["loss"] for record in kept] == [0.5, 0.25, 0.1], "not each state of a bar"
    assert json.loads((inputs.output / "report.json").read_text())["last_lines"][-1].startswith("Epoch 3/3: 100%")
    writes = "open(os.environ['PROGRESS_FILE'], 'a').write('of my own\\n')\n"
    inputs = inputs_for(tmp_path, PYTHON, "-c", LEAVE + writes + "print('Epoch 1/3 - loss: 0.5')", said=said)
    inputs.output.mkdir(parents=True)
    command.train(inputs)
    assert said[-1].message == "of my own"
    assert not (inputs.output / "metrics.jsonl").exists()
