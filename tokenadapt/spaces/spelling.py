"""`self:spelling`: what the source model's rows know of how tokens are spelled.

The input rows of all trained old tokens are fitted by ridge regression on the byte n-grams of their spelling; the
vector of any string, old or missing, is what the fit says of its n-grams. `dog`, ` dog` and ` dogs` come near one
another because their n-grams mean the same to the model, and so do words of one language, kind of code or topic. It
needs no download, none of the model's layers, and holds for tokens that are no valid UTF-8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from tokenadapt.plan import Table
from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.options import Matrix, unit
from tokenadapt.vocab.types import Alignment, ByteVocab, Ids, Kind

WIDTH: Final = 128  # rows are first projected to this many dimensions, at random: angles are kept well enough
RIDGE: Final = 3.0
STEPS: Final = 16  # of conjugate gradients: at this strength more change no neighbour worth having
FEWEST_TOKENS: Final = 2  # an n-gram of one token only says nothing of others
BLOCK: Final = 16384


def grams(token: bytes) -> set[bytes]:
    """N-grams of a token: 1 to 5 bytes as it is spelled with its ends, 3 to 5 of its bare lower-case form, and that."""
    spelled, core = b"\x02" + token + b"\x03", token.strip().lower()
    bare = b"\x04" + core + b"\x05"
    found = {b"a" + spelled[at : at + n] for n in range(1, 6) for at in range(len(spelled) - n + 1)}
    found |= {b"b" + bare[at : at + n] for n in range(3, 6) for at in range(len(bare) - n + 1)}
    found.add(b"w" + core)
    return found


class SpellingVectors:
    """Vectors by spelling, fitted to the input table on first use."""

    def __init__(
        self,
        table: Table,
        vocabularies: tuple[ByteVocab, ByteVocab],
        alignment: Alignment,
        undertrained: Ids,
        progress: Progress = SILENT,
    ) -> None:
        self.table, self.undertrained, self.progress = table, undertrained, progress
        self.old, new = vocabularies
        self.wanted = [new.token_bytes[token] for token in alignment.missing]
        self._number: dict[bytes, int] = {}  # n-gram -> column
        self._rarity = np.zeros(0, dtype=np.float32)  # (columns,)
        self._weight: Matrix | None = None  # (columns, WIDTH)
        self._kept: dict[str, Matrix] = {}  # vectors of all old and of all missing tokens, once asked for

    def prepare(self) -> None:
        """Fit, unless that was done."""
        if self._weight is None:
            kind = np.asarray(self.old.kind)[: self.table.shape[0]]
            ids = np.setdiff1d(np.flatnonzero((kind == Kind.ORDINARY) | (kind == Kind.ADDED)), self.undertrained)
            with self.progress.stage("fit the model's rows to spelling", total=STEPS, unit="steps") as advance:
                self._weight = self._fit(ids, advance)

    def source(self, ids: Ids) -> Matrix:
        """Vectors of old tokens."""
        return self._all("old", self.old.token_bytes)[ids]

    def missing(self, index: Ids) -> Matrix:
        """Vectors of missing tokens by position."""
        return self._all("missing", self.wanted)[index]

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Vectors of any strings."""
        return self._vectors([text.encode() for text in texts])

    def _all(self, name: str, tokens: Sequence[bytes | None]) -> Matrix:
        """Vectors of a whole vocabulary: 512 bytes a token, which is little beside spelling them again."""
        if name not in self._kept:
            self.prepare()
            parts = [self._vectors(tokens[at : at + BLOCK]) for at in range(0, len(tokens), BLOCK)]
            self._kept[name] = np.concatenate([*parts, np.zeros((0, WIDTH), dtype=np.float32)])
        return self._kept[name]

    def _fit(self, ids: Ids, advance: Any) -> Matrix:
        """Weights of n-grams, (columns, WIDTH): ridge regression of the rows about their mean, without a constant."""
        tokens = [self.old.token_bytes[token] or b"" for token in ids]
        seen = Counter(gram for token in tokens for gram in grams(token))
        self._number = {g: n for n, g in enumerate(sorted(g for g, c in seen.items() if c >= FEWEST_TOKENS))}
        self._rarity = np.array([np.log((1 + len(ids)) / seen[gram]) for gram in self._number], dtype=np.float32)
        if not self._number:
            return np.zeros((0, WIDTH), dtype=np.float32)
        spelled = self._matrix(tokens)
        turned = csr_array(spelled.T)
        goal = projected(self.table, ids)
        answer, rest = np.zeros_like(goal), goal.copy()
        step, size = rest.copy(), (rest * rest).sum(axis=0)
        for _ in range(STEPS):
            image = spelled @ (turned @ step) + RIDGE * step
            length = size / np.maximum((step * image).sum(axis=0), 1e-30)
            answer += length * step
            rest -= length * image
            before, size = size, (rest * rest).sum(axis=0)
            step = rest + (size / np.maximum(before, 1e-30)) * step
            advance(1)
        return np.asarray(turned @ answer, dtype=np.float32)

    def _matrix(self, tokens: Iterable[bytes]) -> csr_array:
        """Rows of rarity by n-gram, of length one: (n, columns)."""
        runs = [sorted(self._number[gram] for gram in grams(token) if gram in self._number) for token in tokens]
        start = np.concatenate(([0], np.cumsum([len(run) for run in runs]))).astype(np.int32)
        column = np.array([number for run in runs for number in run], dtype=np.int32)
        value = self._rarity[column]
        square = np.concatenate(([0], np.cumsum(value.astype(np.float64) ** 2)))
        length = np.sqrt(square[start[1:]] - square[start[:-1]])
        value /= np.repeat(np.where(length > 0, length, 1), np.diff(start)).astype(np.float32)
        return csr_array((value, column, start), shape=(len(runs), len(self._number)))

    def _vectors(self, tokens: Sequence[bytes | None]) -> Matrix:
        self.prepare()
        out = np.zeros((len(tokens), WIDTH), dtype=np.float32)
        live = [row for row, token in enumerate(tokens) if token]
        if live and self._weight is not None and len(self._weight):
            out[live] = self._matrix([tokens[row] or b"" for row in live]) @ self._weight
        return unit(out)


def projected(table: Table, ids: Ids) -> Matrix:
    """Rows about their mean in WIDTH random directions, the same at every call: (len(ids), WIDTH)."""
    width = table.shape[1]
    direction = np.random.default_rng(0).normal(scale=WIDTH**-0.5, size=(width, WIDTH)).astype(np.float32)
    parts = [table.rows(ids[at : at + BLOCK]).float().numpy() @ direction for at in range(0, len(ids), BLOCK)]
    rows = np.concatenate(parts) if parts else np.zeros((0, WIDTH), dtype=np.float32)
    return np.asarray(rows - rows.mean(axis=0) if len(rows) else rows, dtype=np.float32)
