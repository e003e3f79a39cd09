"""Hidden states at shared positions: token distillation (arXiv 2505.20133).

After the same bytes, a layer of the student is to hold what it holds in the teacher. The error is a share of the
teacher's own spread, so that weights mean the same for every model.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tokenadapt.calibration.batches import Batch
from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.view import View


@dataclass(frozen=True)
class Hidden:
    """Mean squared error over a shared position's state, as a share of the teacher's variance."""

    layer: int  # in 0..depth; the last is what the head reads

    @property
    def key(self) -> str:
        """Under which the teacher's spread is kept."""
        return f"layer {self.layer}"

    def asked(self, body: Body) -> Asked:
        """The layer, where it is not the last."""
        return Asked(layers=() if self.layer == body.depth else (self.layer,))

    def count(self, batch: Batch, view: View) -> int:
        """Shared positions."""
        return len(batch.student.shared)

    def loss(self, view: View) -> Tensor:
        """The sum over them."""
        ours, theirs = view.at_shared(*self.states(view))
        return (ours - theirs).square().mean(1).sum() / view.scale.get(self.key, 1.0)

    def states(self, view: View) -> tuple[Tensor, Tensor]:
        """Both sides' states at the layer: (B, T, D)."""
        if self.layer in view.asked.layers:
            return view.ours.layers[self.layer], view.theirs.layers[self.layer]
        return view.ours.final, view.theirs.final

    def spread(self, view: View) -> float:
        """Variance of the teacher's states over positions."""
        side = view.batch.teacher
        values = view.theirs.layers.get(self.layer, view.theirs.final).flatten(0, 1)[side.shared].float()
        return float(values.var(0, unbiased=False).mean())
