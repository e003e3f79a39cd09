"""What a vocabulary holds: tokens by script, by length, by number of words."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tokenadapt.training.compare import ORDINARY
from tokenadapt.vocab.script import PART, script_of_token
from tokenadapt.vocab.types import ByteVocab

_LENGTHS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32))  # characters


def inventory(vocab: ByteVocab) -> dict[str, Any]:
    """Ordinary tokens by script and by length in characters, and special tokens: sums to the vocabulary."""
    scripts: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    for data, kind in zip(vocab.token_bytes, vocab.kind, strict=True):
        if kind not in ORDINARY or data is None:
            scripts["special"] += 1
            continue
        script = script_of_token(data)
        scripts[script] += 1
        if script != PART:
            lengths[_bin(len(data.decode()))] += 1
    return {"scripts": dict(scripts.most_common()), "lengths": dict(sorted(lengths.items(), key=_first_number))}


def _bin(length: int) -> str:
    for low, high in _LENGTHS:
        if length <= high:
            return str(low) if low == high else f"{low}-{high}"
    return "33 or more"


def _first_number(item: tuple[str, int]) -> int:
    return int(item[0].split("-")[0].split(" ")[0])
