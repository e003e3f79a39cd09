"""Rows that ignore the token: zero and the mean of the old rows."""

from __future__ import annotations

import numpy as np
import torch

from tokenadapt.methods.statistics import mean_row
from tokenadapt.plan import Dense, Plan, Problem

MAX_TERMS = 1 << 22  # a mean written as a plan has a term for every old row: above this it is kept as rows


def zero(problem: Problem) -> Plan:
    """All zeros. As an output row it gives the logit 0, which often wins: a baseline, not advice."""
    M = len(problem.alignment.missing)
    nothing = np.zeros(M, np.int64)
    return Plan(np.arange(M + 1, dtype=np.int64), nothing, np.zeros(M, np.float32))


def mean(problem: Problem) -> Plan | Dense:
    """The mean of the old ordinary rows, for every token the same."""
    M, ids = len(problem.alignment.missing), problem.ordinary
    if not len(ids):
        return zero(problem)
    if M * len(ids) <= MAX_TERMS:
        start = np.arange(M + 1, dtype=np.int64) * len(ids)
        return Plan(start, np.tile(ids, M), np.full(M * len(ids), 1 / len(ids), np.float32))
    row = torch.from_numpy(mean_row(problem.table, ids)).float()
    return Dense(row.expand(M, problem.width))
