"""Muon: what its step does to a matrix."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer_image.tasks.muon import Muon, orthogonal, within
from trainer_image.tasks.recipe import Recipe, matrices_decay

SIDES = st.integers(1, 24)


@given(SIDES, SIDES, st.integers(0, 2**31))
def test_a_step_changes_every_direction_of_a_gradient_alike_however_unequal_they_are(
    rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    found = orthogonal(torch.randn(rows, columns, generator=generator))
    values = torch.linalg.svdvals(found)
    assert float(values.max()) < 1.5
    assert float(values.mean()) > 0.35


@given(SIDES, st.floats(0.01, 100), st.integers(0, 2**31))
def test_the_scale_of_gradients_and_of_weights_does_not_matter(side: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    start, gradient = torch.randn(side, 3, 2, 2), torch.randn(side, 3, 2, 2)

    def stepped(weights: float, gradients: float) -> torch.Tensor:
        weight = nn.Parameter(start * weights)
        weight.grad = gradient * gradients
        Muon([weight], 0.1).step()
        return weight.detach()

    assert torch.allclose(stepped(scale, 1), stepped(1, scale), atol=1e-4)


def test_a_weight_keeps_its_length_however_many_steps_are_taken() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 4, 3, 3))
    optimizer = Muon([weight], 0.05)
    for _ in range(200):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    assert abs(float(weight.detach().norm()) / 8**0.5 - 1) < 0.1


def test_a_weight_that_a_loss_did_not_reach_stays_and_remembers_nothing() -> None:
    weight, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.eye(2)
    optimizer = Muon([weight, other], 0.1)
    optimizer.step()
    assert torch.equal(other, torch.ones(2, 2))
    assert other not in optimizer.state
    assert not torch.equal(weight, torch.ones(2, 2))


def test_weights_shrink_by_the_decay_where_one_is_given() -> None:
    weight = nn.Parameter(torch.full((2, 2), 4.0))
    weight.grad = torch.zeros(2, 2)
    Muon([weight], 0.5, weight_decay=0.1).step()
    assert torch.allclose(weight.detach(), torch.full((2, 2), 3.8))


def test_what_muon_steps_adamw_leaves_alone_and_the_other_way_round() -> None:
    layers, head = nn.Linear(3, 3), nn.Linear(3, 2)
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=0.01)
    model = nn.Sequential(layers, head)
    optimizers = within(layers, matrices_decay(model.parameters(), 0.1), recipe, 10.0)
    stepped = [p for each in optimizers for group in each.param_groups for p in group["params"]]
    assert len(stepped) == len(set(stepped)) == len(list(model.parameters()))
    assert optimizers[0].param_groups[0]["params"] == [layers.weight]
