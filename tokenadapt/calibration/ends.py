"""Rows of new tokens set to the source's row of one of their pieces: the last for reading, the first for writing.

After a new token the layers must go on as after its last piece; before it the head must expect what begins with its
first. How far to go there is decided by text (`closed.py`).
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import torch

from tokenadapt.calibration.pair import Pair
from tokenadapt.calibration.split import SplitTable
from tokenadapt.plan import Role
from tokenadapt.vocab import segment
from tokenadapt.vocab.types import Segmentation

_BLOCK: Final = 8192


class Ends:
    """The pieces of a pair's new tokens."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.cut: Segmentation = segment(pair.teacher, pair.student, pair.alignment)

    @torch.no_grad()
    def set_rows(self, table: SplitTable, role: Role, which: Literal["first", "last"]) -> None:
        """Set the row of each new token that has pieces to that of its first or last piece."""
        old = self.pair.source.table(role)
        having = np.flatnonzero(self.cut.counts > 0)
        for low in range(0, len(having), _BLOCK):
            some = having[low : low + _BLOCK]
            piece = self.cut.piece[self.cut.start[some] if which == "first" else self.cut.start[some + 1] - 1]
            wanted, where = np.unique(piece, return_inverse=True)
            rows = old.rows(wanted).float()[torch.from_numpy(where)].to(table.trained.device)
            ids = torch.from_numpy(self.pair.alignment.missing[some]).to(table.trained.device)
            table.trained[table.place[ids] - len(table.frozen)] = rows
