"""What an objective is: a sum over some units of a batch, and how many such units there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tokenadapt.calibration.batches import Batch
from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.view import View


class Objective(Protocol):
    """One thing that the student is to have in common with its teacher, zero where it has."""

    def asked(self, body: Body) -> Asked:
        """What readings must leave."""
        ...

    def count(self, batch: Batch, view: View) -> int:
        """Units of the batch: known before anything is read, so that processes agree on the mean."""
        ...

    def loss(self, view: View) -> Tensor:
        """The sum over the units, in nats or as a share of the teacher's own spread."""
        ...


@dataclass(frozen=True)
class Weighted:
    """An objective with its weight and what a user called it."""

    name: str
    weight: float
    objective: Objective
