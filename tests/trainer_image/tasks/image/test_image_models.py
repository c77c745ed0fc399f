"""Models of images: kernel machines beside the network, which size of it, and whether mirrored images are alike."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer_image.tasks.base import Batch
from trainer_image.tasks.candidates import Allowance
from trainer_image.tasks.image.handedness import mirrored_alike
from trainer_image.tasks.image.kernel import AT_A_TIME, CANDIDATES, KernelCandidate, PixelsCandidate, build
from trainer_image.tasks.image.network import ImageNetwork
from trainer_image.tasks.image.presets import networks


def allowance(seconds: float = 60, seed: int = 0) -> Allowance:
    return Allowance(seconds, torch.get_num_threads(), seed, threading.Event(), lambda: None)


def stripes(rows: int, channels: int = 1, side: int = 12) -> dict[str, Tensor]:
    """Two classes: stripes that rise and stripes that fall, at any place, under noise."""
    random = np.random.default_rng(rows)
    down, across = np.mgrid[:side, :side]
    target = np.arange(rows) % 2
    phase = random.uniform(0, 6.28, (rows, 1, 1))
    waves = np.sin((across + np.where(target, 1, -1)[:, None, None] * down) * 1.2 + phase)
    noisy = 128 + 60 * waves[:, None] + random.normal(0, 30, (rows, channels, side, side))
    return {"pixels": torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)), "target": torch.from_numpy(target)}


@pytest.fixture(scope="module")
def splits() -> dict[str, Batch]:
    return {"train": stripes(160), "validation": stripes(60), "test": stripes(80)}


@pytest.mark.parametrize("kind", CANDIDATES)
def test_a_candidate_is_rebuilt_from_what_it_chose_and_its_tensors(
    splits: dict[str, Batch], kind: type[KernelCandidate]
) -> None:
    torch_state = torch.get_rng_state()
    fitted = kind(splits, 2).fit(["train"], allowance(), None)
    assert fitted is not None
    again = kind(splits, 2).fit(["train"], allowance(), None)
    assert again is not None
    assert again[1] == fitted[1]
    assert torch.equal(torch.get_rng_state(), torch_state)  # the network's random numbers are as they were
    rebuilt = build(kind.name, (1, 12, 12), fitted[1]["landmarks"], 2)
    rebuilt.load_state_dict(fitted[0].state_dict())
    pixels = splits["test"]["pixels"].float()
    assert torch.equal(rebuilt(pixels), fitted[0](pixels))
    assert torch.equal(again[0](pixels), fitted[0](pixels))
    right = (fitted[0](pixels).argmax(1) == splits["test"]["target"]).double().mean()
    assert right > (0.5 if kind is PixelsCandidate else 0.9)  # stripes at any place: pixels hardly tell them


@pytest.mark.parametrize("resumed", [False, True], ids=["in the same process", "resumed in another"])
def test_a_refit_costs_nothing_and_is_that_of_all_rows(splits: dict[str, Batch], *, resumed: bool) -> None:
    wrong = torch.arange(60) % 4 == 0
    target = torch.where(wrong, 1 - splits["validation"]["target"], splits["validation"]["target"])
    splits = {**splits, "validation": {**splits["validation"], "target": target}}
    first, other = CANDIDATES[1](splits, 2), CANDIDATES[1](splits, 2)
    assert first.again == 0
    [(model, chosen), _] = fitted = [candidate.fit(["train"], allowance(), None) for candidate in (first, other)]
    assert fitted[1] is not None
    again = (CANDIDATES[1](splits, 2) if resumed else first).fit(["train", "validation"], allowance(), chosen)
    assert again is not None
    assert again[1] == chosen
    # The same bits, whether or not the process that made the first fit is still there.
    other_again = other.fit(["train", "validation"], allowance(), chosen)
    assert other_again is not None
    state, others, before = (each.state_dict() for each in (again[0], other_again[0], model))
    assert all(torch.equal(state[name], others[name]) for name in state)
    assert not torch.equal(state["weights"], before["weights"])
    pixels = splits["validation"]["pixels"].float()
    losses = [float(functional.cross_entropy(each(pixels), target)) for each in (model, again[0])]
    assert losses[1] < losses[0]  # it has seen these rows


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_a_candidate_that_would_take_too_long_sits_out_and_says_so(splits: dict[str, Batch], seconds: float) -> None:
    candidate = CANDIDATES[2](splits, 2)
    assert candidate.fit(["train"], allowance(seconds), None) is None
    assert "more than its share of the time budget" in candidate.note


@pytest.mark.parametrize("kind", CANDIDATES)
def test_a_candidate_looks_at_its_time_within_a_portion_which_may_take_as_long_as_all_it_has(
    splits: dict[str, Batch], kind: type[KernelCandidate]
) -> None:
    looks: list[None] = []
    looking = replace(allowance(), beat=lambda: looks.append(None))
    assert kind(splits, 2).fit(["train"], looking, None) is not None
    rows = 2 * 160 + 60  # landmarks, training and validation rows
    assert len(looks) >= rows / AT_A_TIME


def test_a_candidate_stops_when_the_training_does(splits: dict[str, Batch]) -> None:
    stopped = allowance()
    stopped.stop.set()
    assert CANDIDATES[0](splits, 2).fit(["train"], stopped, None) is None


def test_what_no_fit_returns_is_no_candidate() -> None:
    with pytest.raises(ValueError, match="no candidate 'trees'"):
        build("trees", (1, 8, 8), 10, 2)


def test_classes_that_depend_on_the_side_are_not_mirrored() -> None:
    # A stripe that rises falls in the mirror.
    assert mirrored_alike(stripes(400), 2) is False


def test_classes_that_do_not_depend_on_the_side_are_mirrored() -> None:
    rising, falling = stripes(400), stripes(402)
    both = torch.cat([rising["pixels"], falling["pixels"][:400].flip(3)])
    plain = torch.randint(100, 156, (800, 1, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = torch.stack([both, plain], 1).flatten(0, 1)  # stripes of any direction, and none
    assert mirrored_alike({"pixels": pixels, "target": torch.arange(1600) % 2}, 2) is True


def test_too_few_images_or_none_recognised_do_not_tell_of_mirrors() -> None:
    assert mirrored_alike(stripes(40), 2) is None
    noise = torch.randint(256, (300, 1, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert mirrored_alike({"pixels": noise, "target": torch.arange(300) % 2}, 2) is None


@pytest.mark.parametrize("size", [(8, 8, 1), (28, 28, 1), (96, 96, 3), (32, 160, 3), (4, 90, 1)])
@pytest.mark.parametrize("count", [20, 3_000, 1_000_000])
def test_offered_networks_grow_and_ask_for_more_epochs_the_larger_they_are(
    size: tuple[int, int, int], count: int
) -> None:
    offered = networks("auto", size, count)
    work = [n.sizes.widths[0] * n.sizes.blocks / n.sizes.stride**2 for n in offered]
    assert work == sorted(set(work))
    enough = [n.enough for n in offered]
    assert enough[0] == 0
    assert enough == sorted(enough)
    assert all(n.enough <= n.recipe.epochs for n in offered)
    assert len(networks("fast", size, count)) == len(networks("best", size, count)) == 1


@pytest.mark.parametrize(("preset", "side"), [("auto", 32), ("auto", 96), ("best", 160)])
def test_what_a_step_keeps_for_its_gradients_fits_into_a_pod(preset: str, side: int) -> None:
    for network in networks(preset, (side, side, 3), 100_000):
        model = ImageNetwork(network.sizes, 10, (120.0,) * 3, (60.0,) * 3).train()
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(torch.rand(2, 3, side, side)).sum()
        weights = sum(parameter.nbytes for parameter in model.parameters())
        a_row = (sum(kept.values()) - weights) / 2
        assert loss.requires_grad
        assert network.recipe.batch_size * a_row < 1024**3
