"""Short windows packed into rows without padding between them; what several begin with is read once.

A row holds trees of tokens in the order in which a walk meets them, parents first: a token sees itself and those
below which it hangs, and its position is its depth, so that each window reads as it would alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_OPEN: Final = 16  # rows that still take windows: more fill better, and cost more to choose from


@dataclass(frozen=True)
class Packed:
    """One row: token i sees token j where j <= i < until[j]; window `members[k]` reads the tokens at `nodes[k]`."""

    ids: Ints  # (T,)
    depth: Ints  # (T,)
    until: Ints  # (T,)
    members: tuple[int, ...]
    nodes: tuple[Ints, ...]

    def __len__(self) -> int:
        return len(self.ids)


class _Row:
    """A row that still takes windows, given in order; `shared` is what the next has in common with the last."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depth: list[int] = []
        self.until: list[int] = []
        self.path: list[int] = []  # where the last window's tokens stand
        self.members: list[int] = []
        self.nodes: list[Ints] = []
        self.shared = 0

    def take(self, member: int, read: tuple[int, ...]) -> None:
        low, new = len(self.ids), len(read) - self.shared
        for node in self.path[self.shared :]:
            self.until[node] = low
        self.path = [*self.path[: self.shared], *range(low, low + new)]
        self.ids.extend(read[self.shared :])
        self.depth.extend(range(self.shared, len(read)))
        self.until.extend([0] * new)
        self.members.append(member)
        self.nodes.append(np.array(self.path, dtype=np.int64))
        self.shared = len(read)

    def packed(self) -> Packed:
        for node in self.path:
            self.until[node] = len(self.ids)
        ids, depth, until = (np.array(values, dtype=np.int64) for values in (self.ids, self.depth, self.until))
        return Packed(ids, depth, until, tuple(self.members), tuple(self.nodes))


def pack(reads: Mapping[int, tuple[int, ...]], width: int) -> Iterator[Packed]:
    """Rows of at most `width` tokens for windows, by number, that each read no more than that.

    In lexical order a window has most in common with the one before it; it goes to the open row to which it adds
    least, the fullest among equals.
    """
    rows: list[_Row] = []
    last: tuple[int, ...] = ()
    for member in sorted(reads, key=reads.__getitem__):
        read = reads[member]
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(last, read, strict=False)))
        for row in rows:
            row.shared = min(row.shared, common)
        last = read
        fitting = [row for row in rows if len(row.ids) + len(read) - row.shared <= width]
        if fitting:
            best = max(fitting, key=lambda row: (row.shared, len(row.ids)))
        else:
            if len(rows) == _OPEN:
                fullest = max(rows, key=lambda row: len(row.ids))
                rows.remove(fullest)
                yield fullest.packed()
            best = _Row()
            rows.append(best)
        best.take(member, read)
    for row in rows:
        yield row.packed()
