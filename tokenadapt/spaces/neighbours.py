"""The nearest old tokens of every missing token: exact, batched, and the same whichever search finds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.candidates import Vectors
from tokenadapt.spaces.integers import IntegerSearch
from tokenadapt.spaces.options import Backend, Matrix
from tokenadapt.spaces.search import open_search, uses_integers
from tokenadapt.vocab.types import Ids

CHUNK_BYTES: Final = 1 << 29  # candidates searched at once, in float32: what bounds the memory of a search
PAIRS: Final = 1024  # cosines that are computed again at once, in float64
QUERIES: Final = 4096
CLOSER: Final = 16  # times as many candidates for queries that the first round of integers leaves open
MANY: Final = 0.25  # of all queries: where so many are left open, more integers do not help
MARGIN: Final = 8  # fetched beyond k, so that ties and twins are settled by id and not by the backend


def nearest(
    candidates: Ids,
    source: Vectors,
    queries: Vectors,
    barred: Ids,
    k: int,
    *,
    backend: Backend = "auto",
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress = SILENT,
) -> tuple[Ids, NDArray[np.float32]]:
    """Ids (M, k) and cosines (M, k) of the nearest candidates of M queries; -1 and 0 where there are fewer.

    `source` gives vectors by old id, `queries` by position; `barred` is (M,): an old id that must not be its own
    neighbour, or -1. Cosines are computed again in float64, and equal ones (in float32) are ordered by id, so that
    every backend and thread count gives the same answer.
    """
    total = len(barred)
    near = Near(np.full((total, k), -1, dtype=np.int64), np.zeros((total, k), dtype=np.float32))
    if not total or not len(candidates) or not k:
        return near.ids, near.cosines
    sides = Sides(candidates, source, queries, barred)
    left = np.arange(total)
    if uses_integers(backend, source(candidates[:1]).shape[1], len(candidates) * total):
        left = _by_integers(sides, near, progress)
        backend = "auto" if backend == "int8" else backend
    _by_floats(sides, near, left, backend, chunk_bytes, progress)
    return near.ids, near.cosines


@dataclass(frozen=True)
class Sides:
    """What is looked for, and among what."""

    candidates: Ids
    source: Vectors
    queries: Vectors
    barred: Ids


@dataclass(frozen=True)
class Near:
    """The answer, filled query by query."""

    ids: Ids  # (M, k)
    cosines: NDArray[np.float32]  # (M, k)

    def settle(self, which: Ids, asked: Matrix, found: Ids, sides: Sides) -> None:
        """Order what was found, (n, fetch), for the queries `which`, and keep the k best; -1 is none."""
        query, slot = np.nonzero(found >= 0)
        if not len(query):
            return
        wanted, where = np.unique(found[query, slot], return_inverse=True)
        rows = sides.source(wanted)
        score = np.full(found.shape, -np.inf, dtype=np.float32)
        for first in range(0, len(query), PAIRS):
            part = slice(first, first + PAIRS)
            left, right = asked[query[part]].astype(np.float64), rows[where[part]].astype(np.float64)
            score[query[part], slot[part]] = np.einsum("pd,pd->p", left, right)
        name = found.copy()
        score[name == sides.barred[which][:, None]] = -np.inf
        order = np.lexsort((name, -score), axis=1)[:, : self.ids.shape[1]]
        score, name = np.take_along_axis(score, order, 1), np.take_along_axis(name, order, 1)
        gone = np.isneginf(score)
        score[gone], name[gone] = 0, -1
        self.ids[which, : name.shape[1]] = name
        self.cosines[which, : name.shape[1]] = score


def _by_integers(sides: Sides, near: Near, progress: Progress) -> Ids:
    """Answer all queries whose answer is certain, and give the positions of the others."""
    left = np.arange(len(near.ids))
    fetch = near.ids.shape[1] + MARGIN
    search = IntegerSearch(sides.candidates, sides.source)
    with progress.stage("search neighbours", total=len(left), unit="tokens") as advance:
        left = _round(search, sides, near, left, fetch, advance)
    if 0 < len(left) < MANY * len(near.ids):
        with progress.stage("search closer", total=len(left), unit="tokens") as advance:
            left = _round(search, sides, near, left, CLOSER * fetch, advance)
    return left


def _round(
    search: IntegerSearch, sides: Sides, near: Near, which: Ids, fetch: int, advance: Callable[[int], None]
) -> Ids:
    """Those of the queries `which` that rescoring `fetch` candidates does not answer for certain."""
    left: list[Ids] = [np.zeros(0, dtype=np.int64)]
    for first in range(0, len(which), QUERIES):
        index = which[first : first + QUERIES]
        asked = sides.queries(index)
        live = asked.any(axis=1)
        advance(len(index))
        if live.any():
            index, asked = index[live], asked[live]
            # one more than k: a token is not its own neighbour
            short = search.top(asked, near.ids.shape[1] + 1, min(fetch, len(sides.candidates)))
            near.settle(index, asked, np.where(short.rows < 0, -1, sides.candidates[short.rows]), sides)
            left.append(index[~(near.cosines[index, -1] > short.bound)])
    return np.concatenate(left)


def _by_floats(sides: Sides, near: Near, which: Ids, backend: Backend, chunk_bytes: int, progress: Progress) -> None:
    """Answer the queries `which` by a search in float32."""
    if not len(which):
        return
    fetch = min(near.ids.shape[1] + MARGIN, len(sides.candidates))
    width = sides.source(sides.candidates[:1]).shape[1]
    found = _search(sides, which, fetch, max(fetch, chunk_bytes // (4 * width)), backend, progress)
    for first in range(0, len(which), QUERIES):
        part = which[first : first + QUERIES]
        near.settle(part, sides.queries(part), found[first : first + QUERIES], sides)


def _search(sides: Sides, which: Ids, fetch: int, chunk: int, backend: Backend, progress: Progress) -> Ids:
    """Old ids of the best candidates of the queries, (n, fetch), in no promised order; -1 for no vector."""
    best = np.full((len(which), fetch), -np.inf, dtype=np.float32)
    found = np.full((len(which), fetch), -1, dtype=np.int64)
    chunks = -(-len(sides.candidates) // chunk)
    with progress.stage("search neighbours", total=len(which) * chunks, unit="tokens") as advance:
        for start in range(0, len(sides.candidates), chunk):
            these = sides.candidates[start : start + chunk]
            search = open_search(sides.source(these), backend)
            for first in range(0, len(which), QUERIES):
                asked = sides.queries(which[first : first + QUERIES])
                live = first + np.flatnonzero(asked.any(axis=1))
                if len(live):
                    score, row = search.top(asked[live - first], min(fetch, len(these)))
                    score, name = np.hstack((best[live], score)), np.hstack((found[live], these[row]))
                    order = np.lexsort((name, -score), axis=1)[:, :fetch]
                    best[live], found[live] = np.take_along_axis(score, order, 1), np.take_along_axis(name, order, 1)
                advance(len(asked))
    return found
