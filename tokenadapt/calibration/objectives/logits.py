"""Divergence of next-token probabilities at shared positions, over the tokens that both vocabularies have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tokenadapt.calibration.batches import Batch
from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.head import blocks
from tokenadapt.calibration.view import View


@dataclass(frozen=True)
class Logits:
    """KL from teacher to student in nats per shared position, each side normalised over the common tokens."""

    def asked(self, body: Body) -> Asked:
        """Final states only."""
        return Asked()

    def count(self, batch: Batch, view: View) -> int:
        """Shared positions."""
        return len(batch.student.shared)

    def loss(self, view: View) -> Tensor:
        """The sum over them."""
        assert view.common is not None
        common, student, teacher = view.common, view.student.head, view.teacher.head
        ours = view.ours.final.flatten(0, 1)[view.batch.student.shared]
        theirs = view.theirs.final.flatten(0, 1)[view.batch.teacher.shared]

        def block(states: Tensor, others: Tensor, rows: Tensor) -> Tensor:
            """`rows` is named so that the recomputation sees the trained rows as an input."""
            with torch.no_grad():
                wanted = teacher.logits(others)[:, common.teacher].log_softmax(1)
            found = student.logits(states)[:, common.student].log_softmax(1)
            return (wanted.exp() * (wanted - found)).sum()

        total = torch.zeros((), device=ours.device)
        for part in blocks(len(ours), max(1, student.block // 2)):
            given = ours[part], theirs[part], student.table.trained
            total = total + checkpoint(block, *given, use_reentrant=False)
        return total
