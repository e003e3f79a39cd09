"""Cross-entropy on the text as the student reads it: what users do today, and what output rows learn from.

All tokens count by default: a new row must also lose where another token comes. `text@new` counts new tokens only.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tokenadapt.calibration.batches import Batch
from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.view import View


@dataclass(frozen=True)
class Text:
    """Negative log-likelihood in nats per token."""

    new_only: bool = False

    def asked(self, body: Body) -> Asked:
        """Final states only."""
        return Asked()

    def count(self, batch: Batch, view: View) -> int:
        """Tokens that are predicted."""
        return int(self._chosen(batch, view).sum()) if self.new_only else len(batch.student.target)

    def loss(self, view: View) -> Tensor:
        """The sum over them."""
        found = view.log_probs
        return -(found[self._chosen(view.batch, view)] if self.new_only else found).sum()

    def _chosen(self, batch: Batch, view: View) -> Tensor:
        assert view.is_new is not None
        return view.is_new[batch.student.target]
