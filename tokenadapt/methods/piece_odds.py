"""How likely the source model finds a token's further pieces after its first, kept in the cache."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tokenadapt.methods.pieces import readable
from tokenadapt.plan import Problem
from tokenadapt.spaces.cache import VectorCache
from tokenadapt.spaces.own import begin_of, fingerprint
from tokenadapt.spaces.stored import input_key

TITLE: Final = "log-probabilities of pieces"
FLUSH: Final = 32_768  # strings that a kill may cost
LOWEST: Final = -6e4  # what float16 holds


def log_rest(problem: Problem) -> NDArray[np.float64]:
    """Log-probability of each missing token's further pieces given those before: (M,), 0 for one piece.

    The pieces are read after the token that begins a text. What was read once is in the cache.
    """
    assert problem.model is not None
    cut, begin = readable(problem), begin_of(problem.source)
    several = np.flatnonzero(cut.counts > 1)
    out = np.zeros(len(cut.counts))
    if not len(several):
        return out
    strings = [(*begin, *cut.piece[cut.start[j] : cut.start[j + 1]].tolist()) for j in several]
    keys = [input_key(string) for string in strings]
    identity = {"content": fingerprint(problem.model, [*begin, 0]), "begin": begin}
    cache = VectorCache(TITLE, {"kind": TITLE, **identity})
    absent = sorted({string: key for string, key in zip(strings, keys, strict=True) if key not in cache}.items())
    if absent:
        cache.require_writable()
    for first in range(0, len(absent), FLUSH):  # in an order in which strings that begin alike stand together
        part = absent[first : first + FLUSH]
        logs = problem.model.log_probs([string for string, _ in part])
        cache.add([key for _, key in part], _in_two([float(each[len(begin) :].sum()) for each in logs]))
    out[several] = cache.rows(keys).astype(np.float64).sum(axis=1)
    return out


def _in_two(values: list[float]) -> NDArray[np.float32]:
    """Each number as a sum of two that float16 holds: (n, 2)."""
    whole = np.maximum(values, LOWEST)
    coarse = whole.astype(np.float16).astype(np.float64)
    return np.stack([coarse, whole - coarse], axis=1).astype(np.float32)
