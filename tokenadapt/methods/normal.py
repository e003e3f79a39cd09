"""Draws from the normal distribution of the old rows."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.methods.options import NonNegative
from tokenadapt.methods.statistics import covariance as covariance_of
from tokenadapt.methods.statistics import mean_row, variance
from tokenadapt.plan import BLOCK_ROWS, Dense, Problem
from tokenadapt.vocab.types import ByteVocab

Shape = Literal["full", "diagonal", "scalar"]


def normal(problem: Problem, *, covariance: Shape = "full", scale: NonNegative = 1.0) -> Dense:
    """A draw from N(mean, scale * covariance) of the old ordinary rows (Hewitt 2021).

    `covariance`: `full` (multivariate in arXiv:2407.05841); `diagonal`, each column by itself (univariate there);
    `scalar`, one variance for the whole table (what the published TokenAdapt falls back to). `scale` makes draws
    narrower or wider; 1e-9 is what transformers' mean resizing uses. A token's draw
    depends on the seed and its bytes alone, not on its id.
    """
    ids = problem.ordinary
    centre = mean_row(problem.table, ids)
    factor = _factor(problem, covariance, centre) * np.sqrt(scale)
    missing = problem.alignment.missing
    rows = torch.empty(len(missing), problem.width, dtype=torch.float32)
    with problem.progress.stage("draw rows", total=len(missing), unit="rows") as advance:
        for first in range(0, len(missing), BLOCK_ROWS):
            part = missing[first : first + BLOCK_ROWS]
            noise = standard_normal(token_keys(problem.target, part.tolist(), problem.seed), problem.width)
            drawn = noise @ factor.T if factor.ndim == 2 else noise * factor
            rows[first : first + len(part)] = torch.from_numpy(drawn + centre)
            advance(len(part))
    return Dense(rows)


def _factor(problem: Problem, shape: Shape, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """A square root of the covariance: (D, D), or (D,) where it is diagonal."""
    ids = problem.ordinary
    if shape == "full":
        values, vectors = np.linalg.eigh(covariance_of(problem.table, ids, centre))
        return np.asarray(vectors * np.sqrt(values.clip(min=0)))
    if shape == "diagonal":
        return np.sqrt(variance(problem.table, ids, centre))
    whole = variance(problem.table, ids, np.full(problem.width, centre.mean())).mean()
    return np.full(problem.width, np.sqrt(whole))


def token_keys(vocab: ByteVocab, ids: list[int], seed: int) -> NDArray[np.uint64]:
    """A 64-bit number for each token, from the seed and the token's bytes."""
    salt = seed.to_bytes(8, "little", signed=True)

    def key(index: int) -> int:
        name = vocab.token_bytes[index]
        if name is None:
            name = b"\0" + (vocab.text[index] or str(index)).encode()
        return int.from_bytes(blake2b(name, digest_size=8, key=salt).digest(), "little")

    return np.array([key(index) for index in ids], dtype=np.uint64)


def standard_normal(keys: NDArray[np.uint64], width: int) -> NDArray[np.float64]:
    """Normal draws, one row per key: (len(keys), width). Counter-based: a row depends on its key alone."""
    pairs = (width + 1) // 2
    counter = np.arange(2 * pairs, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = keys[:, None] + counter
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's finaliser
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    uniform = ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53  # in [0, 1)
    radius = np.sqrt(-2 * np.log1p(-uniform[:, :pairs]))
    angle = 2 * np.pi * uniform[:, pairs:]
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)  # Box and Muller
    return np.asarray(both[:, :width])
