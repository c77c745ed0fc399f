"""What n-grams copy: the longest passage is found, chances stay chances, and models of before still load."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.world.training_data import documents
from trainer_image.tasks.base import TaskSettings, take
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.language import copying
from trainer_image.tasks.language.candidates import NgramCandidate, build
from trainer_image.tasks.language.copying import LENGTHS, Copying, Passages, before, known, state, words
from trainer_image.tasks.language.task import LanguageProblem
from trainer_image.tasks.language.windows import MARK, stream

FEW = st.lists(st.binary(max_size=60).map(lambda b: bytes(x % 3 + 97 for x in b)), min_size=1, max_size=5)
SOUGHT = (2, 4, 8)


def filled(texts: list[bytes]) -> Passages:
    tokens, _ = stream(texts)
    made = Passages(len(tokens))
    made.fill(tokens)
    return made


def contexts(text: bytes) -> Tensor:
    return before(words(torch.tensor([[MARK, *text]])))[0]


def alike(left: bytes, right: bytes) -> int:
    """How many bytes their ends share, 32 at most."""
    shared = 0
    while shared < min(32, len(left), len(right)) and left[-shared - 1] == right[-shared - 1]:
        shared += 1
    return shared


@given(FEW, st.binary(max_size=60).map(lambda b: bytes(x % 3 + 97 for x in b)))
def test_the_longest_passage_that_ends_as_a_context_does_is_found_wherever_it_stands(
    train: list[bytes], asked: bytes
) -> None:
    tokens = stream(train)[0].tolist()
    if len(tokens) < 2:
        return
    token, length = filled(train).find(contexts(asked))
    text = bytes(each & 255 for each in tokens)
    for at in range(len(asked) + 1):
        here = b"\0" + asked[:at]
        longest = max(alike(text[:end], here) for end in range(1, len(text)))
        # Nothing stands before a text, and zeros before a window: both may be longer than what was compared here.
        assert length[at] >= longest
        if length[at] == longest and longest:
            ends = [end for end in range(1, len(text)) if alike(text[:end], here) == longest]
            assert int(token[at]) in {tokens[end] for end in ends}


def test_a_passage_of_the_training_text_is_copied_to_its_end() -> None:
    random = np.random.default_rng(0)
    text = bytes(random.integers(32, 127, 3000).astype(np.uint8))
    made = filled([text[:1000], text[1000:2000], text[2000:]])
    token, length = made.find(contexts(text[1200:1300]))
    assert bytes(token[8:100].tolist()) == text[1208:1300]
    assert length[40:].eq(32).all()


def fit(folder: Path) -> tuple[LanguageProblem, NgramCandidate, Copying, dict[str, object]]:
    problem = LanguageProblem(documents(folder, 40), TaskSettings(preset="fast"))
    [candidate] = problem.candidates()
    assert isinstance(candidate, NgramCandidate)
    fitted = candidate.fit(["train"], Allowance(60, 1, 0, threading.Event(), lambda: None), None)
    assert fitted is not None
    model, chosen = fitted
    assert isinstance(model, Copying)
    return problem, candidate, model, chosen


def test_copying_predicts_better_than_the_ngrams_alone_and_its_chances_add_up_to_one(tmp_path: Path) -> None:
    problem, _, model, _ = fit(tmp_path)
    test = take(problem.splits["test"], slice(None))
    bits = [
        problem.predictor.score(problem.predictor.outputs(each, test), test)["bits_per_byte"]
        for each in (model, model.ngrams)
    ]
    assert bits[0] < bits[1]
    tokens = test["tokens"][:, :-1].long()
    logs = model(tokens, test["matches"].long(), torch.arange(tokens.numel()))
    assert torch.allclose(logs.exp().sum(-1), torch.ones(()), atol=1e-4)


@pytest.mark.parametrize("again", [False, True])
def test_validation_documents_that_repeat_training_text_make_passages_worth_their_memory(again: bool) -> None:
    random = np.random.default_rng(1)
    said = [bytes(random.integers(97, 123, 200).astype(np.uint8)) for _ in range(30)]
    other = [bytes(random.integers(97, 123, 200).astype(np.uint8)) for _ in range(5)]
    candidate = NgramCandidate({"train": said, "validation": said[3:8] if again else other}, SOUGHT)
    fitted = candidate.fit(["train"], Allowance(60, 1, 0, threading.Event(), lambda: None), None)
    assert fitted is not None
    assert (fitted[1]["passages"] > 0) is again
    assert ("word for word" in candidate.note) is again  # whoever shares the model has to know
    assert len(fitted[1]["shares"]) == len(known(len(SOUGHT), again))


def test_a_fit_with_what_was_chosen_keeps_the_shares_and_sees_the_passages_of_more_text(tmp_path: Path) -> None:
    _, candidate, _, chosen = fit(tmp_path)
    fitted = candidate.fit(["train", "validation"], Allowance(60, 1, 0, threading.Event(), lambda: None), chosen)
    assert fitted is not None
    assert fitted[1]["shares"] == chosen["shares"]
    assert (fitted[1]["passages"] > chosen["passages"]) == (chosen["passages"] > 0)  # type: ignore[operator]


def test_what_is_possible_in_a_state_is_what_its_number_says() -> None:
    """A share of what is not there would be lost: chances would no longer add up to one."""
    random = torch.Generator().manual_seed(0)
    count = torch.randint(0, len(SOUGHT) + 1, (500,), generator=random)
    matches = torch.where(torch.arange(len(SOUGHT)) < count[:, None], 97, MARK)
    length = torch.randint(0, 33, (500,), generator=random)
    possible = torch.from_numpy(known(len(SOUGHT), True))[state(matches, length)]
    assert possible[:, 0].all()
    assert torch.equal(possible[:, 1:-1], matches != MARK)
    assert torch.equal(possible[:, -1], length >= LENGTHS[0])
    assert torch.equal(torch.from_numpy(known(len(SOUGHT), False))[state(matches, None)], possible[:, :-1])


def test_a_model_from_before_there_were_shares_predicts_as_it_did(tmp_path: Path) -> None:
    problem, _, model, chosen = fit(tmp_path)
    old = build({"shapes": chosen["shapes"]}, len(problem.predictor.sizes.sought))
    old.load_state_dict(model.ngrams.state_dict())
    test = take(problem.splits["test"], slice(None))
    outputs = [problem.predictor.outputs(each, test) for each in (old, model.ngrams)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": [[1.0, 0.0]]},
        {"shares": [[float("nan")] * 5] * 32},
        {"shares": "all"},
        {"passages": -1},
        {"passages": 1},
        {"passages": 2**40},
        {"passages": None},
    ],
    ids=["shape", "nan", "text", "negative", "one", "huge", "none"],
)
def test_a_stranger_s_description_is_refused(wrong: dict[str, object]) -> None:
    right = {"shapes": [[1, 1]], "shares": [[0.2] * 5] * 32, "passages": 5}
    build(right, 3)
    with pytest.raises(ValueError, match=r"its shares|input should be"):
        build({**right, **wrong}, 3)


@pytest.mark.parametrize(("name", "value"), [("places", 4), ("places", -1), ("text", 999), ("text", -1)])
def test_a_stranger_s_passages_that_point_beyond_their_text_are_refused(name: str, value: int) -> None:
    made = filled([b"abc"])
    tensors = {**made.state_dict(), name: torch.full_like(made.state_dict()[name], value)}
    with pytest.raises(ValueError, match="beyond their text"):
        made.load_state_dict(tensors)


def test_shares_of_a_state_that_was_never_seen_are_the_ngrams_alone() -> None:
    shares, _ = copying._shares(np.array([[0.5, 1.0]] * 20), np.ones(20, int), known(1, False))
    assert shares[0].tolist() == [1.0, 0.0]
    assert shares[1][1] > 0.5
