"""Steps of tables: momentum, whitened over the columns, halfway weighed by how often a row is meant.

Numbers of a row are far from independent (all states share a direction, and few hold most of their spread), and rare
tokens' rows have small gradients that Adam would blow up to full steps of noise. So the mean gradient G (V, D) becomes

    U = diag(r)^(-1/4) G (C + damping)^(-1/2),   C = mean of G'G (D, D),   r = mean square of each row of G,

the one-sided form of Shampoo (arXiv 1802.09568) with rows between plain descent (power 0) and Adam (power -1/2), scaled
to a root mean square of 1 over the rows that text reaches (each counts as the root of its r: of a large vocabulary a
step reaches few). A rate is then the typical change of their numbers. Norms and adapters take Adam's steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

_MOMENTUM, _MEMORY = 0.9, 0.95  # of the mean gradient, and of its squares
_DAMPING: Final = 0.03  # of the mean eigenvalue
_ROWS: Final = 0.25  # power of a row's mean square; 0.5 is Adam's
_RARE: Final = 0.01  # of the mean over rows: what is rarer counts as this
_REFRESH: Final = 4  # steps between two eigenvalue problems of a narrow table
_NARROW: Final = 1 << 17  # the steps between them are D * D over this, where that is more
_LEAST: Final = 1e-30


class RowOptimizer(torch.optim.Optimizer):
    """Groups with `table` True hold tables (V, D); the others take Adam's steps. State: one copy of the rows, and C."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "table": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                change = _of_table if group["table"] else _of_layer
                parameter.sub_(change(parameter.grad, self.state[parameter]), alpha=group["lr"])


def _of_table(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """What a table's rows change by, at a rate of 1: (V, D)."""
    change: Tensor
    if not state:
        rows, width = gradient.shape
        state.update(
            count=0,
            mean=torch.zeros_like(gradient),
            columns=gradient.new_zeros(width, width),
            rows=gradient.new_zeros(rows),
        )
    state["count"] += 1
    state["mean"].lerp_(gradient, 1 - _MOMENTUM)
    state["columns"].lerp_(gradient.T @ gradient, 1 - _MEMORY)
    state["rows"].lerp_(gradient.square().mean(1), 1 - _MEMORY)
    if is_due(state["count"], gradient.shape[1]):
        state["whitening"] = inverse_root(state["columns"] / (1 - _MEMORY ** state["count"]))
    rows = state["rows"] / state["rows"].mean().clamp(min=_LEAST) + _RARE
    change = (state["mean"] @ state["whitening"]).div_(rows.pow(_ROWS)[:, None])
    share = state["rows"].sqrt()
    size = (share @ change.square().mean(1) / share.sum().clamp(min=_LEAST)).sqrt()
    return change.div_(size + _LEAST)


def is_due(count: int, width: int) -> bool:
    """Whether columns are looked at anew in step `count`, from 1: seldom for wide tables, but soon at first."""
    every = max(_REFRESH, width * width // _NARROW)
    return count % every == 1 or (every > _REFRESH and count & (count - 1) == 0)


def inverse_root(moment: Tensor) -> Tensor:
    """(C + damping)^(-1/2) of a moment C (D, D), up to a factor."""
    held = moment if moment.device.type == "cuda" else moment.cpu()
    values, vectors = torch.linalg.eigh(held.double())
    values = (values / values.mean().clamp(min=_LEAST)).clamp(min=0) + _DAMPING
    found: Tensor = ((vectors * values.rsqrt()) @ vectors.T).to(moment)
    return found


def _of_layer(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """Adam's step, at a rate of 1."""
    if not state:
        state.update(count=0, mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
    state["count"] += 1
    state["mean"].lerp_(gradient, 1 - _MOMENTUM)
    state["square"].lerp_(gradient.square(), 1 - _MEMORY)
    mean: Tensor = state["mean"] / (1 - _MOMENTUM ** state["count"])
    spread: Tensor = (state["square"] / (1 - _MEMORY ** state["count"])).sqrt()
    return mean / (spread + 1e-8)
