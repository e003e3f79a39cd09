"""The mean of a token's old pieces."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.plan import Plan, Problem
from tokenadapt.vocab.types import Segmentation


def pieces(problem: Problem) -> Plan:
    """Each row is the mean of the old rows whose bytes, joined, are the token's (FVT, Gee et al. 2022; ReTok)."""
    cut = readable(problem)
    return Plan(cut.start, cut.piece, (1 / cut.counts[ragged.owners(cut.start)]).astype(np.float32))


def end_piece(problem: Problem, which: Literal[0, -1]) -> Plan:
    """The first (0) or last (-1) piece alone; an empty run where there is none."""
    cut = readable(problem)
    full = np.flatnonzero(cut.counts)
    at = cut.start[:-1][full] if which == 0 else cut.start[1:][full] - 1
    start = np.concatenate([[0], np.cumsum(cut.counts > 0)]).astype(np.int64)
    return Plan(start, cut.piece[at], np.ones(len(at), np.float32))


def readable(problem: Problem) -> Segmentation:
    """The pieces that have a row; some models have fewer rows than their tokenizer has tokens."""
    cut = problem.segmentation
    keep = cut.piece < problem.table.shape[0]
    if keep.all():
        return cut
    return replace(cut, start=ragged.kept(cut.start, keep), piece=cut.piece[keep], length=cut.length[keep])
