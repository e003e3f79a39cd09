"""CLP-Transfer: a helper model's similarities carry the copied rows over."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch

from tokenadapt.methods import donor
from tokenadapt.methods.donor import DonorView
from tokenadapt.methods.nearest import nearest_unit
from tokenadapt.methods.options import Bound
from tokenadapt.plan import BLOCK_ROWS, Dense, Plan, Problem
from tokenadapt.spaces.options import unit

SMALLEST = 1e-6  # mean cosine with the anchors below which the weights mean nothing


def clp(problem: Problem, *, k: Annotated[int, Bound(0)] = 0) -> Plan | Dense:
    """Mean of the copied rows, weighted by the donor's cosines with the token (Ostendorff and Rehm, arXiv:2301.09626).

    As published all copied tokens take part; `k` keeps the k nearest (the truncated form). A token that the donor
    lacks, or whose cosines do not sum to something positive, is left to the fallback.
    """
    shared = donor.view(problem)
    return _nearest(problem, shared, k) if k else _all(problem, shared)


def _all(problem: Problem, shared: DonorView) -> Dense:
    """Cosines are linear in the token's unit vector n: sum_o (n.n_o) E_o = n (sum_o n_o E_o^T), one small matrix."""
    width, known = shared.table.shape[1], shared.known
    carry, total = np.zeros((width, problem.width)), np.zeros(width)
    M = len(problem.alignment.missing)
    rows, empty = torch.zeros(M, problem.width), np.ones(M, dtype=bool)
    work = problem.progress.stage("weigh copied tokens", total=len(shared.anchor) + len(known), unit="tokens")
    with work as advance:
        for first in range(0, len(shared.anchor), BLOCK_ROWS):
            part = slice(first, first + BLOCK_ROWS)
            units = unit(shared.table.rows(shared.anchor[part]).float().numpy()).astype(np.float64)
            carry += units.T @ problem.table.rows(shared.source[part]).double().numpy()
            total += units.sum(axis=0)
            advance(len(units))
        for first in range(0, len(known), BLOCK_ROWS):
            index = known[first : first + BLOCK_ROWS]
            units = unit(shared.missing_rows(index).numpy()).astype(np.float64)
            weight = units @ total
            good = weight > SMALLEST * max(1, len(shared.anchor))
            rows[index[good]] = torch.from_numpy((units[good] @ carry) / weight[good, None]).float()
            empty[index[good]] = False
            advance(len(index))
    return Dense(rows, empty)


def _nearest(problem: Problem, shared: DonorView, k: int) -> Plan:
    """The k nearest anchors by cosine, weights proportional to the positive ones."""
    anchors = unit(shared.table.rows(shared.anchor).float().numpy())
    queries = np.zeros((len(shared.missing), shared.table.shape[1]), np.float32)
    queries[shared.known] = unit(shared.missing_rows(shared.known).numpy())
    place, cosine = nearest_unit(queries, anchors, k, progress=problem.progress)
    keep = (place >= 0) & (cosine > 0)
    weight = np.where(keep, cosine, 0).astype(np.float64)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    start = np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int64)
    return Plan(start, shared.source[place[keep]], weight[keep].astype(np.float32))
