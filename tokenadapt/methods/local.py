"""TokenAdapt's local heuristic: the token's own old pieces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenadapt.methods import ragged
from tokenadapt.methods.options import Positive
from tokenadapt.methods.pieces import readable
from tokenadapt.methods.ragged import Floats
from tokenadapt.plan import BLOCK_ROWS, Plan, Problem, Space
from tokenadapt.vocab.types import Segmentation


def local(problem: Problem, *, tau: Positive = 0.3) -> Plan:
    """Weights softmax(c / `tau`), where c is the mean of a piece's share of the length and its softmaxed cosine.

    The softmax over cosines has no temperature. Pieces without a vector are left out; a token without one, or
    with no piece left, is left to the fallback. Paper: tau 0.6; published code: 0.3 (arXiv:2505.09738).
    """
    assert problem.space is not None
    cut = readable(problem)
    cosine, known = piece_cosines(problem.space, cut)
    start = ragged.kept(cut.start, known)
    share = cut.length / np.maximum(1, cut.token_length)[ragged.owners(cut.start)]
    c = (ragged.softmax(cosine[known], start) + share[known]) / 2
    return Plan(start, cut.piece[known], ragged.softmax(c / tau, start).astype(np.float32))


def piece_cosines(space: Space, cut: Segmentation) -> tuple[Floats, NDArray[np.bool_]]:
    """Cosine of each piece with its token, and whether both have a vector: (N,), (N,)."""
    cosine, known = np.zeros(len(cut.piece)), np.zeros(len(cut.piece), dtype=bool)
    run = ragged.owners(cut.start)
    M = len(cut.start) - 1
    for first in range(0, M, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, M)
        begin, end = int(cut.start[first]), int(cut.start[last])
        if begin == end:
            continue
        wanted, where = np.unique(cut.piece[begin:end], return_inverse=True)
        old, new = space.source(wanted), space.missing(np.arange(first, last))
        of = run[begin:end] - first
        cosine[begin:end] = np.einsum("nd,nd->n", old[where], new[of], dtype=np.float64)
        known[begin:end] = np.any(old != 0, axis=1)[where] & np.any(new != 0, axis=1)[of]
    return cosine, known
