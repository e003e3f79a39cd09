"""How large a step is, by how much of the budget is used."""

from __future__ import annotations

import math

FLOOR = 0.05  # of the highest rate, at the end of a cosine


def rate(done: float, kind: str, warmup: float) -> float:
    """The share of the highest rate at `done`, a share of the budget in 0..1."""
    done = min(max(done, 0.0), 1.0)
    if done < warmup:
        return done / warmup
    if kind == "constant":
        return 1.0
    along = (done - warmup) / (1 - warmup)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * along)) / 2
