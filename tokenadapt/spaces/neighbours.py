"""The nearest old tokens of every missing token: exact, batched, over candidates that are worth having."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.options import Backend, Matrix
from tokenadapt.spaces.search import Search, open_search
from tokenadapt.vocab.types import ByteVocab, Ids, Kind

BLOCK: Final = 2048  # queries at once: 2048 x 11 x 768 float64 is 138 MB
MARGIN: Final = 8  # fetched beyond k, so that ties and twins are settled by id and not by the backend


@dataclass(frozen=True)
class Candidates:
    """Old tokens that may be neighbours, and how many were kept out for which reason; counts sum to V_old."""

    ids: Ids  # (n,) ascending
    vectors: Matrix  # (n, d) unit rows
    left_out: dict[str, int]
    undertrained: Ids  # old ids that were kept out because training hardly touched their rows

    def describe(self) -> str:
        """One line for people."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items() if count)
        return f"neighbours: {len(self.ids):,} candidates" + (f"; left out: {reasons}" if reasons else "")


def choose_candidates(
    vocab: ByteVocab, rows: int, vectors: Callable[[Ids], Matrix], undertrained: Ids, *, block: int = 16384
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
    parts: list[Matrix] = []
    empty = twins = 0
    for first in range(0, len(ids), block):
        part = vectors(ids[first : first + block])
        keep = np.zeros(len(part), dtype=bool)
        alive = part.any(axis=1)
        for row in np.flatnonzero(alive):
            mark = part[row].tobytes()
            if mark not in seen:
                seen.add(mark)
                keep[row] = True
        empty += int((~alive).sum())
        twins += int((alive & ~keep).sum())
        kept.extend(ids[first : first + block][keep].tolist())
        parts.append(part[keep])
    left_out = {
        "special, byte or added": len(kind) - int(ordinary.sum()),
        "under-trained": int(ordinary.sum()) - int(trained.sum()),
        "without a vector": empty,
        "with another's vector": twins,
    }
    matrix = np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)
    return Candidates(np.array(kept, dtype=np.int64), matrix, left_out, undertrained)


def nearest(
    candidates: Candidates,
    queries: Callable[[Ids], Matrix],
    barred: Ids,
    k: int,
    *,
    backend: Backend = "auto",
    progress: Progress = SILENT,
) -> tuple[Ids, NDArray[np.float32]]:
    """Ids (M, k) and cosines (M, k) of the nearest candidates of M queries; -1 and 0 where there are fewer.

    `barred` is (M,): an old id that must not be its own neighbour, or -1. Cosines are computed again in float64, and
    equal ones (in float32) are ordered by id, so that every backend and thread count gives the same answer.
    """
    total, found = len(barred), len(candidates.ids)
    ids = np.full((total, k), -1, dtype=np.int64)
    cosines = np.zeros((total, k), dtype=np.float32)
    if not total or not found or not k:
        return ids, cosines
    search = open_search(candidates.vectors, backend)
    with progress.stage("search neighbours", total=total, unit="tokens") as advance:
        for first in range(0, total, BLOCK):
            index = np.arange(first, min(first + BLOCK, total))
            _fill(search, candidates, queries(index), barred[index], ids[index[0] : index[-1] + 1], cosines[index[0] :])
            advance(len(index))
    return ids, cosines


def _fill(
    search: Search, candidates: Candidates, asked: Matrix, barred: Ids, ids: Ids, cosines: NDArray[np.float32]
) -> None:
    """Write the neighbours of one block into views of the result."""
    k = ids.shape[1]
    live = np.flatnonzero(asked.any(axis=1))
    if not len(live):
        return
    where = search.top(asked[live], min(k + MARGIN, len(candidates.ids)))  # (n, m) row numbers
    exact = np.einsum("qd,qmd->qm", asked[live].astype(np.float64), candidates.vectors[where].astype(np.float64))
    score = exact.astype(np.float32)
    name = candidates.ids[where]
    out = name == barred[live][:, None]
    score[out] = -np.inf
    order = np.lexsort((name, -score), axis=1)[:, :k]
    score, name = np.take_along_axis(score, order, 1), np.take_along_axis(name, order, 1)
    gone = np.isneginf(score)
    score[gone], name[gone] = 0, -1
    ids[live, : name.shape[1]] = name
    cosines[live, : name.shape[1]] = score
