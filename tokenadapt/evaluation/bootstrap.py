"""How far a figure would move on other documents like these: a paired bootstrap over documents."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL: Final = 0.95


def resample(bits: Floats, nbytes: NDArray[np.int64], samples: int, seed: int) -> Floats:
    """Bits per byte of every model on resampled documents: (models, samples).

    `bits` is (models, documents). Every model sees the same draws, so that a difference of two rows is paired:
    documents that are hard for both do not widen it.
    """
    models, count = bits.shape
    draw = np.random.default_rng(seed)
    found = np.empty((models, samples))
    size = nbytes.astype(np.float64)
    for sample in range(samples):
        chosen = draw.integers(0, count, count)
        total = size[chosen].sum()
        found[:, sample] = bits[:, chosen].sum(axis=1) / total if total else np.nan
    return found


def interval(values: Floats) -> tuple[float, float]:
    """The middle 95% of resampled figures; NaN where there are none."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
