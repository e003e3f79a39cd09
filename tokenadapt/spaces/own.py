"""Spaces made of the source model itself: nothing to download, and a vector for every token, text or not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from tokenadapt.plan import Model, Table
from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.cache import VectorCache
from tokenadapt.spaces.options import Matrix, unit
from tokenadapt.spaces.stored import Input, StoredVectors
from tokenadapt.vocab.types import ByteVocab, Ids, Kind, Segmentation

STATE_BATCH: Final = 16384  # tokens: what a kill may cost
ENOUGH: Final = 64  # strings for a mean of their own


class RowVectors:
    """`self:rows`: an old token is its own input row, any other string the mean of its pieces' rows.

    Rows are taken about the mean row: without that, all cosines of a language model's table are high.
    """

    def __init__(self, table: Table, source: ByteVocab, segmentation: Segmentation) -> None:
        self.table, self.vocab, self.segmentation = table, source, segmentation
        self.mean = mean_row(table)  # (D,)

    def prepare(self) -> None:
        """Nothing to make: rows are read where they lie."""

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


class StateVectors:
    """`self:states=DEPTH`: the model's hidden state at the last piece of a token, at a relative depth.

    An old token is read as itself, any other string as its pieces, both after the token that begins a text: at a first
    position a model keeps no meaning but an attention sink. States are taken about the mean of their own sort, read as
    one token or as several, since a state's place in the text weighs more in it than its meaning.
    """

    def __init__(
        self,
        model: Model,
        depth: float,
        source: ByteVocab,
        segmentation: Segmentation,
        progress: Progress = SILENT,
    ) -> None:
        self.model, self.depth, self.vocab, self.segmentation = model, depth, source, segmentation
        self.begin = begin_of(source)
        identity = {"content": fingerprint(model, [*self.begin, 0]), "depth": depth, "begin": list(self.begin)}
        title = f"self:states={depth:g}"
        cache = VectorCache(title, identity)
        self.stored = StoredVectors(cache, self._encode, STATE_BATCH, name=title, progress=progress)
        self._means: tuple[Matrix, Matrix] | None = None  # of single tokens, of several pieces

    def prepare(self) -> None:
        """Make the states of all old and missing tokens; the ranks of a run share the work."""
        old = [(int(token),) for token in self._readable()]
        self.stored.prefetch([(*self.begin, *run) for run in [*old, *self._runs(range(self._count()))] if run])

    def source(self, ids: Ids) -> Matrix:
        """Vectors of old tokens."""
        return self._about_mean([(int(token),) for token in ids])

    def missing(self, index: Ids) -> Matrix:
        """Vectors of missing tokens by position."""
        return self._about_mean(self._runs(index))

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Vectors of strings, cut by the source tokenizer's own model; zero where it cannot spell one."""
        return self._about_mean([tuple(run or ()) for run in self.vocab.spell([text.encode() for text in texts])])

    def _count(self) -> int:
        return len(self.segmentation.start) - 1

    def _readable(self) -> Ids:
        kind = np.asarray(self.vocab.kind)[: self.model.table("input").shape[0]]
        return np.flatnonzero(np.isin(kind, (Kind.ORDINARY, Kind.BYTE, Kind.ADDED)))

    def _runs(self, index: Sequence[int] | Ids | range) -> list[tuple[int, ...]]:
        start, piece = self.segmentation.start, self.segmentation.piece
        return [tuple(piece[start[j] : start[j + 1]].tolist()) for j in index]

    def _about_mean(self, runs: Sequence[tuple[int, ...]]) -> Matrix:
        means = self._both_means()
        live = [row for row, run in enumerate(runs) if run]
        out = np.zeros((len(runs), len(means[0])), dtype=np.float32)
        if live:
            states = self.stored.rows([(*self.begin, *runs[row]) for row in live])
            several = np.array([len(runs[row]) > 1 for row in live])[:, None]
            out[live] = states - np.where(several, means[1], means[0])
        return unit(out)

    def _both_means(self) -> tuple[Matrix, Matrix]:
        if self._means is None:
            self.prepare()
            old = [(int(token),) for token in _some(self._readable())]
            new = [run for run in self._runs(_some(np.arange(self._count()))) if len(run) > 1]
            single = self.stored.rows([(*self.begin, *run) for run in old]).mean(axis=0)
            several = self.stored.rows([(*self.begin, *run) for run in new]).mean(axis=0) if new else single
            self._means = single, several if len(new) >= ENOUGH else single
        return self._means

    def _encode(self, inputs: list[Input]) -> Matrix:
        return np.asarray(self.model.states([list(entry) for entry in inputs], [self.depth])[:, 0], dtype=np.float32)


def begin_of(vocab: ByteVocab) -> tuple[int, ...]:
    """The token that a string is read after, where the vocabulary has one."""
    return tuple(vocab.roles[role] for role in ("bos", "eos", "sep", "cls") if role in vocab.roles)[:1]


def _some(ids: Ids) -> Ids:
    """At most some 8,192 of them, evenly."""
    return ids[:: max(1, len(ids) // 8192)]


def fingerprint(model: Model, probe: Sequence[int]) -> str:
    """What a model is, by what it does: a digest of its input rows and of its states on a probe.

    Of the states only the share of each eighth in the whole counts, to two digits: few numbers and coarse ones, so that
    the noise of another machine or number of threads hardly ever makes another model of it.
    """
    table = model.table("input")
    digest = hashlib.blake2b(repr((table.shape, str(table.dtype))).encode(), digest_size=16)
    for first in range(0, table.shape[0], 16384):
        rows = table.rows(np.arange(first, min(first + 16384, table.shape[0])))
        digest.update(rows.float().numpy().tobytes())
    energy = unit(model.states([list(probe)], [0.25, 0.5, 1.0])[0]).astype(np.float64) ** 2
    shares = [part.sum(axis=1) for part in np.array_split(energy, 8, axis=1)]
    digest.update(np.round(shares, 2).astype(np.float16).tobytes())
    return digest.hexdigest()


def mean_row(table: Table, block: int = 16384) -> Matrix:
    """Mean of all rows in float32: (D,)."""
    total = np.zeros(table.shape[1], dtype=np.float64)
    for first in range(0, table.shape[0], block):
        ids = np.arange(first, min(first + block, table.shape[0]))
        total += table.rows(ids).double().sum(dim=0).numpy()
    return np.asarray(total / max(table.shape[0], 1), dtype=np.float32)
