"""Examples to steps: which are read in which order, in batches alike in length, the same whoever reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenadapt.calibration.examples import Example
from tokenadapt.vocab.types import Ids


@dataclass(frozen=True)
class Padded:
    """One side of a batch: ids (B, T) padded on the right, and what is predicted from which flat position of B * T."""

    ids: Tensor
    rows: Tensor  # (n,) flat positions whose states predict
    target: Tensor  # (n,) the ids that they predict
    span: Tensor  # (n,) the shared span that each predicted token lies in; spans are numbered through the batch
    shared: Tensor  # (S,) flat position at the end of each shared span
    partial: Tensor  # (S,) True where a token of the span is predicted from nothing

    def to(self, device: torch.device) -> Padded:
        """The same on a device."""
        parts = (self.ids, self.rows, self.target, self.span, self.shared, self.partial)
        return Padded(*(part.to(device) for part in parts))


@dataclass(frozen=True)
class Batch:
    """Some examples, as both sides read them."""

    student: Padded
    teacher: Padded
    names: tuple[str, ...]

    @property
    def whole(self) -> Tensor:
        """(S,) True where every token of a shared span is predicted from something, on both sides."""
        return ~(self.student.partial | self.teacher.partial)

    @property
    def tokens(self) -> int:
        """Tokens that the student predicts."""
        return len(self.student.target)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.student.to(device), self.teacher.to(device), self.names)


def build(examples: Sequence[Example]) -> Batch:
    """One batch."""
    student = _pad([(one.ours, one.shared.ours, one.prefix[0]) for one in examples])
    teacher = _pad([(one.theirs, one.shared.theirs, one.prefix[1]) for one in examples])
    return Batch(student, teacher, tuple(one.name for one in examples))


def _pad(sides: Sequence[tuple[Ids, Ids, int]]) -> Padded:
    width = max(len(ids) for ids, _, _ in sides)
    padded = np.zeros((len(sides), width), dtype=np.int64)
    rows, target, span, ends, partial = [], [], [], [], []
    spans = 0
    for place, (ids, shared, prefix) in enumerate(sides):
        padded[place, : len(ids)] = ids
        token = np.arange(max(1, prefix), len(ids))  # the first token of all is predicted from nothing
        rows.append(token - 1 + place * width)
        target.append(ids[token])
        span.append(np.searchsorted(shared, token, "left") + spans)
        ends.append(shared + place * width)
        part = np.zeros(len(shared), dtype=bool)
        part[:1] = prefix == 0
        partial.append(part)
        spans += len(shared)
    found = (np.concatenate(part) for part in (rows, target, span, ends, partial))
    return Padded(torch.from_numpy(padded), *(torch.from_numpy(part) for part in found))


def group(examples: Sequence[Example], budget: int) -> list[list[Example]]:
    """Examples of similar length together, at most `budget` tokens of the student a batch, padding included."""
    order = sorted(range(len(examples)), key=lambda index: (-len(examples[index].ours), index))
    groups: list[list[Example]] = []
    for index in order:
        one = examples[index]
        if groups and (len(groups[-1]) + 1) * len(groups[-1][0].ours) <= budget:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


@dataclass(frozen=True)
class Place:
    """How far the data have been read: full rounds, and examples of the present one."""

    round: int = 0
    index: int = 0


class Order:
    """The examples in a new order each round, drawn from the seed alone: a place says all that a resumed run needs."""

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self.examples, self.seed = examples, seed
        self._drawn: tuple[int, Ids] | None = None

    def step(self, place: Place, tokens: int) -> tuple[list[Example], Place]:
        """The examples from `place` on until the student has `tokens` to predict, and the place after them."""
        found, count, here = [], 0, place
        while count < tokens:
            one = self.examples[int(self._round(here.round)[here.index])]
            found.append(one)
            count += one.scored
            here = Place(here.round, here.index + 1)
            if here.index == len(self.examples):
                here = Place(here.round + 1, 0)
        return found, here

    def _round(self, number: int) -> Ids:
        if self._drawn is None or self._drawn[0] != number:
            generator = np.random.default_rng((self.seed, number))
            self._drawn = number, generator.permutation(len(self.examples))
        return self._drawn[1]
