"""One batch as teacher and student see it: what objectives compare. Everything is computed once, and only if asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from tokenadapt.calibration.batches import Batch, Padded
from tokenadapt.calibration.body import Asked, Reading
from tokenadapt.calibration.head import wide
from tokenadapt.calibration.speaker import Speaker


@dataclass(frozen=True)
class Common:
    """Places, in each side's compact order, of the tokens that both vocabularies have."""

    student: Tensor  # (C,)
    teacher: Tensor  # (C,)


@dataclass(frozen=True)
class Starts:
    """The group of each token, in each side's compact order (`starts.py`)."""

    student: Tensor  # (V,)
    teacher: Tensor  # (W,)
    count: int


@dataclass
class View:
    """A batch, both speakers, and what the objectives need of them. `scale` is the teacher's own spread by layer."""

    batch: Batch
    student: Speaker
    teacher: Speaker
    asked: Asked
    common: Common | None = None
    is_new: Tensor | None = None  # (V,) True for tokens of the student that the teacher lacks
    scale: Mapping[str, float] = field(default_factory=dict)
    starts: Starts | None = None

    @cached_property
    def ours(self) -> Reading:
        """The student's reading, with gradients."""
        return self.student.read(self.batch.student.ids, self.asked)

    @cached_property
    def theirs(self) -> Reading:
        """The teacher's reading."""
        with torch.no_grad(), self.teacher.body.as_teacher():
            return self.teacher.read(self.batch.teacher.ids, self.asked)

    @cached_property
    def log_probs(self) -> Tensor:
        """The student's log-probability of each token that it predicts: (n,)."""
        side = self.batch.student
        return self.student.head.log_probs(_flat(self.ours.final)[side.rows], side.target)

    @cached_property
    def teacher_log_probs(self) -> Tensor:
        """The teacher's."""
        side = self.batch.teacher
        with torch.no_grad():
            return self.teacher.head.log_probs(_flat(self.theirs.final)[side.rows], side.target)

    def at_shared(self, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """Values of both sides (B, T, D) at the positions that they share: (S, D) each."""
        return (
            wide(_flat(ours)[self.batch.student.shared]),
            wide(_flat(theirs)[self.batch.teacher.shared]),
        )

    def by_span(self, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """Means of both sides' values (B, T, D) over the tokens of each shared span: (S, D) each."""
        return span_means(self.batch.student, ours), span_means(self.batch.teacher, theirs)


def _flat(values: Tensor) -> Tensor:
    return values.flatten(0, 1)


def span_means(side: Padded, values: Tensor) -> Tensor:
    """Means of values (B, T, D) over the tokens of each shared span: (S, D)."""
    spans, flat = len(side.shared), _flat(values)
    tokens = wide(flat[side.rows + 1])
    total = tokens.new_zeros(spans, flat.shape[1]).index_add(0, side.span, tokens)
    count = torch.bincount(side.span, minlength=spans).clamp(min=1)
    return total / count[:, None]
