"""The nearest old tokens of every missing token: exact, batched, over candidates that are worth having."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.options import Backend, Matrix
from tokenadapt.spaces.search import open_search
from tokenadapt.vocab.types import ByteVocab, Ids, Kind

CHUNK_BYTES: Final = 1 << 29  # candidates searched at once, in float32: what bounds the memory of a search
BLOCK_BYTES: Final = 1 << 27  # vectors of neighbours whose cosines are computed again at once, in float64
QUERIES: Final = 4096
MARGIN: Final = 8  # fetched beyond k, so that ties and twins are settled by id and not by the backend

Vectors = Callable[[Ids], Matrix]  # ids or positions to unit rows


@dataclass(frozen=True)
class Candidates:
    """Old tokens that may be neighbours, and how many were kept out for which reason; counts sum to V_old."""

    ids: Ids  # (n,) ascending
    left_out: dict[str, int]
    undertrained: Ids  # old ids that were kept out because training hardly touched their rows

    def describe(self) -> str:
        """One line for people."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items() if count)
        return f"neighbours: {len(self.ids):,} candidates" + (f"; left out: {reasons}" if reasons else "")


def choose_candidates(
    vocab: ByteVocab, rows: int, vectors: Vectors, undertrained: Ids, *, block: int = 8192
) -> Candidates:
    """Ordinary old tokens with a row, a trained one, a vector, and no twin of lower id with the very same vector.

    `rows` is the number of rows of the old table. Of tokens that the encoder cannot tell apart (`x`, ` x`, `X`) the
    lowest id stays: in merge order it is the one that was seen most.
    """
    kind = np.asarray(vocab.kind)
    ordinary = (kind == Kind.ORDINARY) & (np.arange(len(kind)) < rows)
    trained = ordinary.copy()
    trained[undertrained[undertrained < len(trained)]] = False
    ids = np.flatnonzero(trained)
    seen: set[bytes] = set()
    kept: list[int] = []
    empty = 0
    for first in range(0, len(ids), block):
        part = vectors(ids[first : first + block])
        alive = part.any(axis=1)
        empty += int((~alive).sum())
        for row in np.flatnonzero(alive):
            mark = hashlib.blake2b(part[row].tobytes(), digest_size=16).digest()
            if mark not in seen:
                seen.add(mark)
                kept.append(int(ids[first + row]))
    left_out = {
        "special, byte or added": len(kind) - int(ordinary.sum()),
        "under-trained": int(ordinary.sum()) - len(ids),
        "without a vector": empty,
        "with another's vector": len(ids) - empty - len(kept),
    }
    return Candidates(np.array(kept, dtype=np.int64), left_out, undertrained)


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
    ids = np.full((total, k), -1, dtype=np.int64)
    cosines = np.zeros((total, k), dtype=np.float32)
    if not total or not len(candidates) or not k:
        return ids, cosines
    width = source(candidates[:1]).shape[1]
    fetch = min(k + MARGIN, len(candidates))
    found = _search(
        candidates, source, queries, (total, fetch), max(fetch, chunk_bytes // (4 * width)), backend, progress
    )
    step = max(1, BLOCK_BYTES // (8 * width * fetch))
    for first in range(0, total, step):
        index = np.arange(first, min(first + step, total))
        part = slice(first, first + step)
        _settle(found[part], source, queries(index), barred[part], ids[part], cosines[part])
    return ids, cosines


def _search(
    candidates: Ids,
    source: Vectors,
    queries: Vectors,
    shape: tuple[int, int],
    chunk: int,
    backend: Backend,
    progress: Progress,
) -> Ids:
    """Old ids of the best candidates of each query, `shape` = (M, fetch), in no promised order; -1 for no vector."""
    total, fetch = shape
    best = np.full(shape, -np.inf, dtype=np.float32)
    found = np.full(shape, -1, dtype=np.int64)
    chunks = -(-len(candidates) // chunk)
    with progress.stage("search neighbours", total=total * chunks, unit="tokens") as advance:
        for start in range(0, len(candidates), chunk):
            these = candidates[start : start + chunk]
            search = open_search(source(these), backend)
            for first in range(0, total, QUERIES):
                index = np.arange(first, min(first + QUERIES, total))
                asked = queries(index)
                live = index[asked.any(axis=1)]
                if len(live):
                    score, row = search.top(asked[asked.any(axis=1)], min(fetch, len(these)))
                    score, name = np.hstack((best[live], score)), np.hstack((found[live], these[row]))
                    order = np.lexsort((name, -score), axis=1)[:, :fetch]
                    best[live], found[live] = np.take_along_axis(score, order, 1), np.take_along_axis(name, order, 1)
                advance(len(index))
    return found


def _settle(found: Ids, source: Vectors, asked: Matrix, barred: Ids, ids: Ids, cosines: NDArray[np.float32]) -> None:
    """Write the neighbours of one block, exactly ordered, into views of the result."""
    live = np.flatnonzero((found >= 0).any(axis=1))
    if not len(live):
        return
    wanted, where = np.unique(found[live], return_inverse=True)
    rows = source(wanted[wanted >= 0])
    rows = np.concatenate((np.zeros((int((wanted < 0).sum()), rows.shape[1]), np.float32), rows))
    near = rows[where.reshape(len(live), -1)].astype(np.float64)  # (n, fetch, d)
    score = np.einsum("qd,qmd->qm", asked[live].astype(np.float64), near).astype(np.float32)
    name = found[live].copy()
    score[(name == barred[live][:, None]) | (name < 0)] = -np.inf
    order = np.lexsort((name, -score), axis=1)[:, : ids.shape[1]]
    score, name = np.take_along_axis(score, order, 1), np.take_along_axis(name, order, 1)
    gone = np.isneginf(score)
    score[gone], name[gone] = 0, -1
    ids[live, : name.shape[1]] = name
    cosines[live, : name.shape[1]] = score
