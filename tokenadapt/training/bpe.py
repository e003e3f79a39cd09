"""Ordinary byte-level BPE from counts, and the surgery on merges that all kinds of BPE training share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tokenadapt.progress import SILENT, Progress
from tokenadapt.training.counts import Counts
from tokenadapt.training.engine import run_job
from tokenadapt.training.worker import Job
from tokenadapt.vocab.letters import BYTE_OF_LETTER, to_letters

Merge = tuple[str, str]
ALPHABET: Final = tuple(sorted(BYTE_OF_LETTER))  # the trainers' order: by code point


@dataclass(frozen=True)
class Merges:
    """A BPE model without special tokens: letters, then one token per merge (spelled alike: one token)."""

    letters: tuple[str, ...]
    merges: tuple[Merge, ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens in the order of their ids."""
        return tuple(dict.fromkeys((*self.letters, *(left + right for left, right in self.merges))))

    def first(self, size: int) -> Merges:
        """The model cut to `size` tokens."""
        seen, kept = set(self.letters), []
        for left, right in self.merges:
            if left + right not in seen and len(seen) >= size:
                break
            seen.add(left + right)
            kept.append((left, right))
        return Merges(self.letters, tuple(kept))

    def without(self, bad: Callable[[str], bool]) -> Merges:
        """The model without the tokens that are `bad`, and without all merges that depend on one."""
        have, kept = set(self.letters), []
        for left, right in self.merges:
            if left in have and right in have and not bad(left + right):
                have.add(left + right)
                kept.append((left, right))
        return Merges(self.letters, tuple(kept))


def train_words(
    counts: Counts, size: int, *, min_frequency: int = 2, name: str = "merges", progress: Progress = SILENT
) -> Merges:
    """Byte-level BPE of `size` tokens (or fewer, where the corpus gives no more) on word counts."""
    spelled = [(to_letters(piece.encode()), count) for piece, count in counts.ordered()]
    job = Job(
        "bpe", [word for word, _ in spelled], [count for _, count in spelled], size, ALPHABET,
        min_frequency=min_frequency,
    )  # fmt: skip
    model = run_job(job, name=name, progress=progress)
    return Merges(ALPHABET, tuple(as_pairs(model["merges"])))


def as_pairs(merges: Iterable[str | list[str]]) -> Iterable[Merge]:
    """Merges as older files ('a b') and newer ones (['a', 'b']) write them."""
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right
