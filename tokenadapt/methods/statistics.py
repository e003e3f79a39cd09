"""Mean and covariance of old rows, one block of rows at a time, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tokenadapt.plan import Table, rows_at_once
from tokenadapt.vocab.types import Ids


def blocks(table: Table, ids: Ids) -> Iterator[NDArray[np.float64]]:
    """Rows `ids` in float64, a block at a time: (up to rows_at_once, D)."""
    step = rows_at_once(table.shape[1])
    for first in range(0, len(ids), step):
        yield table.rows(ids[first : first + step]).double().numpy()


def mean_row(table: Table, ids: Ids) -> NDArray[np.float64]:
    """Mean of the rows `ids`: (D,); zero where there are none."""
    total = np.zeros(table.shape[1])
    for rows in blocks(table, ids):
        total += rows.sum(axis=0)
    return total / max(1, len(ids))


def covariance(table: Table, ids: Ids, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of the rows `ids` about `mean`: (D, D)."""
    total = np.zeros((table.shape[1], table.shape[1]))
    for rows in blocks(table, ids):
        centred = rows - mean
        total += centred.T @ centred
    return total / max(1, len(ids) - 1)


def variance(table: Table, ids: Ids, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of each column over the rows `ids`: (D,)."""
    total = np.zeros(table.shape[1])
    for rows in blocks(table, ids):
        total += ((rows - mean) ** 2).sum(axis=0)
    return np.asarray(total / max(1, len(ids) - 1))


def norms(table: Table, ids: Ids, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each row `ids` from `centre`: (len(ids),)."""
    parts = [np.linalg.norm(rows - centre, axis=1) for rows in blocks(table, ids)]
    return np.concatenate(parts) if parts else np.zeros(0)


def spread(gain: NDArray[np.float64]) -> float:
    """Standard error of the sum of independent figures, one a text."""
    return float(np.sqrt(len(gain)) * np.std(gain, ddof=1)) if len(gain) > 1 else 0.0
