"""Exact neighbours among given vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.neighbours import Candidates, nearest
from tokenadapt.vocab.types import Ids


def nearest_unit(
    queries: NDArray[np.float32], anchors: NDArray[np.float32], k: int, *, progress: Progress = SILENT
) -> tuple[Ids, NDArray[np.float32]]:
    """The k anchors of largest cosine for each query, both of unit length: places (n, k) and cosines (n, k).

    A zero query has no neighbour and a zero anchor is none: -1 and 0 where there are fewer than k.
    """
    live = np.flatnonzero(anchors.any(axis=1)) if len(anchors) else np.zeros(0, np.int64)
    candidates = Candidates(live, np.ascontiguousarray(anchors[live]), {}, np.zeros(0, np.int64))
    barred = np.full(len(queries), -1, dtype=np.int64)
    return nearest(candidates, lambda index: queries[index], barred, k, progress=progress)
