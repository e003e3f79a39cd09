"""Runs of unequal length: start (M + 1,) cuts N terms into M runs. Everything is vectorised over terms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokenadapt.plan import Plan
from tokenadapt.vocab.types import Ids

Floats = NDArray[np.float64]


def owners(start: Ids) -> Ids:
    """The run of each term: (N,)."""
    return np.repeat(np.arange(len(start) - 1, dtype=np.int64), np.diff(start))


def sums(values: Floats, start: Ids) -> Floats:
    """Sum over each run, added in order: (M,), 0 for an empty run."""
    return np.bincount(owners(start), weights=values, minlength=len(start) - 1).astype(np.float64)


def softmax(values: Floats, start: Ids) -> Floats:
    """Softmax within each run: (N,)."""
    if not len(values):
        return np.zeros(0)
    filled = np.flatnonzero(np.diff(start))
    top = np.zeros(len(start) - 1)
    top[filled] = np.maximum.reduceat(values, start[filled])
    run = owners(start)
    grown = np.exp(values - top[run])
    return np.asarray(grown / sums(grown, start)[run])


def normalised(values: Floats, start: Ids) -> Floats:
    """Each run divided by its sum; a run that sums to 0 becomes uniform."""
    run, counts = owners(start), np.diff(start)
    total = sums(values, start)
    flat = total[run] <= 0
    return np.where(flat, 1.0 / counts[run], values / np.where(flat, 1.0, total[run]))


def kept(start: Ids, keep: NDArray[np.bool_]) -> Ids:
    """The starts that remain when only the terms marked in `keep` (N,) stay."""
    before = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
    return before[start]


def combine(parts: Sequence[tuple[Plan, Floats]], rows: int) -> Plan:
    """The sum of plans, run j of each times its factor j; an old id stands once in a run, ids ascending."""
    run = np.concatenate([owners(plan.start) for plan, _ in parts])
    source = np.concatenate([plan.source_id for plan, _ in parts])
    weight = np.concatenate([plan.weight * factor[owners(plan.start)] for plan, factor in parts])
    live = weight != 0
    run, source, weight = run[live], source[live], weight[live]
    width = int(source.max(initial=0)) + 1
    key, where = np.unique(run * width + source, return_inverse=True)
    start = np.searchsorted(key // width, np.arange(rows + 1)).astype(np.int64)
    return Plan(start, key % width, np.bincount(where, weights=weight, minlength=len(key)).astype(np.float32))
