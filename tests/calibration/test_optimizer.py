"""Steps of tables: what they depend on, and what they do not; the others are Adam's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tokenadapt.calibration.loop import Budget
from tokenadapt.calibration.optimizer import RowOptimizer, inverse_root, is_due
from tokenadapt.calibration.schedule import highest_rate


def walk(gradients, *, lr=0.1, table=True):
    """Where a parameter that began at zero stands after steps with these gradients."""
    parameter = nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = RowOptimizer([{"params": [parameter], "lr": lr, "table": table}])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.fixture
def gradients():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    return [torch.randn(40, 6, generator=generator) @ mixing for _ in range(7)]


def test_a_step_has_the_size_of_the_rate(gradients):
    share = gradients[0].square().mean(1).sqrt()
    size = (share @ walk(gradients[:1]).square().mean(1) / share.sum()).sqrt()
    assert float(size) == pytest.approx(0.1, rel=1e-5)


def test_rows_that_no_text_reaches_change_nothing_for_the_others(gradients):
    few = walk(gradients)
    many = walk([torch.cat([one, torch.zeros(4000, 6)]) for one in gradients])
    assert float((many[:40] - few).abs().max()) < 0.2 * float(few.abs().max())
    assert not many[40:].any()


def test_neither_the_gradients_size_nor_the_axes_matter(gradients):
    found = walk(gradients)
    assert torch.allclose(walk([100 * one for one in gradients]), found, atol=1e-5)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(walk([one @ turn for one in gradients]) @ turn.T, found, atol=1e-4)


def test_a_gradient_that_is_stretched_along_one_direction_is_not_followed_there_more(gradients):
    white = torch.randn(400, 6, generator=torch.Generator().manual_seed(2))
    stretched = white * torch.tensor([20.0, 1, 1, 1, 1, 1])
    size = walk([stretched]).square().mean(0).sqrt()
    assert float(size[0] / size[1:].mean()) < 6 < 20
    assert torch.allclose(inverse_root(torch.eye(4)), torch.eye(4) / 1.03**0.5)


def test_rows_of_small_gradients_take_small_steps_and_adam_takes_full_ones():
    gradient = torch.randn(50, 6, generator=torch.Generator().manual_seed(3))
    gradient[25:] *= 0.01
    sizes = [walk([gradient], table=table).square().mean(1).sqrt() for table in (True, False)]
    assert float(sizes[0][25:].mean() / sizes[0][:25].mean()) < 0.05
    assert float(sizes[1][25:].mean() / sizes[1][:25].mean()) > 0.9


def test_layers_take_adams_steps(gradients):
    parameter = nn.Parameter(torch.zeros(40, 6))
    reference = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.95))
    for gradient in gradients:
        parameter.grad = gradient.clone()
        reference.step()
    assert torch.allclose(walk(gradients, table=False), parameter.detach(), atol=1e-6)


def test_a_gradient_of_nothing_changes_nothing():
    assert not walk([torch.zeros(5, 4)] * 3).any()


def test_longer_runs_take_lower_rates():
    assert highest_rate(100) == pytest.approx(0.01)
    assert highest_rate(400) == highest_rate(None) == pytest.approx(0.005)
    assert highest_rate(1) == highest_rate(50) == 0.013
    assert Budget(None, 102_400, 5.0).all_steps(1024) == 100
    assert Budget(7, 102_400, None).all_steps(1024) == 7
    assert Budget(None, None, 5.0).all_steps(1024) is None


def test_wide_tables_columns_are_looked_at_seldom_but_soon():
    assert [count for count in range(1, 14) if is_due(count, 576)] == [1, 5, 9, 13]
    wide = [count for count in range(1, 400) if is_due(count, 4096)]
    assert wide == [1, 2, 4, 8, 16, 32, 64, 128, 129, 256, 257, 385]
