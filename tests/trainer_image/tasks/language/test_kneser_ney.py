"""The n-gram candidate of language models: its chances are chances, in windows as in whole texts, alone and mixed."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.world.training_data import documents
from trainer_image.tasks.base import TaskSettings, take
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.language import kneser_ney
from trainer_image.tasks.language.candidates import Mixture
from trainer_image.tasks.language.kneser_ney import KneserNey, OrderTable
from trainer_image.tasks.language.task import LanguageProblem, scored
from trainer_image.tasks.language.windows import MARK, scoring_windows

SOME = st.lists(st.binary(max_size=40).map(lambda b: bytes(x % 3 + 97 for x in b)), min_size=1, max_size=5)
CONTEXT = 16


def tables(orders: list[kneser_ney.Order]) -> KneserNey:
    model = KneserNey([(len(order.contexts), len(order.following)) for order in orders])
    for table, order in zip(model.orders, orders, strict=True):
        assert isinstance(table, OrderTable)
        table.fill(order)
    return model


@given(SOME, SOME, st.integers(0, 5), st.booleans(), st.sampled_from([3, 4096]))
def test_chances_add_up_to_one_and_are_the_same_in_windows_as_in_whole_texts(
    train: list[bytes], asked: list[bytes], most: int, few: bool, portion: int
) -> None:
    orders = kneser_ney.counted(train, None, most, lambda: True)
    assert len(orders) == most + 1
    if few:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kneser_ney, "MOST_CONTEXTS", 8)
            orders = kneser_ney.pruned(orders)
        assert all(len(order.contexts) for order in orders)
    following, chance = kneser_ney.chances(orders, asked)
    windows = scoring_windows(asked, CONTEXT, ())
    if not any(asked):
        return
    batch = take(windows, slice(None))
    places = scored(batch).flatten().nonzero().flatten()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kneser_ney, "PORTION", portion)
        logs = tables(orders)(batch["tokens"][:, :-1].long(), places)
    assert torch.allclose(logs.exp().sum(-1), torch.ones(()), atol=1e-5)
    found = logs.gather(-1, batch["tokens"][:, 1:].flatten()[places].long()[:, None])[:, 0]
    assert np.allclose(found.exp().numpy(), chance[following != MARK], atol=1e-5)


def test_a_longer_context_has_to_be_worth_its_memory() -> None:
    random = np.random.default_rng(0)
    noise = [bytes(random.integers(97, 101, 400).astype(np.uint8)) for _ in range(20)]
    assert len(kneser_ney.counted(noise[:15], noise[15:], 8, lambda: True)) == 1
    rhymes = [b"".join([b"the cat ", b"the dog "][b & 1] + b"ran " for b in text) for text in noise]
    assert 3 <= len(kneser_ney.counted(rhymes[:15], rhymes[15:], 8, lambda: True)) <= 8


def test_what_rarely_follows_is_told_by_how_many_bytes_it_follows() -> None:
    """After an unseen byte, x has stood behind three bytes and y, as often, behind one: x is likelier."""
    train = [b"axbxcx" + b"dydydy"] * 3
    orders = kneser_ney.counted(train, None, 1, lambda: True)
    [logs] = tables(orders)(torch.tensor([[ord("z")]]), torch.tensor([0]))
    assert logs[ord("x")] > logs[ord("y")] + 0.5


def allowance(seconds: float = 60.0, stopped: bool = False) -> Allowance:
    stop = threading.Event()
    if stopped:
        stop.set()
    return Allowance(seconds, 1, 0, stop, lambda: None)


def problem(folder: Path) -> LanguageProblem:
    return LanguageProblem(documents(folder, 40), TaskSettings(preset="fast"))


def test_the_ngrams_are_loaded_as_they_were_counted_and_choose_their_order_once(tmp_path: Path) -> None:
    made = problem(tmp_path)
    [candidate] = made.candidates()
    fitted = candidate.fit(["train"], allowance(), None)
    assert fitted is not None
    model, chosen = fitted
    test = take(made.splits["test"], slice(None))
    outputs = made.predictor.outputs(model, test)
    bits = made.predictor.score(outputs, test)["bits_per_byte"]
    assert bits < 0.7 * made.baselines(["train"])["trivial"]["bits_per_byte"]
    loaded = made.predictor.build_candidate("n-grams", chosen)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(made.predictor.outputs(loaded, test), outputs)
    again = candidate.fit(["train", "validation"], allowance(), chosen)
    assert again is not None
    assert again[1]["order"] == chosen["order"]
    assert again[1]["shapes"] != chosen["shapes"]
    text = made.predictor.continuation(model, "", 20, 0.7, 0)
    assert text == made.predictor.continuation(loaded, "", 20, 0.7, 0)


def test_a_mixture_predicts_what_the_blend_promised(tmp_path: Path) -> None:
    made = problem(tmp_path)
    [candidate] = made.candidates()
    fitted = candidate.fit(["train"], allowance(), None)
    assert fitted is not None
    models, weights = [fitted[0], made.predictor.build_model()], [0.75, 0.25]
    test = take(made.splits["test"], slice(None))
    with torch.no_grad():
        alone = [made.predictor.outputs(model, test) for model in models]
        mixed = made.predictor.outputs(made.predictor.mixture(models, weights), test)
    blended = made.predictor.blend(alone, weights)
    assert torch.allclose(mixed[:, :3], blended[:, :3], rtol=1e-4)
    assert torch.allclose(mixed[:, 4:], blended[:, 4:], atol=1e-4)
    bits = made.predictor.score(blended, test)["bits_per_byte"]
    assert bits < made.predictor.score(alone[0], test)["bits_per_byte"] - math.log2(0.75)
    assert isinstance(made.predictor.mixture(models, weights), Mixture)


def test_a_count_without_time_or_that_nobody_needs_sits_out(tmp_path: Path) -> None:
    made = problem(tmp_path)
    for given_up in (allowance(0.0), allowance(stopped=True)):
        [candidate] = made.candidates()
        assert candidate.fit(["train"], given_up, None) is None
        assert candidate.note


@pytest.mark.parametrize("shapes", [None, [], [[0, 1]], [[1]], [[2**40, 1]], "many", [[1, 1]] * 99])
def test_a_strangers_description_builds_nothing(tmp_path: Path, shapes: object) -> None:
    predictor = problem(tmp_path).predictor
    with pytest.raises(ValueError, match=r"list|tuple|item|input|greater|less"):
        predictor.build_candidate("n-grams", {"shapes": shapes})
    with pytest.raises(ValueError, match="no candidate"):
        predictor.build_candidate("trees", {"shapes": [[1, 1]]})


@pytest.mark.parametrize(
    ("name", "values"), [("ends", [0, 2, 1]), ("ends", [1, 1, 2]), ("ends", [0, 1, 3]), ("following", [5, 257])]
)
def test_a_strangers_tables_that_point_beyond_themselves_are_refused(name: str, values: list[int]) -> None:
    table = OrderTable(2, 2)
    state = table.state_dict() | {"ends": torch.tensor([0, 1, 2], dtype=torch.int32)}
    table.load_state_dict(state)
    with pytest.raises(ValueError, match="point beyond their tables"):
        table.load_state_dict(state | {name: torch.tensor(values, dtype=state[name].dtype)})
