"""The tokens that cost the most, with the place where each cost most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenadapt.evaluation.encode import Encoded
from tokenadapt.evaluation.texts import Texts

BEFORE = 60  # bytes of context shown before a token
AFTER = 20


@dataclass(frozen=True)
class WorstToken:
    """A vocabulary entry and what it cost over all its occurrences."""

    id: int
    token: str  # its bytes as text; unprintable ones escaped
    how: str | None  # how its row was made, where the folder says
    count: int
    bits: float
    excess_bits: float  # bits above what its bytes cost at the model's own mean
    example: tuple[str, str, str]  # text before it, it, text after it, at its dearest place


class Tally:
    """Costs by token id over all pools of one model."""

    def __init__(self, size: int) -> None:
        self.bits, self.nbytes, self.count = np.zeros(size), np.zeros(size), np.zeros(size, dtype=np.int64)
        self.peak = np.full(size, -1.0)
        self.document = np.zeros(size, dtype=np.int64)  # of the dearest occurrence
        self.offset = np.zeros(size, dtype=np.int64)  # its first byte there
        self.width = np.zeros(size, dtype=np.int64)

    def add(self, documents: range, encoded: Encoded, bits: NDArray[np.float64]) -> None:
        """Count one pool."""
        size = len(self.bits)
        self.bits += np.bincount(encoded.ids, weights=bits, minlength=size)
        self.nbytes += np.bincount(encoded.ids, weights=encoded.nbytes, minlength=size)
        self.count += np.bincount(encoded.ids, minlength=size)
        order = np.lexsort((-bits, encoded.ids))  # by id, dearest first
        ids, first = np.unique(encoded.ids[order], return_index=True)
        place = order[first]
        better = bits[place] > self.peak[ids]
        ids, place = ids[better], place[better]
        document = encoded.document_of()[place]
        starts = np.concatenate(([0], np.cumsum(encoded.nbytes)))
        self.peak[ids] = bits[place]
        self.document[ids] = document + documents.start
        self.offset[ids] = starts[place] - starts[encoded.start[document]]
        self.width[ids] = encoded.nbytes[place]

    def worst(
        self, many: int, texts: Texts, token_bytes: Sequence[bytes | None], how: Sequence[str] | None
    ) -> tuple[WorstToken, ...]:
        """The `many` ids whose occurrences together cost most above the model's mean for their bytes."""
        total = self.nbytes.sum()
        excess = self.bits - self.nbytes * (self.bits.sum() / total if total else 0.0)
        order = np.argsort(-excess, kind="stable")[:many]
        return tuple(self._one(int(token), excess, texts, token_bytes, how) for token in order if self.count[token])

    def _one(
        self,
        token: int,
        excess: NDArray[np.float64],
        texts: Texts,
        token_bytes: Sequence[bytes | None],
        how: Sequence[str] | None,
    ) -> WorstToken:
        raw = texts.store.get(int(self.document[token]))
        low, high = int(self.offset[token]), int(self.offset[token] + self.width[token])
        example = _from_start(raw[max(0, low - BEFORE) : low]), raw[low:high], _to_end(raw[high : high + AFTER])
        spelled = token_bytes[token] if token < len(token_bytes) else None
        return WorstToken(
            id=token,
            token=_shown(spelled) if spelled is not None else f"<{token}>",
            how=how[token] if how is not None and token < len(how) else None,
            count=int(self.count[token]),
            bits=float(self.bits[token]),
            excess_bits=float(excess[token]),
            example=(_shown(example[0]), _shown(example[1]), _shown(example[2])),
        )


def _from_start(raw: bytes) -> bytes:
    """Without the rest of a character that was cut at the front."""
    return raw.lstrip(bytes(range(0x80, 0xC0)))


def _to_end(raw: bytes) -> bytes:
    """Without the beginning of a character that was cut at the end."""
    lead = max((at for at in range(len(raw) - 3, len(raw)) if at >= 0 and raw[at] >= 0xC0), default=len(raw))
    width = 0 if lead == len(raw) else 2 + (raw[lead] >= 0xE0) + (raw[lead] >= 0xF0)
    return raw[:lead] if lead + width > len(raw) else raw


def _shown(raw: bytes) -> str:
    """Bytes as text on one line: broken UTF-8 and control characters escaped."""
    text = raw.decode("utf-8", errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
