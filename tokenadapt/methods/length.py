"""Old pieces weighted by how much of the token they spell."""

from __future__ import annotations

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.methods.pieces import readable
from tokenadapt.plan import Plan, Problem


def length(problem: Problem) -> Plan:
    """Each piece's weight is its share of the token's length, in code points (bytes where it is no text)."""
    cut = readable(problem)
    weight = ragged.normalised(cut.length.astype(np.float64), cut.start)
    return Plan(cut.start, cut.piece, weight.astype(np.float32))
