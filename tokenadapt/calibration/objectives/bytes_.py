"""Likelihood of each shared span: the student's sum of token log-probabilities against the teacher's.

Approximate likelihood matching (arXiv 2503.20083): a span's probability p is softened to p^(1/T) and compared as the
probability of a yes or no. At T = 100 that is, up to a factor of T that is put back here, L log(L / l) - L + l for the
surprisals L of the teacher and l of the student: zero where they agree, and for a student that expects too little no
steeper than cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenadapt.calibration.batches import Batch, Padded
from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.view import View

_LEAST = 1e-6  # of a surprisal in units of T: a span that is certain still has a logarithm


@dataclass(frozen=True)
class Bytes:
    """Divergence of softened span probabilities, in nats per span."""

    temperature: float = 100.0

    def asked(self, body: Body) -> Asked:
        """Final states only."""
        return Asked()

    def count(self, batch: Batch, view: View) -> int:
        """Spans that are predicted whole on both sides."""
        return int(batch.whole.sum())

    def loss(self, view: View) -> Tensor:
        """The sum over them."""
        whole = view.batch.whole
        ours = span_sums(view.batch.student, view.log_probs)[whole]
        theirs = span_sums(view.batch.teacher, view.teacher_log_probs)[whole]
        return self.temperature * binary_kl(theirs / self.temperature, ours / self.temperature).sum()


def span_sums(side: Padded, log_probs: Tensor) -> Tensor:
    """Log-probability of each shared span: (S,)."""
    return log_probs.new_zeros(len(side.shared)).index_add(0, side.span, log_probs)


def binary_kl(theirs: Tensor, ours: Tensor) -> Tensor:
    """KL of two yes-or-no questions with log-probabilities of yes `theirs` and `ours`, from their complements up."""
    p, q = theirs.clamp(max=-_LEAST), ours.clamp(max=-_LEAST)
    no_p, no_q = torch.log(-torch.expm1(p)), torch.log(-torch.expm1(q))
    return torch.exp(p) * (p - q) + torch.exp(no_p) * (no_p - no_q)
