"""Old tokens spelled with other old tokens: the training set that every vocabulary carries in itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.methods.merge import merges_of
from tokenadapt.vocab.types import ByteVocab, Ids

LEVELS: Final = 3  # how much deeper than the two halves a token is spelled at most


@dataclass(frozen=True)
class Runs:
    """Tokens and their pieces: token i is piece[start[i]:start[i + 1]]."""

    tokens: Ids  # (n,)
    start: Ids  # (n + 1,)
    piece: Ids  # (N,)

    def take(self, index: Ids) -> Runs:
        """Some of the tokens, in the order of `index`, which must ascend."""
        keep = np.zeros(len(self.tokens), dtype=bool)
        keep[index] = True
        terms = keep[ragged.owners(self.start)]
        counts = np.diff(self.start)[index]
        return Runs(self.tokens[index], np.concatenate([[0], np.cumsum(counts)]), self.piece[terms])


def spell_by_halves(vocab: ByteVocab, tokens: Ids, *, seed: int) -> Runs:
    """Each of `tokens` that consists of two others, spelled with them, or up to LEVELS deeper at random.

    The halves are those of the first merge that makes the token; without merges, the split of highest score.
    """
    left, right = _halves(vocab, tokens)
    split = tokens[left[tokens] >= 0]
    drawn = np.random.default_rng(seed)
    depth = drawn.integers(0, LEVELS + 1, len(split))
    start = np.arange(0, 2 * len(split) + 1, 2, dtype=np.int64)
    piece = np.stack([left[split], right[split]], axis=1).ravel()
    for level in range(LEVELS):
        owner = ragged.owners(start)
        opened = (left[piece] >= 0) & (depth[owner] > level)
        size = np.where(opened, 2, 1)
        spread = np.repeat(piece, size)
        second = np.concatenate([[0], np.cumsum(size)])[:-1][opened]
        spread[second], spread[second + 1] = left[piece[opened]], right[piece[opened]]
        start = np.concatenate([[0], np.cumsum(np.bincount(np.repeat(owner, size), minlength=len(split)))])
        piece = spread
    return Runs(split, start.astype(np.int64), piece)


def _halves(vocab: ByteVocab, tokens: Ids) -> tuple[Ids, Ids]:
    """Left and right half by id; -1 where a token is not made of two of `tokens`."""
    left, right = np.full(len(vocab), -1, dtype=np.int64), np.full(len(vocab), -1, dtype=np.int64)
    allowed = np.zeros(len(vocab), dtype=bool)
    allowed[tokens] = True
    if vocab.merges is not None:
        one, other, made = merges_of(vocab)
        usable = allowed[one] & allowed[other] & allowed[made]
        for a, b, c in zip(*(part[usable][::-1] for part in (one, other, made)), strict=True):
            left[c], right[c] = a, b  # the first merge of a token is written last
        return left, right
    ids = {vocab.token_bytes[index]: index for index in tokens.tolist()}
    scores = vocab.scores if vocab.scores is not None else np.zeros(len(vocab))
    for index in tokens.tolist():
        data = vocab.token_bytes[index] or b""
        pairs = [(ids.get(data[:at], -1), ids.get(data[at:], -1)) for at in range(1, len(data))]
        found = [(a, b) for a, b in pairs if a >= 0 and b >= 0]
        if found:
            left[index], right[index] = max(found, key=lambda pair: (scores[pair[0]] + scores[pair[1]], pair))
    return left, right
