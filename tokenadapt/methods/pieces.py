"""The mean of a token's old pieces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.plan import Plan, Problem
from tokenadapt.vocab.types import Segmentation


def pieces(problem: Problem) -> Plan:
    """Each row is the mean of the old rows whose bytes, joined, are the token's (FVT, Gee et al. 2022; ReTok)."""
    cut = readable(problem)
    return Plan(cut.start, cut.piece, (1 / cut.counts[ragged.owners(cut.start)]).astype(np.float32))


def readable(problem: Problem) -> Segmentation:
    """The pieces that have a row; some models have fewer rows than their tokenizer has tokens."""
    cut = problem.segmentation
    keep = cut.piece < problem.table.shape[0]
    if keep.all():
        return cut
    return replace(cut, start=ragged.kept(cut.start, keep), piece=cut.piece[keep], length=cut.length[keep])
