"""TokenAdapt's global heuristic: the nearest old tokens."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.methods.options import Bound, Count, Positive
from tokenadapt.plan import Plan, Problem

Cosine = Annotated[float, Bound(-1, 1)]


def global_(problem: Problem, *, tau: Positive = 0.3, k: Count = 3, theta: Cosine = 0.0) -> Plan:
    """Weights softmax(cosine / `tau`) over the `k` nearest old tokens, those below `theta` dropped.

    A token with no neighbour left is left to the fallback. k is not stated in the paper; the published code has
    3 and theta 0 (arXiv:2505.09738).
    """
    assert problem.space is not None
    ids, cosine = problem.space.neighbours(k)
    keep = (ids >= 0) & (ids < problem.table.shape[0]) & (cosine >= theta)
    start = np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int64)
    weight = ragged.softmax(cosine[keep].astype(np.float64) / tau, start)
    return Plan(start, ids[keep], weight.astype(np.float32))
