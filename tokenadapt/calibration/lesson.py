"""What a step computes: the weighted sum of the objectives over some examples, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokenadapt.calibration.batches import Batch, build, group
from tokenadapt.calibration.body import Asked
from tokenadapt.calibration.examples import Example
from tokenadapt.calibration.group import Group
from tokenadapt.calibration.head import wide
from tokenadapt.calibration.objectives import Weighted
from tokenadapt.calibration.objectives.attention import Attention
from tokenadapt.calibration.objectives.hidden import Hidden
from tokenadapt.calibration.pair import Pair
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.calibration.view import Common, Starts, View
from tokenadapt.errors import TokenAdaptError

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class BrokenLossError(TokenAdaptError):
    """A loss or a gradient is no number; the message names the texts that it came from."""


@dataclass(frozen=True)
class Lesson:
    """Teacher, student, and what the one is to learn from the other."""

    student: Speaker
    teacher: Speaker
    objectives: tuple[Weighted, ...]
    asked: Asked
    common: Common
    is_new: Tensor
    batch_tokens: int
    scale: Mapping[str, float] = field(default_factory=dict)
    starts: Starts | None = None

    def view(self, batch: Batch) -> View:
        """A batch as both see it, not yet read."""
        return View(batch, self.student, self.teacher, self.asked, self.common, self.is_new, self.scale, self.starts)

    def batches(self, examples: Sequence[Example]) -> list[Batch]:
        """Examples in batches alike in length, on the student's device."""
        groups = group(examples, self.batch_tokens)
        return [build(members).to(self.student.device) for members in groups]

    def gradients(self, examples: Sequence[Example], ours: Group) -> dict[str, float]:
        """Add the gradient over `examples` to the parameters; gives the mean of each objective.

        Every process reads its share of the batches, and all end with the same sums. Raises BrokenLossError.
        """
        batches = self.batches(examples)
        units = self._units(batches)
        sums = torch.zeros(len(self.objectives), dtype=torch.float64)
        for batch in batches[ours.rank :: ours.size]:
            sums += self._backward(batch, units)
        found = ours.sum(sums.numpy())
        if not all(value == value and abs(value) < float("inf") for value in found.tolist()):
            names = ", ".join(dict.fromkeys(name for batch in batches for name in batch.names))
            raise BrokenLossError(
                f"The loss is no number on the batch of {names[:300]}.", "Lower --lr, or leave them out."
            )
        return {
            one.name: float(value) / max(1, unit)
            for one, value, unit in zip(self.objectives, found, units, strict=True)
        }

    def _units(self, batches: Sequence[Batch]) -> list[int]:
        views = [self.view(batch) for batch in batches]
        return [sum(one.objective.count(view.batch, view) for view in views) for one in self.objectives]

    def _backward(self, batch: Batch, units: Sequence[int]) -> Tensor:
        view = self.view(batch)
        parts = [one.objective.loss(view) for one in self.objectives]
        means = [
            one.weight * wide(part) / max(1, unit)
            for one, part, unit in zip(self.objectives, parts, units, strict=True)
        ]
        total = torch.stack(means).sum()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        return torch.stack([part.detach().double().cpu() for part in parts])


@contextmanager
def memory_named(batch_tokens: int) -> Iterator[None]:
    """Say which option to lower where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
            raise TokenAdaptError(
                f"Memory ran out with --batch-tokens {batch_tokens}.", "Lower --batch-tokens, then --context."
            ) from error
        raise


def measure_scale(lesson: Lesson, examples: Sequence[Example]) -> dict[str, float]:
    """The teacher's own spread of what is compared, on some examples: constants of a run."""
    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for batch in lesson.batches(examples):
            view = lesson.view(batch)
            for one in lesson.objectives:
                if isinstance(one.objective, Hidden):
                    found.setdefault(one.objective.key, []).append(one.objective.spread(view))
                if isinstance(one.objective, Attention):
                    for key, value in one.objective.spreads(view).items():
                        found.setdefault(key, []).append(value)
    return {key: max(sum(values) / len(values), 1e-12) for key, values in found.items()}


def common_places(pair: Pair, student: Speaker, teacher: Speaker) -> Common:
    """Where the tokens that both have stand in both heads."""
    ids = torch.from_numpy(pair.common).to(student.device)
    sources = torch.from_numpy(pair.alignment.source_id[pair.common]).to(student.device)
    return Common(student.output.place[ids], teacher.output.place[sources])
