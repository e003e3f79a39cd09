"""The parameters that a run changes, by name, and copies of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tokenadapt.calibration.speaker import Speaker


class Trained:
    """Rows of the student's tables, and whatever else is trained, with `size` for the typical size of its numbers."""

    def __init__(self, student: Speaker, more: Mapping[str, nn.Parameter] | None = None, size: float = 1.0) -> None:
        rows = {f"rows.{role}": table.trained for role, table in student.tables().items()}
        self.parameters: dict[str, nn.Parameter] = {**rows, **(more or {})}
        self.tables = len(rows)
        self.sizes = [table.size for table in student.tables().values()] + [size] * len(more or {})

    def in_order(self) -> list[nn.Parameter]:
        """The parameters in a fixed order."""
        return list(self.parameters.values())

    def groups(self, lr: float, kind: str = "rows") -> list[dict[str, Any]]:
        """Groups of an optimizer: a rate is a share of the typical size of a table's numbers. `adam`: all alike."""
        found = zip(self.in_order(), self.sizes, strict=True)
        return [
            {
                "params": [parameter],
                "lr": lr * size,
                "highest": lr * size,
                "table": kind == "rows" and number < self.tables,
            }
            for number, (parameter, size) in enumerate(found)
        ]

    def snapshot(self) -> dict[str, Tensor]:
        """Copies on the CPU."""
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Set them to a snapshot."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    @property
    def count(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.parameters.values())
