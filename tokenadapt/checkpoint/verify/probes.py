"""Short texts that a checkpoint is tried on, in ids of both vocabularies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from tokenadapt.checkpoint.verify.subject import Subject
from tokenadapt.vocab.types import How, Ids

TEXTS: Final = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "She opened the door, looked at the rain and decided to stay at home.",
    "Water boils at 100 degrees; 3.14159 and 2024-05-17 are numbers.",
    "In the beginning there was a small house at the end of the road.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))\n",
    "<div class=\"note\">A & B</div>\n{\"key\": [1, 2, 3]}\n",
    "Der Zug fährt um acht Uhr nach München, weil morgen Markt ist.",
    "La niña comió una manzana; ¿qué hora es?",
    "Сегодня хорошая погода. 今天天气很好。 आज मौसम अच्छा है। 👍🏽",
)  # fmt: skip
LONGEST: Final = 64  # tokens of one probe
ENOUGH: Final = 24  # tokens that texts must give before single tokens help out


@dataclass(frozen=True)
class Alike:
    """One text that both vocabularies split alike: the same rows under old and new ids."""

    old: tuple[int, ...]
    new: tuple[int, ...]
    from_text: bool


def texts_probe(tokenizer: Tokenizer, positions: int | None) -> list[int]:
    """All texts in one sequence of the new vocabulary."""
    ids = [token for text in TEXTS for token in tokenizer.encode(text, add_special_tokens=False).ids]
    return ids[: min(4 * LONGEST, positions or 4 * LONGEST)]


def alike_probe(subject: Subject, old: Tokenizer | None, positions: int | None) -> Alike:
    """Texts that both tokenizers split into the same tokens, all of them copied.

    Where texts give too few (or the old tokenizer is not at hand), copied ordinary ids in a fixed order stand in: the
    same rows, in an order that no text has.
    """
    assert subject.alignment is not None
    source_id, copied = subject.alignment.source_id, subject.alignment.how == How.COPIED
    new: list[int] = []
    for piece in _pieces() if old is not None else ():
        ids = subject.tokenizer.encode(piece, add_special_tokens=False).ids
        assert old is not None
        if ids and copied[ids].all() and source_id[ids].tolist() == old.encode(piece, add_special_tokens=False).ids:
            new += ids
    longest = min(LONGEST, positions or LONGEST)
    enough = len(new) >= min(ENOUGH, longest)
    if not enough:
        new += _drawn(np.flatnonzero(copied), ENOUGH)
    new = new[:longest]
    return Alike(tuple(source_id[new].tolist()), tuple(new), enough)


def _pieces() -> list[str]:
    """The texts, whole; then their words, each with the space before it."""
    words = [word for text in TEXTS for word in text.replace(" ", "\0 ").split("\0")]
    return [*TEXTS, *dict.fromkeys(words)]


def _drawn(ids: Ids, count: int) -> list[int]:
    picked = np.random.default_rng(0).choice(ids, size=min(count, len(ids)), replace=False) if len(ids) else ids
    return [int(token) for token in picked]
