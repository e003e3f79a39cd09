"""Text as first-stage tokens, one code point a token, cut wherever no later merge can reach.

Two things make this cheap without changing any merge. Text is encoded word by word, each word once, with cuts only
where no first-stage token crosses. And since no merge over a seam is more frequent than the pair of tokens at that
seam, text is cut at every pair rarer than the rarest merge wanted: short pieces, of which many are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from tokenadapt.errors import RequestError
from tokenadapt.progress import SILENT, Progress
from tokenadapt.training.bpe import Merges
from tokenadapt.training.counts import Counts
from tokenadapt.training.worker import BLANK
from tokenadapt.vocab.letters import LETTER_OF_BYTE, to_letters

FIRST_SYMBOL: Final = 0x10000  # supplementary planes: 1,048,576 code points, no surrogate, no blank among them
_END: Final = "\n"  # between pieces; no letter of the alphabet
_SPACE: Final = LETTER_OF_BYTE[0x20]
_BATCH: Final = 1 << 20  # letters at once


@dataclass(frozen=True)
class SymbolText:
    """All pieces as symbols, `_END` after each, with how often each piece occurred."""

    symbols: NDArray[np.uint32]  # (n,)
    weight: NDArray[np.int64]  # (n,) count of the piece that the symbol is in

    def pair_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of symbols with a right neighbour, and how often that pair occurs in all text."""
        here, there = self.symbols[:-1], self.symbols[1:]
        at = np.flatnonzero((here != ord(_END)) & (there != ord(_END)))
        keys = here[at].astype(np.uint64) << np.uint64(32) | there[at]
        _, which = np.unique(keys, return_inverse=True)
        totals = np.bincount(which, weights=self.weight[at])  # exact below 2**53
        return at, totals.astype(np.int64)[which]

    def likely_count(self, merges: int) -> int:
        """A first guess at how often the rarest of so many merges occurs."""
        at, totals = self.pair_counts()
        here, there = self.symbols[at].astype(np.uint64), self.symbols[at + 1]
        _, first = np.unique(here << np.uint64(32) | there, return_index=True)
        distinct = np.sort(totals[first])[::-1]
        return int(distinct[min(2 * merges, len(distinct) - 1)]) if len(distinct) else 0

    def fragments(
        self, least: int, breaking: NDArray[np.bool_], wordlike: NDArray[np.bool_]
    ) -> tuple[list[str], list[int]]:
        """The text cut at all pairs rarer than `least`, without lone symbols; each distinct string once.

        `breaking` and `wordlike` say of each token whether it holds a line break, a letter or digit: no merge may
        join the two, so text is cut there as well.
        """
        at, totals = self.pair_counts()
        left = self.symbols[at].astype(np.int64) - FIRST_SYMBOL
        right = self.symbols[at + 1].astype(np.int64) - FIRST_SYMBOL
        banned = (breaking[left] & wordlike[right]) | (wordlike[left] & breaking[right])
        cuts = at[(totals < least) | banned] + 1
        text = np.insert(self.symbols, cuts, ord(_END)).tobytes().decode("utf-32-le")
        weight = np.insert(self.weight, cuts, 0)
        merged: dict[str, int] = {}
        position = 0
        for fragment in text.split(_END):
            if len(fragment) > 1:
                merged[fragment] = merged.get(fragment, 0) + int(weight[position])
            position += len(fragment) + 1
        return list(merged), list(merged.values())


def rewrite(model: Merges, counts: Counts, progress: Progress = SILENT) -> SymbolText:
    """Every counted piece as the tokens that `model` makes of it, whatever words it holds."""
    tokens = model.tokens
    if len(tokens) > 0x110000 - FIRST_SYMBOL:
        raise RequestError(f"{len(tokens):,} first-stage tokens have no code points.", "Train a smaller first stage.")
    items = counts.ordered()
    crossing = sorted({token[at - 1] for token in tokens for at in _inner_spaces(token)})
    known = {"": "", _END: _END}
    encode = _encoder(model)
    parts: list[str] = []
    with progress.stage("write text as tokens", total=len(items), unit="pieces") as advance:
        for batch in _batches(items):
            words = _words(f"{BLANK}{_END}{BLANK}".join(batch), crossing)
            new = [word for word in dict.fromkeys(words) if word not in known]
            known.update(zip(new, encode(new), strict=True))
            parts.append("".join(map(known.__getitem__, words)) + _END)
            advance(len(batch))
    symbols = np.frombuffer("".join(parts).encode("utf-32-le"), dtype="<u4")
    ends = np.flatnonzero(symbols == ord(_END))
    lengths = np.diff(ends, prepend=-1)
    return SymbolText(symbols, np.repeat(np.asarray([count for _, count in items], dtype=np.int64), lengths))


def _inner_spaces(token: str) -> Iterable[int]:
    return (at for at in range(1, len(token)) if token[at] == _SPACE and token[at - 1] != _SPACE)


def _words(text: str, crossing: Sequence[str]) -> list[str]:
    """The text cut before runs of spaces, except after letters that some token joins to a space."""
    text = text.replace(_SPACE, BLANK + _SPACE)
    for _ in range(2):  # runs stay whole: replacement does not overlap, so it takes two rounds
        text = text.replace(_SPACE + BLANK + _SPACE, _SPACE + _SPACE)
    for letter in crossing:
        text = text.replace(letter + BLANK + _SPACE, letter + _SPACE)
    return text.split(BLANK)


def _encoder(model: Merges) -> Callable[[list[str]], list[str]]:
    """The function from words to strings of symbols."""
    vocab = {token: index for index, token in enumerate((*model.tokens, BLANK))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(model.merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(BLANK, "isolated")
    table = np.arange(FIRST_SYMBOL, FIRST_SYMBOL + len(vocab), dtype="<u4")
    table[-1] = ord(BLANK)

    def encode(words: list[str]) -> list[str]:
        if not words:
            return []
        ids = tokenizer.encode(BLANK.join(words), add_special_tokens=False).ids
        return table[np.asarray(ids, dtype=np.int64)].tobytes().decode("utf-32-le").split(BLANK)

    return encode


def _batches(items: Sequence[tuple[str, int]]) -> Iterable[list[str]]:
    batch: list[str] = []
    size = 0
    for piece, _ in items:
        batch.append(to_letters(piece.encode()))
        size += len(batch[-1])
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
