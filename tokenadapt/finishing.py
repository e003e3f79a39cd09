"""What may follow any method: norms that fit the copied rows, and a bias per piece."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.errors import RequestError
from tokenadapt.methods.statistics import mean_row, norms
from tokenadapt.plan import Dense, Plan, Problem, missing_rows, rows_at_once
from tokenadapt.threads import alone
from tokenadapt.vocab.types import How

ENOUGH = 32  # copied tokens of one length whose median is trusted


def calibrate_norms(problem: Problem, made: Plan | Dense, by: Literal["role", "bytes"] = "role") -> Plan | Dense:
    """Scale each new row about the mean of the old rows, so that it lies as far from it as copied rows do (median).

    `bytes` takes the median over copied tokens of the same number of bytes, where there are enough of them.
    """
    if isinstance(made, Plan) and made.bias is not None:
        raise ValueError("calibrate norms before adding a bias")
    centre = mean_row(problem.table, problem.ordinary)
    shift = torch.from_numpy(centre).float()
    goal = _typical_norms(problem, centre, by)  # (M,)
    scale = np.ones(len(goal))
    step = rows_at_once(problem.width)
    for first in range(0, len(goal), step):
        last = min(first + step, len(goal))
        now = (missing_rows(problem.table, made, first, last) - shift).double().norm(dim=1).numpy()
        near = goal[first:last]
        scale[first:last] = np.where(now > 1e-6 * near, near / np.where(now > 0, now, 1.0), 1.0)
    if isinstance(made, Dense):
        factor = torch.from_numpy(scale).float()[:, None]
        return replace(made, rows=torch.addcmul(shift, factor, made.rows - shift))
    if made.scale is not None and not np.array_equal(made.shift, shift.numpy()):  # type: ignore[arg-type]
        raise ValueError("the plan is already scaled about another row")
    before = 1.0 if made.scale is None else made.scale
    return replace(made, scale=(scale * before).astype(np.float32), shift=shift.numpy())


def _typical_norms(problem: Problem, centre: NDArray[np.float64], by: Literal["role", "bytes"]) -> NDArray[np.float64]:
    """The norm that each missing token's row should have: (M,)."""
    alignment = problem.alignment
    copied = np.flatnonzero(alignment.how == How.COPIED)
    missing = alignment.missing
    if not len(copied):
        ordinary = norms(problem.table, problem.ordinary, centre)
        return np.full(len(missing), np.median(ordinary) if len(ordinary) else 0.0)
    have = norms(problem.table, alignment.source_id[copied], centre)
    goal = np.full(len(missing), np.median(have))
    if by == "bytes":
        old, new = problem.target.byte_lengths(copied), problem.target.byte_lengths(missing)
        for size in np.unique(new):
            alike = old == size
            if alike.sum() >= ENOUGH:
                goal[new == size] = np.median(have[alike])
    return goal


def bias_direction(states: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    """The u (D,) with u.h near 1 for every final state h: then row + b u is the row with a bias b.

    Least squares for u.h = 1 with a ridge, u = (E[h h^T] + eps I)^-1 E[h]; `eps` is in units of the mean square
    of a state's entries.
    """
    h = states.double()
    second = h.T @ h / len(h)
    ridge = eps * second.diagonal().mean()
    with alone():
        u: torch.Tensor = torch.linalg.solve(second + ridge * torch.eye(h.shape[1], dtype=h.dtype), h.mean(0))
    return u.float()


def add_bias(problem: Problem, made: Plan | Dense, per_piece: float) -> Plan | Dense:
    """Add `per_piece` to a token's logit for each piece after its first. For output rows."""
    if problem.model is None:
        raise RequestError(
            "A bias per piece needs the source model's states.", "Leave it out, or use a model that can be run here."
        )
    direction = bias_direction(problem.model.final_states())
    bias = (per_piece * np.maximum(0, problem.segmentation.counts - 1)).astype(np.float32)
    if isinstance(made, Dense):
        return replace(made, rows=torch.addcmul(made.rows, torch.from_numpy(bias)[:, None], direction))
    if made.bias is not None:
        raise ValueError("the plan has a bias already")
    return replace(made, bias=bias, direction=direction.numpy())
