"""Where the loss is: by how a token's row was made, by kind of byte, and by place in the document.

Rows split by tokens. Bytes and places split by the text itself: a token's bits are shared evenly by its bytes, so
that every model is divided over the very same bytes, and the parts compare across tokenizers.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tokenadapt.evaluation.encode import Encoded
from tokenadapt.vocab.types import How

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BYTE_CLASSES: Final = ("letter", "digit", "space", "newline", "symbol", "letter beyond ASCII", "other beyond ASCII")
PLACE_EDGES: Final = (0, 64, 256, 1024, 4096, 16384)
PLACES: Final = (*(f"{low} to {high}" for low, high in pairwise(PLACE_EDGES)), "16384 on")
ROWS: Final = {
    How.COPIED: "copied", How.SPECIAL: "special", How.MAPPED: "mapped",
    How.MISSING: "new", How.UNUSED: "unused", How.ADJUSTED: "adjusted",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One part of the loss. `tokens` is None where a part is made of bytes, not of tokens."""

    name: str
    bits: float
    bytes: int
    tokens: int | None = None

    @property
    def bits_per_byte(self) -> float:
        """Bits of this part over its own bytes; NaN where it has none."""
        return self.bits / self.bytes if self.bytes else float("nan")


@dataclass
class Splits:
    """Sums over all pools of one model; `parts` reads them out."""

    how: NDArray[np.uint8] | None
    sums: dict[tuple[str, str], Floats] = field(default_factory=lambda: defaultdict(lambda: np.zeros(3)))

    def add(self, texts: Sequence[str], encoded: Encoded, bits: Floats) -> None:
        """Count the tokens of one pool, whose documents are `texts`."""
        if self.how is not None:
            known = np.append(self.how, np.uint8(How.UNUSED))
            origin = known[np.minimum(encoded.ids, len(self.how))]
            for reason, name in ROWS.items():
                self._count("rows", name, bits, encoded.nbytes, origin == reason)
        rate = spread(encoded, bits)
        kind = byte_classes("".join(texts))
        for code, name in enumerate(BYTE_CLASSES):
            self._bytes("bytes", name, rate, kind == code)
        place = np.searchsorted(PLACE_EDGES, _place(texts), side="right") - 1
        for code, name in enumerate(PLACES):
            self._bytes("position", name, rate, place == code)

    def parts(self) -> dict[str, tuple[Part, ...]]:
        """The parts of each split that hold anything."""
        found: dict[str, list[Part]] = {}
        for (split, name), (bits, size, tokens) in self.sums.items():
            if size or tokens or bits:
                made = Part(name, float(bits), int(size), int(tokens) if split == "rows" else None)
                found.setdefault(split, []).append(made)
        return {split: tuple(parts) for split, parts in found.items()}

    def _count(self, split: str, name: str, bits: Floats, nbytes: Ints, chosen: NDArray[np.bool_]) -> None:
        self.sums[split, name] += (bits[chosen].sum(), nbytes[chosen].sum(), chosen.sum())

    def _bytes(self, split: str, name: str, rate: Floats, chosen: NDArray[np.bool_]) -> None:
        self.sums[split, name] += (rate[chosen].sum(), chosen.sum(), 0)


def spread(encoded: Encoded, bits: Floats) -> Floats:
    """Bits of every byte of the text: a token's bits shared evenly by its bytes: (bytes,).

    A token without bytes (a lone space mark before the text) passes its bits to the next one of its document that
    has some, else to the one before. A text without tokens costs nothing.
    """
    rate = np.zeros(int(encoded.size.sum()))
    holders = np.flatnonzero(encoded.nbytes)
    if not len(holders):
        return rate
    document = encoded.document_of()
    place = np.searchsorted(holders, np.arange(len(bits)))  # the next holder
    after = holders[np.minimum(place, len(holders) - 1)]
    before = holders[np.maximum(place - 1, 0)]
    fits = (place < len(holders)) & (document[after] == document)
    owner = np.where(fits, after, before)
    carried = np.bincount(owner, weights=bits, minlength=len(bits))[holders]
    rate[np.repeat(np.diff(encoded.start) > 0, encoded.size)] = np.repeat(
        carried / encoded.nbytes[holders], encoded.nbytes[holders]
    )
    return rate


def byte_classes(text: str) -> NDArray[np.uint8]:
    """The class of every UTF-8 byte, a number into BYTE_CLASSES: (bytes,)."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    values, inverse = np.unique(points, return_inverse=True)
    kinds = np.array([_class_of(chr(value)) for value in values.tolist()], dtype=np.uint8)
    widths = np.array([len(chr(value).encode()) for value in values.tolist()], dtype=np.int64)
    return np.repeat(kinds[inverse], widths[inverse])


def _class_of(char: str) -> int:
    if char.isascii():
        if char.isalpha():
            return 0
        if char.isdigit():
            return 1
        if char in "\r\n":
            return 3
        return 2 if char.isspace() else 4
    return 5 if unicodedata.category(char)[0] in "LM" else 6


def _place(texts: Sequence[str]) -> Ints:
    """Distance of every byte from the beginning of its document: (bytes,)."""
    sizes = [len(text.encode()) for text in texts]
    return np.concatenate([np.arange(size) for size in sizes] or [np.zeros(0, dtype=np.int64)])
