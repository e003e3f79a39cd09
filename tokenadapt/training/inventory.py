"""What a vocabulary holds: tokens by script, by length, by number of words."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any

from tokenadapt.training.compare import ORDINARY
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
        try:
            text = data.decode()
        except UnicodeDecodeError:
            scripts["parts of characters"] += 1
            continue
        scripts[script_of(text)] += 1
        lengths[_bin(len(text))] += 1
    return {"scripts": dict(scripts.most_common()), "lengths": dict(sorted(lengths.items(), key=_first_number))}


def script_of(text: str) -> str:
    """The script of the first letter, else what kind of characters these are."""
    letter = next((char for char in text if char.isalpha()), None)
    if letter is not None:
        name = unicodedata.name(letter, "unnamed").split(" ")[0].split("-")[0].lower()
        return {"fullwidth": "latin", "modifier": "marks", "mathematical": "latin"}.get(name, name)
    if any(char.isnumeric() for char in text):
        return "digits"
    return "white space" if not text.strip() else "marks"


def _bin(length: int) -> str:
    for low, high in _LENGTHS:
        if length <= high:
            return str(low) if low == high else f"{low}-{high}"
    return "33 or more"


def _first_number(item: tuple[str, int]) -> int:
    return int(item[0].split("-")[0].split(" ")[0])
