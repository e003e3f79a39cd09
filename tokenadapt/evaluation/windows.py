"""Which stretch of tokens a model reads at a time, so that every token is scored exactly once.

Window w reads the frame's prefix (a begin token) and tokens begin:end-1, and is scored on tokens first:end. Only the
first window of a document has first == begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokenadapt.errors import RequestError
from tokenadapt.evaluation.encode import Encoded
from tokenadapt.evaluation.options import DEFAULT_CONTEXT, ScoreOptions

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """All windows of some documents; token positions count through `Encoded.ids`."""

    begin: Ints  # (W,)
    first: Ints  # (W,)
    end: Ints  # (W,)
    framed: NDArray[np.bool_]  # (W,) the prefix stands before it
    clipped: int = 0  # windows that the model's positions made shorter than --context-bytes asked

    def __len__(self) -> int:
        return len(self.begin)


@dataclass(frozen=True)
class _Budget:
    """How much a window may hold."""

    tokens: int  # tokens of a framed window, the one that is only predicted included
    bare: int  # the same of a window without a frame
    size: int  # what a window holds, in the unit of the stride
    stride: int


Row = tuple[int, int, int]  # begin, first, end


def cut_windows(encoded: Encoded, options: ScoreOptions, positions: int, frame: int) -> Windows:
    """Windows of all documents for a model of `positions` tokens, `frame` of them taken by begin and end tokens."""
    budget = _budget(options, positions, frame)
    sizes = encoded.nbytes if options.context_bytes else np.ones(len(encoded.ids), dtype=np.int64)
    rows: list[Row] = []
    clipped = 0
    for low, high in zip(encoded.start[:-1].tolist(), encoded.start[1:].tolist(), strict=True):
        if options.windows == "disjoint":
            rows.extend(_disjoint(low, high, budget))
        elif high - low <= budget.tokens and int(sizes[low:high].sum()) <= budget.size:
            rows.extend([(low, low, high)] if high > low else [])
        else:
            for row, short in _overlapping(low, sizes[low:high], budget):
                rows.append(row)
                clipped += short
    begin, first, end = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    framed = first == begin if options.windows == "disjoint" else np.ones(len(rows), dtype=bool)
    return Windows(begin, first, end, framed & (frame > 0), clipped)


def _budget(options: ScoreOptions, positions: int, frame: int) -> _Budget:
    if options.context and options.context > positions:
        raise RequestError(
            f"A context of {options.context} tokens is more than the model's {positions} positions.",
            f"Give --context {positions} or less.",
        )
    context = positions if options.context_bytes else options.context or min(positions, DEFAULT_CONTEXT)
    bare = context + (options.kind == "causal")  # a causal model predicts the last token and does not read it
    room = bare - frame
    if room < 2:
        raise RequestError(f"A context of {context} leaves no room beside the begin tokens.", "Raise --context.")
    size = options.context_bytes or room
    stride = options.stride or max(1, (options.context_bytes or context) // 2)
    return _Budget(room, bare, size, stride if options.context_bytes else min(stride, room - 1))


def _disjoint(low: int, high: int, budget: _Budget) -> Iterator[Row]:
    """The harness's windows: the last one reaches back until it is as long as the others."""
    end = min(low + budget.tokens, high)
    if end > low:
        yield low, low, end
    while end < high:
        first, end = end, min(end + budget.bare - 1, high)
        yield max(low, end - budget.bare), first, end


def _overlapping(low: int, sizes: Ints, budget: _Budget) -> Iterator[tuple[Row, bool]]:
    """Windows of a document that needs more than one, and whether the model's positions cut each short."""
    total = np.concatenate(([0], np.cumsum(sizes)))  # (tokens + 1,) size before each token
    count = len(sizes)

    def reach(start: int, size: int) -> int:
        """The last end such that start:end fits, at least one token further."""
        end = int(np.searchsorted(total, total[start] + size, side="right")) - 1
        return min(max(end, start + 1), count)

    wanted = reach(0, budget.size)
    end = min(wanted, budget.tokens)
    yield (low, low, low + end), end < wanted
    while end < count:
        first, end = end, min(reach(end, budget.stride), end + budget.tokens - 1)
        fits = min(int(np.searchsorted(total, total[end] - budget.size, side="left")), first - 1)
        begin = max(fits, end - budget.tokens, 0)
        yield (low + begin, low + first, low + end), begin > fits


def masked_windows(windows: Windows) -> Windows:
    """One window per scored token, each reading the whole stretch of its window: pseudo-log-likelihood."""
    counts = windows.end - windows.first
    before = np.cumsum(counts) - counts
    token = np.arange(int(counts.sum())) - np.repeat(before, counts) + np.repeat(windows.first, counts)
    return replace(
        windows,
        begin=np.repeat(windows.begin, counts),
        first=token,
        end=np.repeat(windows.end, counts),
        framed=np.repeat(windows.framed, counts),
    )
