"""Windows to batches: alike in length, bounded in tokens, the same whoever scores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tokenadapt.evaluation.encode import Encoded
from tokenadapt.evaluation.pack import Packed, pack
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
    """Padded windows on the right; `rows` are the flat positions whose prediction is read.

    In a batch of packed windows a row holds many: `depth` is each token's position, and i sees j where
    j <= i < until[j].
    """

    ids: Ints  # (B, T)
    length: Ints  # (B,)
    rows: Ints  # (n,) into B * T; in packed windows several may be the same
    token: Ints  # (n,) which token of the documents each row predicts
    depth: Ints | None = None  # (B, T)
    until: Ints | None = None  # (B, T)


@dataclass(frozen=True)
class Budget:
    """How many tokens a batch may hold, and how many tokens of padding cost as much as one batch more."""

    tokens: int
    padding: int
    row: int = 0  # tokens of a row into which short windows are packed; 0: each is read alone


Work: TypeAlias = Ints | tuple[Packed, ...]  # numbers of windows, or rows of packed ones: one batch


def arrange(encoded: Encoded, windows: Windows, frame: Frame, budget: Budget) -> list[Work]:
    """All windows from which something is predicted, as batches that `build` makes: long ones first."""
    length = _read(windows, frame)
    alone = length > 0
    rows: list[Packed] = []
    short = np.flatnonzero(alone & (length <= budget.row))
    if frame.mask is None and len(short) > 1:
        reads = {index: tuple(_ids(encoded, windows, frame, index).tolist()) for index in short.tolist()}
        rows = [row for row in pack(reads, budget.row) if len(row.members) > 1]
        alone[[member for row in rows for member in row.members]] = False
    left = np.flatnonzero(alone)
    packed = _groups(np.array([len(row) for row in rows], dtype=np.int64), budget)
    return [
        *(left[members] for members in _groups(length[left], budget)),
        *(tuple(rows[number] for number in members.tolist()) for members in packed),
    ]


def _read(windows: Windows, frame: Frame) -> Ints:
    """How many tokens the model reads of each window: (W,)."""
    around = np.where(windows.framed, len(frame.prefix) + len(frame.suffix), 0)
    return np.asarray(windows.end - windows.begin + around - (frame.mask is None))


def _groups(length: Ints, budget: Budget) -> list[Ints]:
    """What is read together: longest first, within the budget, padding included."""
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


def _ids(encoded: Encoded, windows: Windows, frame: Frame, index: int) -> Ints:
    """What a causal model reads of a window: all but its last token."""
    prefix = frame.prefix if windows.framed[index] else ()
    own = encoded.ids[windows.begin[index] : windows.end[index] - 1]
    return np.concatenate([np.array(prefix, dtype=np.int64), own])


def build(encoded: Encoded, windows: Windows, frame: Frame, work: Work) -> Batch:
    """One batch; a token without anything before it has no row."""
    if isinstance(work, tuple):
        return _build_packed(windows, frame, work)
    reads, rows, tokens = [], [], []
    for index in work.tolist():
        begin, first, end = int(windows.begin[index]), int(windows.first[index]), int(windows.end[index])
        prefix, suffix = (frame.prefix, frame.suffix) if windows.framed[index] else ((), ())
        if frame.mask is None:
            reads.append(_ids(encoded, windows, frame, index))
            token = _predicted(windows, frame, index)
            tokens.append(token)
            rows.append(token - begin + len(prefix) - 1)
        else:
            read = np.concatenate([np.array(prefix), encoded.ids[begin:end], np.array(suffix)]).astype(np.int64)
            read[len(prefix) + first - begin] = frame.mask
            reads.append(read)
            tokens.append(np.array([first]))
            rows.append(np.array([len(prefix) + first - begin]))
    ids = _padded(reads, frame.prefix[0] if frame.prefix else 0)
    flat = [row + place * ids.shape[1] for place, row in enumerate(rows)]
    return Batch(ids, np.array([len(read) for read in reads]), np.concatenate(flat), np.concatenate(tokens))


def _predicted(windows: Windows, frame: Frame, index: int) -> Ints:
    """The tokens that a causal model is scored on in a window."""
    begin, first = int(windows.begin[index]), int(windows.first[index])
    before = bool(frame.prefix) and bool(windows.framed[index])
    return np.arange(first if first > begin or before else first + 1, int(windows.end[index]))


def _build_packed(windows: Windows, frame: Frame, packed: Sequence[Packed]) -> Batch:
    ids = _padded([row.ids for row in packed], 0)
    until = np.tile(np.arange(1, ids.shape[1] + 1), (len(packed), 1))  # padding sees itself
    rows, tokens = [], []
    for place, row in enumerate(packed):
        until[place, : len(row)] = row.until
        for index, nodes in zip(row.members, row.nodes, strict=True):
            token = _predicted(windows, frame, index)
            before = len(frame.prefix) if windows.framed[index] else 0
            tokens.append(token)
            rows.append(nodes[token - windows.begin[index] + before - 1] + place * ids.shape[1])
    depth = _padded([row.depth for row in packed], 0)
    length = np.array([len(row) for row in packed])
    return Batch(ids, length, np.concatenate(rows), np.concatenate(tokens), depth, until)


def _padded(runs: Sequence[Ints], fill: int) -> Ints:
    """Runs as the rows of one array, filled up on the right."""
    made = np.full((len(runs), max(1, *(len(run) for run in runs))), fill, dtype=np.int64)
    for row, run in zip(made, runs, strict=True):
        row[: len(run)] = run
    return made
