"""Exact neighbours among given vectors."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab.types import Ids

SCORES: Final = 32 << 20  # similarities held at once
MARGIN: Final = 8  # fetched beyond k, so that ties are settled by place and not by the machine


def nearest_unit(
    queries: NDArray[np.float32], anchors: NDArray[np.float32], k: int, *, progress: Progress = SILENT
) -> tuple[Ids, NDArray[np.float32]]:
    """The k anchors of largest cosine for each query, both of unit length: places (n, k) and cosines (n, k).

    A zero query has no neighbour and a zero anchor is none: -1 and 0 where there are fewer than k.
    """
    place = np.full((len(queries), k), -1, dtype=np.int64)
    cosine = np.zeros((len(queries), k), dtype=np.float32)
    live = np.flatnonzero(np.any(anchors != 0, axis=1))
    asking = np.flatnonzero(np.any(queries != 0, axis=1))
    if not len(live):
        return place, cosine
    matrix, names = torch.from_numpy(np.ascontiguousarray(anchors[live])), torch.from_numpy(live)
    block = max(1, SCORES // len(live))
    with progress.stage("search neighbours", total=len(asking), unit="tokens") as advance:
        for first in range(0, len(asking), block):
            part = asking[first : first + block]
            found, score = _top(torch.from_numpy(queries[part]), matrix, names, k)
            place[part, : found.shape[1]], cosine[part, : found.shape[1]] = found, score
            advance(len(part))
    return place, cosine


def _top(asked: torch.Tensor, matrix: torch.Tensor, names: torch.Tensor, k: int) -> tuple[Ids, NDArray[np.float32]]:
    """Names and cosines of one block's k best, best first, equal ones by name."""
    _, index = (asked @ matrix.T).topk(min(k + MARGIN, len(names)), dim=1)
    exact = torch.einsum("qd,qmd->qm", asked.double(), matrix[index].double()).float().numpy()
    name = names[index].numpy()
    order = np.lexsort((name, -exact), axis=1)[:, :k]
    return np.take_along_axis(name, order, 1), np.take_along_axis(exact, order, 1)
