"""SAVA: one map from the helper's space to the source's."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.methods import donor
from tokenadapt.methods.donor import DonorView
from tokenadapt.methods.options import NonNegative
from tokenadapt.methods.statistics import mean_row, variance
from tokenadapt.plan import BLOCK_ROWS, Dense, Problem, Table
from tokenadapt.vocab.types import Ids

Matrix = NDArray[np.float64]
Moments = tuple[Matrix, Matrix]  # mean and standard deviation of each column


def sava(
    problem: Problem,
    *,
    map: Literal["affine", "orthogonal"] = "affine",  # noqa: A002 - the name that users type
    standardise: bool = True,
    ridge: NonNegative = 1e-6,
) -> Dense:
    """The donor's row, mapped into the source's space by a map fitted on the copied tokens (arXiv:2504.17025).

    `map` is any affine map, or an orthogonal one, which turns and moves but neither stretches nor shears.
    `standardise` brings each column of both sides to mean 0 and variance 1 before the fit, and back after it;
    otherwise only the means are taken out. `ridge` is in units of the mean square of a donor column. A token that the
    donor lacks is left to the fallback.
    """
    shared = donor.view(problem)
    M = len(problem.alignment.missing)
    rows, empty = torch.zeros(M, problem.width), np.ones(M, dtype=bool)
    if not len(shared.anchor):
        return Dense(rows, empty)
    here, there = (
        _moments(shared.table, shared.anchor, standardise),
        _moments(problem.table, shared.source, standardise),
    )
    fitted = _fit(*_products(problem, shared, here, there), map, ridge)
    with problem.progress.stage("map donor rows", total=len(shared.known), unit="tokens") as advance:
        for first in range(0, len(shared.known), BLOCK_ROWS):
            index = shared.known[first : first + BLOCK_ROWS]
            x = (shared.missing_rows(index).double().numpy() - here[0]) / here[1]
            rows[index] = torch.from_numpy((x @ fitted) * there[1] + there[0]).float()
            empty[index] = False
            advance(len(index))
    return Dense(rows, empty)


def _products(problem: Problem, shared: DonorView, here: Moments, there: Moments) -> tuple[Matrix, Matrix]:
    """X^T X (d, d) and X^T Y (d, D) over the copied tokens, X in the donor's space and Y in the source's."""
    square, cross = np.zeros((len(here[0]),) * 2), np.zeros((len(here[0]), problem.width))
    with problem.progress.stage("compare copied tokens", total=len(shared.anchor), unit="tokens") as advance:
        for first in range(0, len(shared.anchor), BLOCK_ROWS):
            part = slice(first, first + BLOCK_ROWS)
            x = (shared.table.rows(shared.anchor[part]).double().numpy() - here[0]) / here[1]
            square += x.T @ x
            cross += x.T @ ((problem.table.rows(shared.source[part]).double().numpy() - there[0]) / there[1])
            advance(len(x))
    return square, cross


def _moments(table: Table, ids: Ids, standardise: bool) -> Moments:
    """Mean and standard deviation of each column; 1 where it is not wanted or a column never changes."""
    mean = mean_row(table, ids)
    if not standardise:
        return mean, np.ones_like(mean)
    spread = np.sqrt(variance(table, ids, mean))
    return mean, np.where(spread > 1e-12, spread, 1.0)


def _fit(square: Matrix, cross: Matrix, map_kind: str, ridge: float) -> Matrix:
    """The map (d, D): least squares, or the orthogonal one of Procrustes (semi-orthogonal where widths differ)."""
    if map_kind == "orthogonal":
        left, _, right = np.linalg.svd(cross, full_matrices=False)
        return np.asarray(left @ right)
    strength = max(ridge, 1e-12) * max(float(square.diagonal().mean()), 1e-12)
    return np.asarray(np.linalg.solve(square + strength * np.eye(len(square)), cross), dtype=np.float64)
