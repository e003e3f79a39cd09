"""The values that the vocabulary stage hands on: bytes by id, which old row each target token takes, and pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class Kind(IntEnum):
    """What a vocabulary entry is."""

    ORDINARY = 0  # a token of the model, made of text bytes
    BYTE = 1  # a byte-fallback token, `<0xNN>`
    SPECIAL = 2  # a control token: never produced by ordinary text
    ADDED = 3  # an added token that is not special: matched in text before the model runs
    GAP = 4  # an id that no token has
    UNKNOWN = 5  # a token whose bytes cannot be told


class How(IntEnum):
    """How a target token gets its row. The numbers stand in saved plans: do not change them."""

    COPIED = 0  # same bytes as an old token
    SPECIAL = 1  # same role as an old special token
    MAPPED = 2  # the user said so
    MISSING = 3  # a method makes the row
    UNUSED = 4  # no text reaches this id: gaps, padding, special tokens without a counterpart
    ADJUSTED = 5  # copied plus a recorded shift


@dataclass(frozen=True)
class ByteVocab:
    """A tokenizer as bytes: what each id stands for inside text.

    `spell` cuts byte strings into ids with the tokenizer's own model, no normaliser and no added prefix; None where
    it cannot spell the bytes exactly. `encode` is the tokenizer as users run it, without special tokens added.
    """

    token_bytes: tuple[bytes | None, ...]  # by id; None where a token holds no text (special, gap, unknown)
    kind: NDArray[np.uint8]  # (V,) Kind
    text: tuple[str | None, ...]  # the spelling in the tokenizer's own alphabet; None at gaps
    roles: Mapping[str, int]  # bos, eos, pad, unk, mask, sep, cls and chat markers by role -> id
    encode: Callable[[Sequence[str]], list[list[int]]]
    spell: Callable[[Sequence[bytes]], list[list[int] | None]]
    merges: NDArray[np.int64] | None = None  # (n, 2) pairs of ids in rank order, for BPE
    scores: NDArray[np.float64] | None = None  # (V,) log-probabilities, for Unigram
    word_start: NDArray[np.bool_] | None = None  # (V,) WordPiece: True where a token can only begin a word
    rule: str = ""  # how the bytes were read, in words

    def __post_init__(self) -> None:
        if not len(self.token_bytes) == len(self.kind) == len(self.text):
            raise ValueError("token_bytes, kind and text must have one entry per id")

    def __len__(self) -> int:
        """Number of ids, gaps included: max id + 1."""
        return len(self.token_bytes)

    def bytes_of(self, ids: Sequence[int]) -> list[bytes]:
        """Bytes of each token: none for one that holds no text, and for a row of a table that no token names."""
        return [(self.token_bytes[index] if index < len(self) else None) or b"" for index in ids]

    def byte_lengths(self, ids: Ids) -> Ids:
        """Bytes of each token `ids`, 0 where one holds no text: (len(ids),)."""
        return np.array([len(self.token_bytes[index] or b"") for index in ids.tolist()], dtype=np.int64)


@dataclass(frozen=True)
class Alignment:
    """Which old row each target id takes, and why."""

    source_id: Ids  # (V_new,), -1 where none
    how: NDArray[np.uint8]  # (V_new,) How
    notes: Mapping[int, str] = field(default_factory=dict)  # id -> what a user should know (unmatched specials, ...)
    spelled_alike: int = 0  # how many a comparison of spellings would have found
    pieces: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # missing id -> old ids that the user gave
    source_rows: int | None = None  # old ids from here on have no row; None: every id has one

    def __post_init__(self) -> None:
        if self.source_id.shape != self.how.shape:
            raise ValueError("one reason per target id")
        has_row = np.isin(self.how, (How.COPIED, How.SPECIAL, How.MAPPED, How.ADJUSTED))
        if not np.array_equal(has_row, self.source_id >= 0):
            raise ValueError("a source id exactly where a row is taken")

    @property
    def missing(self) -> Ids:
        """Target ids whose rows a method makes, ascending: (M,)."""
        return np.flatnonzero(self.how == How.MISSING)

    @property
    def place(self) -> Ids:
        """Of each target id its place among the missing, -1 where a row is taken or unused: (V_new,)."""
        place = np.full(len(self.how), -1, dtype=np.int64)
        place[self.missing] = np.arange(len(self.missing))
        return place

    @property
    def unused(self) -> Ids:
        """Target ids that no text reaches, ascending."""
        return np.flatnonzero(self.how == How.UNUSED)

    def counts(self) -> dict[str, int]:
        """Number of target ids by reason; sums to V_new."""
        tally = np.bincount(self.how, minlength=len(How))
        return {reason.name.lower(): int(tally[reason]) for reason in How}


@dataclass(frozen=True)
class Segmentation:
    """The old pieces of every missing token: run j is piece[start[j]:start[j+1]], bytes concatenate to the token's.

    An empty run means that no old tokens can spell the token.
    """

    start: Ids  # (M + 1,)
    piece: Ids  # (N,) old ids
    length: NDArray[np.int64]  # (N,) length of each piece: code points, or bytes where the token has non-text pieces
    token_length: NDArray[np.int64]  # (M,) the token's own length in the same unit

    def __post_init__(self) -> None:
        if self.start[0] != 0 or self.start[-1] != len(self.piece) or (np.diff(self.start) < 0).any():
            raise ValueError("start must rise from 0 to the number of pieces")
        if len(self.length) != len(self.piece) or len(self.token_length) != len(self.start) - 1:
            raise ValueError("one length per piece and per token")

    @property
    def counts(self) -> Ids:
        """Number of pieces per missing token: (M,)."""
        return np.diff(self.start)
