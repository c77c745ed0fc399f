"""portal_client.progress_text: what the trainer says of its progress, and what the status page reads in it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal_client.progress_text import EpochProgress, parse

COUNTS = st.integers(0, 999_999_999)
STEPS = st.tuples(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1)) | st.just((None, None))
LOSSES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
# What follows is the task's own; the engine's begins with neither of the words that are parts of the sentence.
MORE = st.just("") | st.text(min_size=1, max_size=40).filter(lambda text: not text.startswith(("step ", "loss ")))
PROGRESS = st.builds(
    lambda epoch, epochs, steps, loss, more: EpochProgress(epoch, epochs, *steps, loss, more),
    *(COUNTS, COUNTS, STEPS, LOSSES, MORE),
)


@pytest.mark.parametrize(
    ("progress", "sentence", "done"),
    [
        (
            EpochProgress(7, 20, loss=0.31249, more="validation accuracy 0.91"),
            "Epoch 7 of 20, loss 0.312, validation accuracy 0.91",
            0.35,
        ),
        (EpochProgress(8, 20, 12, 40), "Epoch 8 of 20, step 12 of 40", 0.365),
        (
            EpochProgress(2, 5, loss=0.2084, more="training on all rows"),
            "Epoch 2 of 5, loss 0.208, training on all rows",
            0.4,
        ),
        (EpochProgress(1, 1, loss=float("nan")), "Epoch 1 of 1", 1.0),
        (EpochProgress(3, 2), "Epoch 3 of 2", 1.0),
        (EpochProgress(0, 0, 0, 0), "Epoch 0 of 0, step 0 of 0", 0.0),
    ],
)
def test_progress_is_one_sentence_and_one_share(progress: EpochProgress, sentence: str, done: float) -> None:
    assert str(progress) == sentence
    assert progress.done == pytest.approx(done)


@given(PROGRESS)
def test_what_was_said_is_read_back(progress: EpochProgress) -> None:
    written = None if progress.loss is None else float(f"{progress.loss:.3g}")
    if written is not None and abs(written) == float("inf"):  # rounded beyond the largest float
        written = None
    assert parse(str(progress)) == dataclasses.replace(progress, loss=written)
    assert 0 <= progress.done <= 1


@given(st.text(max_size=80) | st.from_regex(r"Epoch [0-9]{1,30} of .{0,20}"))
def test_any_other_text_is_no_progress_and_no_error(text: str) -> None:
    found = parse(text)
    assert found is None or 0 <= found.done <= 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "Model training started", "Epoch 3/10", "epoch 3 of 10", "Epoch -3 of 10", "Epoch 3 of 10."),
        *("Epoch ٣ of 10", f"Epoch {'9' * 5000} of 10", "Epoch 3 of 10,loss 0.5", " Epoch 3 of 10"),
    ],
)
def test_another_form_has_no_bar(text: str) -> None:
    assert parse(text) is None
