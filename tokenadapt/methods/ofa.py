"""OFA: one set of multilingual word vectors, and rows of lower rank on request."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from tokenadapt.errors import RequestError
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
    factors: bool = False,
    words: Count = 2_000_000,
) -> Plan | Dense:
    """softmax(cosine / `tau`) over the `k` nearest old tokens, in multilingual word vectors (arXiv:2311.08849).

    `vectors` is one file for all languages; words as in ColexNet+ (`deu:$wort$`) lose their code, and $ is a space;
    the first `words` words are read. A token's vector is the plain mean of the words that hold it. `keep_dim` gives
    new rows what they would have in the factorised model E = F P of that rank: they are projected on P's rows, so that
    the result still loads as it is; what is lost is what the dropped directions of the old table held. 0 keeps all.
    `factors` stores F and P of the whole new table beside the model too (transplant.factors).
    """
    kept = 0 < keep_dim < problem.width
    if factors and not kept:
        raise RequestError(
            f"ofa can store factors of a rank below the model's width ({problem.width}) only.",
            f"Write ofa:vectors=FILE,factors=true,keep_dim=K, with K from 1 to {problem.width - 1}.",
        )
    read = read_word_vectors(vectors, words, progress=problem.progress)
    plain = [LANGUAGE.sub("", word).replace("$", " ").strip() or word for word in read.words]
    shared = replace(read, words=plain)
    old, new = (
        subword_vectors(vocab, shared, by_frequency=False, progress=problem.progress)
        for vocab in (problem.source, problem.target)
    )
    plan = nearest_rows(problem, old, new, k, tau)
    if not kept:
        return plan
    onto = _primitives(problem, keep_dim)
    M = len(plan.start) - 1
    rows = torch.empty(M, problem.width)
    for first in range(0, M, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, M)
        rows[first:last] = missing_rows(problem.table, plan, first, last) @ onto.T @ onto
    return Dense(rows, plan.empty, onto if factors else None)


def _primitives(problem: Problem, keep_dim: int) -> torch.Tensor:
    """The leading right singular vectors of the old table: (keep_dim, D)."""
    second = np.zeros((problem.width, problem.width))
    total = problem.table.shape[0]
    with problem.progress.stage("find the old table's directions", total=total, unit="rows") as advance:
        for rows in blocks(problem.table, np.arange(total)):
            second += rows.T @ rows
            advance(len(rows))
    values, vectors = np.linalg.eigh(second)  # ascending
    lost = values[:-keep_dim].clip(0).sum() / max(values.clip(0).sum(), np.finfo(float).tiny)
    problem.progress.note(
        f"{keep_dim} of {problem.width} directions are kept: old rows lose {lost:.1%} of their squared length in the "
        "others, and new rows have nothing there"
    )
    return torch.from_numpy(np.ascontiguousarray(vectors[:, ::-1][:, :keep_dim].T)).float()
