"""OFA: one set of multilingual word vectors, and rows of lower rank on request."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.methods.by_vectors import nearest_rows
from tokenadapt.methods.options import Bound, Count, Positive
from tokenadapt.methods.statistics import blocks
from tokenadapt.methods.words import read_word_vectors, subword_vectors
from tokenadapt.plan import BLOCK_ROWS, Dense, Plan, Problem, missing_rows

LANGUAGE = re.compile(r"^[a-z]{3}:")


def ofa(
    problem: Problem,
    *,
    vectors: Path,
    k: Count = 10,
    tau: Positive = 0.1,
    keep_dim: Annotated[int, Bound(0)] = 0,
    words: Count = 2_000_000,
) -> Plan | Dense:
    """softmax(cosine / tau) over the k nearest old tokens, in multilingual word vectors (Liu et al., arXiv:2311.08849).

    `vectors` is one file for all languages; words as in ColexNet+ (`deu:$wort$`) lose their code, and $ is a space.
    A token's vector is the plain mean of the words that hold it. `keep_dim` gives new rows what they would have in
    the factorised model E = F P of that rank: they are projected on P's rows, so that the result still loads as it
    is; what is lost is what the dropped directions of the old table held. 0 keeps all.
    """
    read = read_word_vectors(vectors, words)
    plain = [LANGUAGE.sub("", word).replace("$", " ").strip() or word for word in read.words]
    shared = replace(read, words=plain)
    old = subword_vectors(problem.source, shared, by_frequency=False)
    new = subword_vectors(problem.target, shared, by_frequency=False)
    plan = nearest_rows(problem, old, new, k, tau)
    if not 0 < keep_dim < problem.width:
        return plan
    onto = torch.from_numpy(primitives(problem, keep_dim)).float()
    M = len(plan.start) - 1
    rows = torch.empty(M, problem.width)
    for first in range(0, M, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, M)
        rows[first:last] = missing_rows(problem.table, plan, first, last) @ onto.T @ onto
    return Dense(rows, plan.empty)


def primitives(problem: Problem, keep_dim: int) -> NDArray[np.float64]:
    """The leading right singular vectors of the old table: (keep_dim, D)."""
    second = np.zeros((problem.width, problem.width))
    for rows in blocks(problem.table, np.arange(problem.table.shape[0])):
        second += rows.T @ rows
    return np.ascontiguousarray(np.linalg.eigh(second)[1][:, ::-1][:, :keep_dim].T)
