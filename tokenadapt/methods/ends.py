"""What reading ends with, and what writing begins with."""

from __future__ import annotations

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.methods.options import Share
from tokenadapt.methods.pieces import end_piece, readable
from tokenadapt.plan import Plan, Problem


def ends(problem: Problem, *, decay: Share = 0.5) -> Plan:
    """Input row: the last piece, which the model reads last. Output row: pieces weighted 1, `decay`, its square, ..."""
    if problem.role == "input":
        return end_piece(problem, -1)
    cut = readable(problem)
    order = np.arange(len(cut.piece)) - cut.start[:-1][ragged.owners(cut.start)]
    weight = ragged.normalised(np.power(float(decay), order), cut.start)
    return Plan(cut.start, cut.piece, weight.astype(np.float32))
