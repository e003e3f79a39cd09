"""An auxiliary space as methods see it: vectors of tokens and the neighbours among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.candidates import Candidates, choose_candidates
from tokenadapt.spaces.neighbours import nearest
from tokenadapt.spaces.options import Matrix, SpaceOptions, TokenVectors
from tokenadapt.vocab.types import Alignment, ByteVocab, Ids


class TokenSpace:
    """The `Space` of a transplant. Vectors are made on first use; neighbours are kept per k."""

    def __init__(
        self,
        name: str,
        vectors: TokenVectors,
        vocabularies: tuple[ByteVocab, ByteVocab],
        alignment: Alignment,
        rows: int,
        undertrained: Ids,
        *,
        options: SpaceOptions | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self._name, self.vectors, self.options, self.progress = name, vectors, options or SpaceOptions(), progress
        self.old, self.new = vocabularies
        self.missing_ids, self.rows, self.undertrained = alignment.missing, rows, undertrained
        self._candidates: Candidates | None = None
        self._neighbours: dict[int, tuple[Ids, NDArray[np.float32]]] = {}

    @property
    def name(self) -> str:
        """What a user typed after --space."""
        return self._name

    def source(self, ids: Ids) -> Matrix:
        """Unit vectors of old tokens, zero rows where there is none: (len(ids), d)."""
        return self.vectors.source(np.asarray(ids, dtype=np.int64))

    def missing(self, index: Ids) -> Matrix:
        """Unit vectors of missing tokens by position, zero rows where there is none: (len(index), d)."""
        return self.vectors.missing(np.asarray(index, dtype=np.int64))

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors of any strings in this space: (len(texts), d)."""
        return self.vectors.encode_texts(texts)

    @property
    def candidates(self) -> Candidates:
        """Old tokens that may be neighbours; chosen once, reported once."""
        if self._candidates is None:
            self._candidates = choose_candidates(self.old, self.rows, self.source, self.undertrained)
            self.progress.note(self._candidates.describe())
        return self._candidates

    def neighbours(self, k: int) -> tuple[Ids, NDArray[np.float32]]:
        """Ids (M, k) and cosines (M, k) of the k nearest old tokens of every missing token; -1 and 0 where fewer."""
        if k not in self._neighbours:
            same = {token: old for old, token in enumerate(self.old.token_bytes) if token is not None}
            barred = [same.get(self.new.token_bytes[token] or b"", -1) for token in self.missing_ids]
            self._neighbours[k] = nearest(
                self.candidates.ids,
                self.source,
                self.missing,
                np.array(barred, dtype=np.int64),
                k,
                backend=self.options.backend,
                progress=self.progress,
            )
        return self._neighbours[k]
