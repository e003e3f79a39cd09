"""Rows that ignore the token: zero and the mean of the old rows."""

from __future__ import annotations

import numpy as np

from tokenadapt.methods.statistics import mean_row
from tokenadapt.plan import MEAN, Plan, Problem


def zero(problem: Problem) -> Plan:
    """All zeros. As an output row it gives the logit 0, which often wins: a baseline, not advice."""
    M = len(problem.alignment.missing)
    nothing = np.zeros(M, np.int64)
    return Plan(np.arange(M + 1, dtype=np.int64), nothing, np.zeros(M, np.float32))


def mean(problem: Problem) -> Plan:
    """The mean of the old ordinary rows, for every token the same."""
    M, ids = len(problem.alignment.missing), problem.ordinary
    if not len(ids):
        return zero(problem)
    return Plan(
        np.arange(M + 1, dtype=np.int64),
        np.full(M, MEAN, dtype=np.int64),
        np.ones(M, dtype=np.float32),
        mean=mean_row(problem.table, ids).astype(np.float32),
    )
