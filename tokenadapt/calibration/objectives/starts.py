"""Divergence of what comes next at shared positions, over groups of tokens that both sides can be asked about.

`logits` compares common tokens as if no new ones were there; here a new token counts for the old one that it begins
with (`calibration/starts.py`), so that the probability that it takes from others is taken from where the source has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenadapt.calibration.batches import Batch
from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.head import SplitHead, blocks, wide
from tokenadapt.calibration.view import Starts as Groups
from tokenadapt.calibration.view import View

_LEAST = 1e-12  # of a probability


@dataclass(frozen=True)
class Starts:
    """KL from teacher to student in nats per shared position, over groups."""

    def asked(self, body: Body) -> Asked:
        """Final states only."""
        return Asked()

    def count(self, batch: Batch, view: View) -> int:
        """Shared positions."""
        return len(batch.student.shared)

    def loss(self, view: View) -> Tensor:
        """The sum over them."""
        assert view.starts is not None
        ours = view.ours.final.flatten(0, 1)[view.batch.student.shared]
        theirs = view.theirs.final.flatten(0, 1)[view.batch.teacher.shared]
        heads = view.student.head, view.teacher.head
        found: Tensor = _GroupKL.apply(ours, heads[0].table.trained, theirs, heads, view.starts)  # type: ignore[no-untyped-call]
        return found


class _GroupKL(torch.autograd.Function):
    """The gradient is made with the value: both need the same probabilities, and a sum's gradient only scales it."""

    @staticmethod
    def forward(
        ctx: Any, ours: Tensor, trained: Tensor, theirs: Tensor, heads: tuple[SplitHead, SplitHead], groups: Groups
    ) -> Tensor:
        student, teacher = heads
        total = torch.zeros((), device=ours.device, dtype=wide(ours[:0]).dtype)
        to_states, to_rows = torch.zeros_like(ours), torch.zeros_like(trained)
        for part in blocks(len(ours), min(student.block, teacher.block)):
            logits = student.logits(ours[part])
            found = logits.softmax(1)
            wanted = _by_group(teacher.logits(theirs[part]).softmax(1), groups.teacher, groups.count)
            given = _by_group(found, groups.student, groups.count).clamp_(min=_LEAST)
            total += (wanted * (wanted.clamp(min=_LEAST) / given).log()).sum()
            flow = found.mul_(1 - (wanted / given)[:, groups.student])
            states, rows = student.pulled(logits, flow, ours[part])
            to_states[part] = states
            to_rows += rows
        ctx.save_for_backward(to_states, to_rows)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_rows = ctx.saved_tensors
        return to_states * grad.to(to_states), to_rows * grad.to(to_rows), None, None, None


def _by_group(probabilities: Tensor, group: Tensor, count: int) -> Tensor:
    """Sums over groups: (n, G)."""
    found = probabilities.new_zeros(len(probabilities), count)
    return found.scatter_add_(1, group.expand(len(probabilities), -1), probabilities)
