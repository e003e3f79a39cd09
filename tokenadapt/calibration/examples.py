"""Documents to examples: the same bytes in both tokenizations, with the positions that they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tokenadapt.calibration.spans import Shared, cut, shared_positions
from tokenadapt.evaluation.encode import TextEncoder
from tokenadapt.vocab.types import Ids

_AT_ONCE = 1 << 20  # bytes of text that are encoded together


@dataclass(frozen=True)
class Side:
    """How one side reads: its encoder, and the tokens that stand before every stretch."""

    encoder: TextEncoder
    prefix: tuple[int, ...]
    room: int  # tokens of a stretch, the prefix not counted


@dataclass(frozen=True)
class Example:
    """A stretch of text as student and teacher read it; positions count through the ids, prefixes included."""

    ours: Ids
    theirs: Ids
    shared: Shared
    prefix: tuple[int, int]  # lengths
    name: str  # where it came from
    nbytes: int = 0  # of text

    @property
    def scored(self) -> int:
        """Tokens of the student that something stands before."""
        return len(self.ours) - max(1, self.prefix[0])


@dataclass(frozen=True)
class Text:
    """A document with its name."""

    text: str
    name: str


def make_examples(texts: Iterable[Text], student: Side, teacher: Side) -> list[Example]:
    """All stretches of all documents, in order. Stretches of a single token teach nothing and are left out."""
    made: list[Example] = []
    held: list[Text] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text.text)
        if size > _AT_ONCE:
            made += _encode(held, student, teacher)
            held, size = [], 0
    return [*made, *_encode(held, student, teacher)]


def _encode(texts: Sequence[Text], student: Side, teacher: Side) -> list[Example]:
    if not texts:
        return []
    strings = [text.text for text in texts]
    ours, theirs = student.encoder.encode(strings), teacher.encoder.encode(strings)
    made = []
    for index, text in enumerate(texts):
        mine, other = slice(*ours.start[index : index + 2]), slice(*theirs.start[index : index + 2])
        shared = shared_positions(ours.nbytes[mine], theirs.nbytes[other])
        ids, others = ours.ids[mine], theirs.ids[other]
        for number, part in enumerate(cut(shared, (student.room, teacher.room))):
            example = Example(
                np.concatenate([np.array(student.prefix, dtype=np.int64), ids[slice(*part.ours)]]),
                np.concatenate([np.array(teacher.prefix, dtype=np.int64), others[slice(*part.theirs)]]),
                Shared(part.shared.ours + len(student.prefix), part.shared.theirs + len(teacher.prefix)),
                (len(student.prefix), len(teacher.prefix)),
                f"{text.name}#{number + 1}",
                int(ours.nbytes[mine][slice(*part.ours)].sum()),
            )
            if example.scored > 0:
                made.append(example)
    return made
