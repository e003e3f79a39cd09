"""Spaces made of the source model itself: nothing to download, and a vector for every token, text or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokenadapt.plan import Table
from tokenadapt.spaces.options import Matrix, unit
from tokenadapt.vocab.types import ByteVocab, Ids, Segmentation


class RowVectors:
    """`self:rows`: an old token is its own input row, any other string the mean of its pieces' rows.

    Rows are taken about the mean row: without that, all cosines of a language model's table are high.
    """

    def __init__(self, table: Table, source: ByteVocab, segmentation: Segmentation) -> None:
        self.table, self.vocab, self.segmentation = table, source, segmentation
        self.mean = mean_row(table)  # (D,)

    def source(self, ids: Ids) -> Matrix:
        """Vectors of old tokens."""
        return unit(self.table.rows(ids).float().numpy() - self.mean)

    def missing(self, index: Ids) -> Matrix:
        """Vectors of missing tokens by position."""
        start, piece = self.segmentation.start, self.segmentation.piece
        return self._means([piece[start[j] : start[j + 1]] for j in index])

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Vectors of strings, cut by the source tokenizer's own model; zero where it cannot spell one."""
        cut = self.vocab.spell([text.encode() for text in texts])
        return self._means([np.array(run or [], dtype=np.int64) for run in cut])

    def _means(self, runs: Sequence[Ids]) -> Matrix:
        length = np.array([len(run) for run in runs], dtype=np.int64)
        out = np.zeros((len(runs), self.table.shape[1]), dtype=np.float32)
        pieces = np.concatenate([*runs, np.zeros(0, dtype=np.int64)])
        if len(pieces):
            rows = self.table.rows(pieces).float().numpy() - self.mean
            begin = np.cumsum(length) - length
            full = np.flatnonzero(length)
            out[full] = np.add.reduceat(rows, begin[full], axis=0) / length[full, None]
        return unit(out)


def mean_row(table: Table, block: int = 16384) -> Matrix:
    """Mean of all rows in float32: (D,)."""
    total = np.zeros(table.shape[1], dtype=np.float64)
    for first in range(0, table.shape[0], block):
        ids = np.arange(first, min(first + block, table.shape[0]))
        total += table.rows(ids).double().sum(dim=0).numpy()
    return np.asarray(total / max(table.shape[0], 1), dtype=np.float32)
