"""What reading ends with, and what writing begins with."""

from __future__ import annotations

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.methods.options import Share
from tokenadapt.methods.pieces import readable
from tokenadapt.plan import Plan, Problem


def ends(problem: Problem, *, decay: Share = 0.5) -> Plan:
    """Input row: the last piece, which the model reads last. Output row: pieces weighted 1, `decay`, its square, ..."""
    cut = readable(problem)
    filled = np.flatnonzero(cut.counts)
    if problem.role == "input":
        start = np.concatenate([[0], np.cumsum(cut.counts > 0)]).astype(np.int64)
        return Plan(start, cut.piece[cut.start[filled + 1] - 1], np.ones(len(filled), np.float32))
    order = np.arange(len(cut.piece)) - cut.start[:-1][ragged.owners(cut.start)]
    weight = ragged.normalised(np.power(float(decay), order), cut.start)
    return Plan(cut.start, cut.piece, weight.astype(np.float32))
