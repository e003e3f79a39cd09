"""What a token's row is predicted from: the rows of its pieces, counts, and states of the source model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.methods.halves import Runs
from tokenadapt.methods.piece_states import PieceStates
from tokenadapt.methods.ragged import Floats
from tokenadapt.plan import Table
from tokenadapt.vocab.types import Ids

BLOCK: Final = 4096  # tokens
SIZES: Final = 5  # two pieces, three, ... and this many or more


@dataclass(frozen=True)
class Block:
    """Some tokens: the first, the one after the last, the mean of their pieces (n, D), their features (n, width)."""

    first: int
    last: int
    mean: Floats
    features: Floats


@dataclass(frozen=True)
class Features:
    """What a token's row is predicted from."""

    table: Table
    states: PieceStates

    @property
    def width(self) -> int:
        """Number of features."""
        return 3 * self.table.shape[1] + SIZES + 2 + self.states.width

    def blocks(self, runs: Runs, sizes: Ids) -> Iterator[Block]:
        """All tokens, in order."""
        total = len(runs.start) - 1
        for first in range(0, total, BLOCK):
            last = min(first + BLOCK, total)
            mean, *ends = self._rows(runs, first, last)
            counts = np.diff(runs.start[first : last + 1])
            kinds = np.eye(SIZES)[np.clip(counts - 2, 0, SIZES - 1)]
            more = np.stack([np.log1p(sizes[first:last]), np.ones(last - first)], axis=1)
            states = self.states.rows(runs, first, last)
            yield Block(first, last, mean, np.concatenate([mean, *ends, kinds, more, states], axis=1))

    def _rows(self, runs: Runs, first: int, last: int) -> tuple[Floats, Floats, Floats]:
        """Rows of the mean, the first and the last piece: each (last - first, D)."""
        start = runs.start[first : last + 1]
        pieces = runs.piece[start[0] : start[-1]]
        start = start - start[0]
        ids, where = np.unique(pieces, return_inverse=True)
        rows = self.table.rows(ids).double().numpy()[where] if len(ids) else np.zeros((0, self.table.shape[1]))
        mean = np.zeros((last - first, self.table.shape[1]))
        np.add.at(mean, ragged.owners(start), rows)
        counts = np.diff(start)
        mean /= np.maximum(counts, 1)[:, None]
        full = counts > 0
        head, tail = np.zeros_like(mean), np.zeros_like(mean)
        head[full], tail[full] = rows[start[:-1][full]], rows[start[1:][full] - 1]
        return mean, head, tail
