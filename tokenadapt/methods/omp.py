"""Orthogonal matching pursuit in a donor's space."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from tokenadapt.methods import donor
from tokenadapt.methods.donor import DonorView
from tokenadapt.methods.options import Count
from tokenadapt.methods.pursuit import Sparse, pursue
from tokenadapt.methods.statistics import mean_row
from tokenadapt.plan import BLOCK_ROWS, Dense, Plan, Problem, missing_rows

Atoms = Literal["unit", "raw", "centred"]


def omp(problem: Problem, *, k: Count = 64, atoms: Atoms = "unit") -> Plan | Dense:
    """The donor's row as a sum of at most `k` copied tokens' donor rows, the same sum of old rows (arXiv:2506.06607).

    `atoms`: `unit` chooses among rows of length one (the first choice is then the most similar row); `raw` among the
    rows as they are, as the published code does, which favours long ones; `centred` takes the copied tokens' mean out
    on both sides first. Coefficients always belong to the rows themselves. A token that the donor lacks is left to the
    fallback.
    """
    shared = donor.view(problem)
    M, known = len(problem.alignment.missing), shared.known
    if not len(shared.anchor) or not len(known):
        nothing = np.zeros(0, np.int64)
        return Plan(np.zeros(M + 1, np.int64), nothing, nothing.astype(np.float32))
    device = problem.device
    rows = shared.table.rows(shared.anchor).float().to(device)
    centre = rows.double().mean(0).float() if atoms == "centred" else torch.zeros(rows.shape[1], device=device)
    rows = rows - centre
    norm = rows.norm(dim=1)
    scale = torch.where(norm > 0, norm, 1.0) if atoms != "raw" else torch.ones_like(norm)
    rows = rows / scale[:, None]
    found = []
    with problem.progress.stage("pursue donor rows", total=len(known), unit="tokens") as advance:
        for first in range(0, len(known), BLOCK_ROWS):
            targets = shared.missing_rows(known[first : first + BLOCK_ROWS]).to(device) - centre
            found.append(pursue(rows, targets, k, advance=advance))
    plan = _plan(found, scale, shared, M)
    return _recentred(problem, plan, shared) if atoms == "centred" else plan


def _plan(found: list[Sparse], scale: torch.Tensor, shared: DonorView, M: int) -> Plan:
    """Old ids and coefficients of the rows as they are."""
    atom = torch.cat([part.atom for part in found])
    weight = torch.cat([part.weight for part in found]) / scale[atom]
    used = (weight != 0).cpu().numpy()
    counts = np.zeros(M, np.int64)
    counts[shared.known] = used.sum(axis=1)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Plan(start, shared.source[atom.cpu().numpy()[used]], weight.cpu().numpy()[used])


def _recentred(problem: Problem, plan: Plan, shared: DonorView) -> Dense:
    """Sum c_i E_i + (1 - sum c_i) mean: the same combination about the mean of the copied rows."""
    mean = torch.from_numpy(mean_row(problem.table, shared.source)).float()
    M = len(plan.start) - 1
    rows = torch.empty(M, problem.width)
    totals = np.bincount(np.repeat(np.arange(M), np.diff(plan.start)), weights=plan.weight, minlength=M)
    for first in range(0, M, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, M)
        rest = torch.from_numpy(1 - totals[first:last]).float()[:, None]
        rows[first:last] = missing_rows(problem.table, plan, first, last) + rest * mean
    return Dense(rows, shared.missing < 0)
