"""Old rows by the nearest vectors of a space that words share: what `wechsel` and `ofa` have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenadapt.methods import ragged
from tokenadapt.methods.nearest import nearest_unit
from tokenadapt.plan import Plan, Problem
from tokenadapt.vocab.types import Kind


def nearest_rows(problem: Problem, old: NDArray[np.float32], new: NDArray[np.float32], k: int, tau: float) -> Plan:
    """softmax(cosine / tau) over the k old tokens nearest to each missing one.

    `old` is (V_old, d) and `new` (V_new, d), unit rows; a token whose row is zero has no vector: it is no neighbour,
    and is left to the fallback. An old token whose bytes cannot be told is none either.
    """
    candidates = old[: problem.table.shape[0]].copy()
    candidates[problem.source.kind[: len(candidates)] == Kind.UNKNOWN] = 0
    place, cosine = nearest_unit(new[problem.alignment.missing], candidates, k, progress=problem.progress)
    keep = place >= 0
    start = np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int64)
    weight = ragged.softmax(cosine[keep].astype(np.float64) / tau, start)
    return Plan(start, place[keep], weight.astype(np.float32))
