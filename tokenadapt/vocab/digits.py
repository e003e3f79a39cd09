"""How a tokenizer groups digits: what arithmetic depends on, and what a swap may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tokenadapt.vocab.types import ByteVocab, Ids, Kind

# Runs of 1 to 12 digits in which no two neighbours are alike, so that no run of one digit is a token by luck
_RUNS: Final = tuple("739158264073"[:size] for size in range(1, 13)) + tuple(
    "201847593628"[:size] for size in range(1, 13)
)


@dataclass(frozen=True)
class DigitPolicy:
    """How runs of digits are read. `tokens` are the ids of numbers of two digits and more, with or without a space."""

    rule: str  # "one digit at a time", "groups of 3 from the left", "groups of 3 from the right", "by merges"
    longest: int  # digits in the longest piece that the probes were read with
    tokens: Ids

    def __str__(self) -> str:
        return f"{self.rule}, {len(self.tokens):,} tokens of several digits"


def digit_policy(vocab: ByteVocab) -> DigitPolicy:
    """The rule by which the tokenizer, run as users run it on 24 numbers, groups digits; and its number tokens."""
    groups = [_groups(vocab, ids) for ids in vocab.encode([f"x = {run}" for run in _RUNS])]
    read = [(run, group) for run, group in zip(_RUNS, groups, strict=True) if sum(group) == len(run)]
    longest = max((max(group) for _, group in read), default=0)
    numbers = [index for index, data in enumerate(vocab.token_bytes) if data and _is_number(data)]
    usable = np.isin(vocab.kind, (Kind.ORDINARY, Kind.ADDED))
    tokens = np.array([index for index in numbers if usable[index]], dtype=np.int64)
    return DigitPolicy(_rule([group for _, group in read], longest), longest, tokens)


def digits_differ(source: ByteVocab, target: ByteVocab) -> str | None:
    """A sentence where the two tokenizers group digits differently; None where they agree."""
    old, new = digit_policy(source), digit_policy(target)
    if old.rule == new.rule:
        return None
    return f"Digits are read {old.rule} by the source and {new.rule} by the target: {len(new.tokens):,} number tokens."


def _groups(vocab: ByteVocab, ids: list[int]) -> list[int]:
    """Digits in each piece that holds some."""
    counts = [sum(48 <= byte < 58 for byte in vocab.token_bytes[index] or b"") for index in ids]
    return [count for count in counts if count]


def _rule(groups: list[list[int]], longest: int) -> str:
    if not groups:
        return "not at all"
    if longest == 1:
        return "one digit at a time"
    if all(group == _even(sum(group), longest) for group in groups):
        return f"in groups of {longest} from the left"
    if all(group == _even(sum(group), longest)[::-1] for group in groups):
        return f"in groups of {longest} from the right"
    return "by merges"


def _even(size: int, step: int) -> list[int]:
    return [min(step, size - start) for start in range(0, size, step)]


def _is_number(data: bytes) -> bool:
    bare = data.removeprefix(b" ")
    return len(bare) > 1 and bare.isdigit()
