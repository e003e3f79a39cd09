"""Stochastic supertokens (TokenAdapt, arXiv 2505.09738, Algorithm 2), made right.

Text is cut at random places, and one BPE pass runs inside the chunks, across words. Against the published program: cuts
are seeded and never inside a grapheme, runs of equal characters are kept, the distribution is checked, and by default
chunks stay inside stretches, which the finished tokenizer cuts as well: encoding is bounded and local.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import regex
from numpy.typing import NDArray

from tokenadapt.errors import RequestError
from tokenadapt.training.counts import Counts, Cut

log = logging.getLogger(__name__)

# The published program's lengths in code points. They sum to 1.1, so that it cannot run as shipped; here they are
# divided by their sum.
PUBLISHED: Final = (
    "4-5=.044", "6-7=.091", "8-9=.146", "10-11=.171", "12-13=.185", "14-15=.171", "16-17=.146", "18-19=.091",
    "20-21=.044", "22-23=.011",
)  # fmt: skip
WORDS: Final = ("1-4=1",)
_GRAPHEME: Final = regex.compile(r"\X")


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths: a bin is drawn by its share, a length evenly inside it."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    share: tuple[float, ...]  # sums to 1

    def draw(self, many: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """`many` lengths."""
        which = generator.choice(len(self.share), size=many, p=self.share)
        return generator.integers(np.asarray(self.low)[which], np.asarray(self.high)[which], endpoint=True)


def read_lengths(entries: Sequence[str], unit: str) -> Lengths:
    """`LOW-HIGH=SHARE` entries, checked; shares that do not sum to 1 are divided by their sum, with a warning."""
    chosen = tuple(entries) or (PUBLISHED if unit == "characters" else WORDS)
    low, high, share = [], [], []
    for entry in chosen:
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*=\s*([0-9]*\.?[0-9]+)\s*", entry)
        if match is None:
            raise RequestError(f"The length {entry!r} is not LOW-HIGH=SHARE.", "Write for example 4-5=0.044.")
        low.append(int(match[1]))
        high.append(int(match[2] or match[1]))
        share.append(float(match[3]))
        if not 1 <= low[-1] <= high[-1]:
            raise RequestError(f"The lengths of {entry!r} do not rise from 1.", "Write the smaller one first.")
    total = sum(share)
    if total <= 0:
        raise RequestError("The shares of the lengths sum to nothing.", "Give each a share above 0.")
    if entries and abs(total - 1) > 1e-9:
        log.warning("The shares of the lengths sum to %g; each was divided by that.", total)
    return Lengths(tuple(low), tuple(high), tuple(part / total for part in share))


class Chunks:
    """A stretch to random chunks; every occurrence of a stretch is cut anew."""

    def __init__(self, words: Cut, lengths: Lengths, unit: str, seed: int) -> None:
        self.words, self.lengths, self.unit = words.pieces(), lengths, unit
        self.generator = np.random.default_rng(seed)

    def counts(self, stretches: Counts) -> Counts:
        """Counts of chunks from counts of stretches, in an order that the corpus's order does not change."""
        found = Counts(replace(stretches.cut, kind="chunk"), documents=stretches.documents, bytes=stretches.bytes)
        for stretch, count in stretches.ordered():
            places = self._places(stretch)
            for _ in range(count):
                found.pieces.update(self._cut(stretch, places))
        return found

    def _cut(self, stretch: str, places: NDArray[np.int64]) -> list[str]:
        if self.unit == "words":
            steps = np.cumsum(self.lengths.draw(len(places), self.generator))
            cuts = places[steps[steps < len(places)]]
        else:
            ends = np.cumsum(self.lengths.draw(max(1, len(stretch) // min(self.lengths.low)), self.generator))
            after = np.searchsorted(places, ends[ends < len(stretch)])  # a cut moves to the end of its grapheme
            cuts = np.unique(places[after[after < len(places)]])
        borders = [0, *cuts.tolist(), len(stretch)]
        return [stretch[start:end] for start, end in itertools.pairwise(borders)]

    def _places(self, stretch: str) -> NDArray[np.int64]:
        """Where a cut may be: starts of words or of graphemes, the first one at 0."""
        if stretch.isascii() and "\r\n" not in stretch:
            graphemes = np.arange(len(stretch))
        else:
            graphemes = np.fromiter((match.start() for match in _GRAPHEME.finditer(stretch)), dtype=np.int64)
        if self.unit == "characters":
            return graphemes
        sizes = [len(word) for word in self.words(stretch)]
        starts = np.cumsum([0, *sizes[:-1]]) if sum(sizes) == len(stretch) else np.zeros(1, dtype=np.int64)
        return np.intersect1d(starts, graphemes)  # some word patterns cut before combining marks
