"""Old tokens to hide: what a method makes of them can be held against their own rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from tokenadapt.methods.halves import Runs, spell_by_halves
from tokenadapt.vocab.types import ByteVocab, Ids, Kind

SHARE: Final = 3  # one in so many of the tokens that occur is hidden at most, so that contexts stay what they are
COMMON: Final = 10  # one in so many, the most frequent, is never hidden: hardly a new token is a word like "the"


def hide(vocab: ByteVocab, texts: Sequence[Sequence[int]], *, rows: int, most: int, seed: int) -> Runs:
    """Some ordinary tokens of two pieces or more that occur in `texts`, in ascending order, and their pieces.

    Pieces are the halves of a token's merge, or deeper at random; no piece is itself hidden, and no hidden token has
    the bytes of another. Ids from `rows` on have no row.
    """
    plain = np.flatnonzero(vocab.kind[:rows] == Kind.ORDINARY)
    runs = spell_by_halves(vocab, plain, seed=seed)
    seen = np.bincount(np.concatenate([np.zeros(0, np.int64), *map(_ids, texts)]), minlength=len(vocab))
    able = np.flatnonzero((seen[runs.tokens] > 0) & _whole(vocab, runs))
    able = able[np.argsort(-seen[runs.tokens[able]], kind="stable")]
    limit = min(most, -(-len(able) // SHARE))
    rest = able[len(able) // COMMON :]
    hidden: set[int] = set()
    needed: set[int] = set()
    chosen: list[int] = []
    for at in np.random.default_rng(seed).permutation(np.sort(rest)).tolist():
        token, pieces = int(runs.tokens[at]), runs.piece[runs.start[at] : runs.start[at + 1]].tolist()
        if len(chosen) < limit and token not in needed and hidden.isdisjoint(pieces):
            hidden.add(token)
            needed.update(pieces)
            chosen.append(at)
    return runs.take(np.array(sorted(chosen), dtype=np.int64))


def _ids(text: Sequence[int]) -> Ids:
    """The tokens that a text's positions say: all but the one that begins it."""
    return np.asarray(text[1:], dtype=np.int64)


def _whole(vocab: ByteVocab, runs: Runs) -> np.ndarray:
    """Whether a token's bytes are its own alone and just those of its pieces: (n,)."""
    times = Counter(vocab.token_bytes)
    fits = []
    for at, token in enumerate(runs.tokens.tolist()):
        pieces = runs.piece[runs.start[at] : runs.start[at + 1]].tolist()
        data = vocab.token_bytes[token]
        fits.append(times[data] == 1 and data == b"".join(vocab.token_bytes[piece] or b"" for piece in pieces))
    return np.array(fits, dtype=bool)
