"""Outputs of attention in the first layers, on aligned segments: model-aware transfer (arXiv 2510.21954).

What the first third of the layers reads out of a segment, averaged over its tokens, is to be the same on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenadapt.calibration.batches import Batch
from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.view import View, span_means


@dataclass(frozen=True)
class Attention:
    """Mean squared error of attention outputs over shared spans, as a share of the teacher's variance."""

    share: float = 1 / 3  # of the layers

    @property
    def key(self) -> str:
        """Under which the teacher's spread is kept."""
        return "attention"

    def asked(self, body: Body) -> Asked:
        """Outputs of the first modules."""
        return Asked(attentions=body.attentions(self.share))

    def count(self, batch: Batch, view: View) -> int:
        """Shared spans."""
        return len(batch.student.shared)

    def loss(self, view: View) -> Tensor:
        """The sum over them."""
        total = view.ours.final.new_zeros((), dtype=torch.float32)
        pairs = list(zip(view.ours.attention, view.theirs.attention, strict=True))
        for number, (ours, theirs) in enumerate(pairs):
            mine, other = view.by_span(ours, theirs)
            total = total + (mine - other).square().mean(1).sum() / view.scale.get(f"{self.key} {number}", 1.0)
        return total / len(pairs)

    def spreads(self, view: View) -> dict[str, float]:
        """Variance of the teacher's outputs over spans, by layer."""
        pairs = enumerate(view.theirs.attention)
        return {
            f"{self.key} {number}": float(span_means(view.batch.teacher, value).var(0, unbiased=False).mean())
            for number, value in pairs
        }
