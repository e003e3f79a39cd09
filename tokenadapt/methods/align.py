"""Rows from how running text is really cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenadapt.methods.options import Count
from tokenadapt.methods.running import Running, running
from tokenadapt.plan import Plan, Problem
from tokenadapt.vocab.types import Ids

TERMS = 1 << 22  # pairs kept before they are added up


def align(problem: Problem, *, texts: Count = 30_000) -> Plan:
    """The mean, over a token's occurrences in the corpus, of the mean of the old tokens within it or around it.

    What `pieces` cuts by itself is here cut in context, and weighted by how often (Yamaguchi et al.,
    arXiv:2406.11477, who first give unseen tokens their `merge` rows: use it as the fallback). Head rows come from
    the head's table. `texts` is how many lines of the corpus are read.
    """
    M, V = len(problem.alignment.missing), problem.table.shape[0]
    place = problem.alignment.place
    seen = np.zeros(M)
    keys, weights = np.zeros(0, np.int64), np.zeros(0)
    waiting: list[tuple[Ids, NDArray[np.float64]]] = []
    size = 0
    for text in running(problem, texts):
        token, old, weight, times = covered(text, place)
        live = old < V
        seen += times
        waiting.append((token[live] * V + old[live], weight[live]))
        size += len(token)
        if size > TERMS:
            keys, weights = _added(keys, weights, waiting)
            waiting, size = [], 0
    keys, weights = _added(keys, weights, waiting)
    start = np.searchsorted(keys // V, np.arange(M + 1)).astype(np.int64)
    return Plan(start, keys % V, (weights / seen[keys // V]).astype(np.float32))


def covered(text: Running, place: Ids) -> tuple[Ids, Ids, NDArray[np.float64], NDArray[np.float64]]:
    """One text's terms: place of the missing token, old id, weight; and how often each missing token stands in it.

    An occurrence's old tokens are those inside its bytes; where there are none, the one around it. An occurrence that
    lies across two old tokens without holding either says nothing.
    """
    where = np.flatnonzero((text.new < len(place)) & (place[np.minimum(text.new, len(place) - 1)] >= 0))
    token, begin, end = place[text.new[where]], text.new_edge[where], text.new_edge[where + 1]
    first = np.searchsorted(text.old_edge[:-1], begin, side="left")
    last = np.searchsorted(text.old_edge[1:], end, side="right")
    around = np.searchsorted(text.old_edge[:-1], begin, side="right") - 1
    inside = last > first
    whole = ~inside & (text.old_edge[np.minimum(around + 1, len(text.old_edge) - 1)] >= end)
    first = np.where(inside, first, around)
    count = np.where(inside, last - first, whole.astype(np.int64))
    run = np.repeat(np.arange(len(token)), count)
    offset = np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
    old = text.old[first[run] + offset]
    times = np.bincount(token[count > 0], minlength=int(place.max()) + 1).astype(np.float64)
    return token[run], old, 1.0 / count[run], times


def _added(
    keys: Ids, weights: NDArray[np.float64], more: list[tuple[Ids, NDArray[np.float64]]]
) -> tuple[Ids, NDArray[np.float64]]:
    """Sums of weights by key, keys ascending."""
    joined = np.concatenate([keys, *(part for part, _ in more)])
    unique, where = np.unique(joined, return_inverse=True)
    total = np.bincount(where, weights=np.concatenate([weights, *(part for _, part in more)]), minlength=len(unique))
    return unique, total.astype(np.float64)
