"""From tokens to strings to vectors: what every encoder of text shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tokenadapt.spaces.options import Matrix
from tokenadapt.spaces.strings import Strings
from tokenadapt.vocab.types import Alignment, ByteVocab, Ids, Segmentation


class Encoder(Protocol):
    """Strings to vectors."""

    def prefetch(self, texts: Sequence[str]) -> None:
        """Make sure that these strings' vectors are at hand: all ranks of a run call it alike."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors, or zero rows where a string has none: (len(texts), d)."""
        ...


class TextVectors:
    """Vectors of tokens by the strings that stand for them; strings are encoded once, and only those needed."""

    def __init__(
        self,
        encoder: Encoder,
        source: ByteVocab,
        target: ByteVocab,
        alignment: Alignment,
        segmentation: Segmentation,
    ) -> None:
        self.encoder = encoder
        self.old = Strings(source.token_bytes)
        self.new = Strings(target.token_bytes[token] for token in alignment.missing)
        self.pieces = np.unique(segmentation.piece)
        self.ready = False

    def source(self, ids: Ids) -> Matrix:
        """Vectors of old tokens."""
        self._first()
        return self._take(self.old, ids)

    def missing(self, index: Ids) -> Matrix:
        """Vectors of missing tokens by position."""
        self._first()
        return self._take(self.new, index)

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Vectors of any strings, as they are."""
        return self.encoder.encode_texts(texts)

    def prepare(self) -> None:
        """Encode all strings that any method may ask for; the ranks of a run share the work."""
        self.encoder.prefetch(list(dict.fromkeys([*self.new.texts, *self.old.texts])))
        self.ready = True

    def _first(self) -> None:
        """Encode missing tokens and pieces in one go, so that batches are as even as they can be."""
        if not self.ready:
            self.ready = True
            pieces = [self.old.texts[i] for i in np.unique(self.old.index[self.pieces]) if i >= 0]
            self.encoder.prefetch(list(dict.fromkeys([*self.new.texts, *pieces])))

    def _take(self, strings: Strings, which: Ids) -> Matrix:
        number = strings.index[which]
        live = np.flatnonzero(number >= 0)
        wanted, back = np.unique(number[live], return_inverse=True)
        rows = self.encoder.encode_texts([strings.texts[i] for i in wanted])
        out = np.zeros((len(which), rows.shape[1]), dtype=np.float32)
        out[live] = rows[back]
        return out
