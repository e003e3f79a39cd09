"""Different rules for reading and writing."""

from __future__ import annotations

from tokenadapt.finishing import calibrate_norms
from tokenadapt.methods.length import length
from tokenadapt.methods.pieces import pieces
from tokenadapt.plan import Dense, Plan, Problem


def asymmetric(problem: Problem) -> Plan | Dense:
    """Input: the mean of the pieces with calibrated norms. Output: pieces by length (arXiv:2608.03494)."""
    return calibrate_norms(problem, pieces(problem)) if problem.role == "input" else length(problem)
