"""Old tokens that are worth having as neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tokenadapt.spaces.options import Matrix
from tokenadapt.vocab.types import ByteVocab, Ids, Kind

Vectors = Callable[[Ids], Matrix]  # ids or positions to unit rows


@dataclass(frozen=True)
class Candidates:
    """Old tokens that may be neighbours, and how many were kept out for which reason; counts sum to V_old."""

    ids: Ids  # (n,) ascending
    left_out: dict[str, int]
    undertrained: Ids  # old ids that were kept out because training hardly touched their rows

    def describe(self) -> str:
        """One line for people."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items() if count)
        return f"neighbours: {len(self.ids):,} candidates" + (f"; left out: {reasons}" if reasons else "")


def choose_candidates(
    vocab: ByteVocab, rows: int, vectors: Vectors, undertrained: Ids, *, block: int = 8192
) -> Candidates:
    """Ordinary old tokens with a row, a trained one, a vector, and no twin of lower id with the very same vector.

    `rows` is the number of rows of the old table. Of tokens that the encoder cannot tell apart (`x`, ` x`, `X`) the
    lowest id stays: in merge order it is the one that was seen most.
    """
    kind = np.asarray(vocab.kind)
    ordinary = (kind == Kind.ORDINARY) & (np.arange(len(kind)) < rows)
    trained = ordinary.copy()
    trained[undertrained[undertrained < len(trained)]] = False
    ids = np.flatnonzero(trained)
    seen: set[bytes] = set()
    kept: list[int] = []
    empty = 0
    for first in range(0, len(ids), block):
        part = vectors(ids[first : first + block])
        alive = part.any(axis=1)
        empty += int((~alive).sum())
        for row in np.flatnonzero(alive):
            mark = hashlib.blake2b(part[row].tobytes(), digest_size=16).digest()
            if mark not in seen:
                seen.add(mark)
                kept.append(int(ids[first + row]))
    left_out = {
        "special, byte or added": len(kind) - int(ordinary.sum()),
        "under-trained": int(ordinary.sum()) - len(ids),
        "without a vector": empty,
        "with another's vector": len(ids) - empty - len(kept),
    }
    return Candidates(np.array(kept, dtype=np.int64), left_out, undertrained)
