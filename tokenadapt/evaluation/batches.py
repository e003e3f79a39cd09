"""Windows to batches: alike in length, bounded in tokens, the same whoever scores them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenadapt.evaluation.encode import Encoded
from tokenadapt.evaluation.windows import Windows

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """What stands around every window that is framed, and what hides a token of a masked model."""

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    mask: int | None = None


@dataclass(frozen=True)
class Batch:
    """Padded windows on the right; `rows` are the flat positions whose prediction is read."""

    ids: Ints  # (B, T)
    length: Ints  # (B,)
    rows: Ints  # (n,) into B * T
    token: Ints  # (n,) which token of the documents each row predicts


@dataclass(frozen=True)
class Budget:
    """How many tokens a batch may hold, and how many tokens of padding cost as much as one batch more."""

    tokens: int
    padding: int


def group(windows: Windows, frame: Frame, budget: Budget) -> list[Ints]:
    """Numbers of the windows that are read together: longest first, within the budget, padding included."""
    around = np.where(windows.framed, len(frame.prefix) + len(frame.suffix), 0)
    length = np.maximum(windows.end - windows.begin + around - (frame.mask is None), 1)
    order = np.argsort(-length, kind="stable")
    groups: list[Ints] = []
    low = wasted = 0
    for place, size in enumerate(length[order].tolist()):
        longest = int(length[order[low]])
        wasted += longest - size
        if ((place - low + 1) * longest > budget.tokens and place > low) or wasted > budget.padding:
            groups.append(order[low:place])
            low, wasted = place, 0
    return [*groups, order[low:]] if len(order) else []


def build(encoded: Encoded, windows: Windows, frame: Frame, members: Ints) -> Batch:
    """One batch of the windows `members`; a token without anything before it has no row."""
    reads, rows, tokens = [], [], []
    for index in members.tolist():
        begin, first, end = int(windows.begin[index]), int(windows.first[index]), int(windows.end[index])
        prefix, suffix = (frame.prefix, frame.suffix) if windows.framed[index] else ((), ())
        if frame.mask is None:
            reads.append(np.concatenate([np.array(prefix, dtype=np.int64), encoded.ids[begin : end - 1]]))
            low = first if first > begin or prefix else first + 1
            tokens.append(np.arange(low, end))
            rows.append(np.arange(low, end) - begin + len(prefix) - 1)
        else:
            read = np.concatenate([np.array(prefix), encoded.ids[begin:end], np.array(suffix)]).astype(np.int64)
            read[len(prefix) + first - begin] = frame.mask
            reads.append(read)
            tokens.append(np.array([first]))
            rows.append(np.array([len(prefix) + first - begin]))
    length = np.array([len(read) for read in reads])
    width = max(1, int(length.max()))
    ids = np.full((len(reads), width), frame.prefix[0] if frame.prefix else 0, dtype=np.int64)
    for place, read in enumerate(reads):
        ids[place, : len(read)] = read
        rows[place] = rows[place] + place * width
    return Batch(ids, length, np.concatenate(rows), np.concatenate(tokens))
