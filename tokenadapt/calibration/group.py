"""The processes of one run: alone, or several that torchrun started, joined through accelerate.

Batches are composed before processes share them, and gradients are sums, so that several processes compute what one
does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenadapt.errors import MissingExtraError, TokenAdaptError


@dataclass(frozen=True)
class Group:
    """The number of this process, how many there are, and what joins them."""

    rank: int = 0
    size: int = 1
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device if self.accelerator is not None else torch.device("cpu")

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes."""
        if self.size == 1:
            return values
        total = torch.from_numpy(values.copy())
        if self.device.type != "mps":
            total = total.to(self.device)
        return np.asarray(self.accelerator.reduce(total, "sum").cpu().numpy())

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, in place."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(self.accelerator.reduce(parameter.grad, "sum"))

    def agree(self, flag: bool) -> bool:
        """Whether any process says yes."""
        return bool(self.sum(np.array([float(flag)]))[0]) if self.size > 1 else flag

    @contextmanager
    def first_goes(self) -> Iterator[None]:
        """The first process does this before the others."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """Part from the others: a process that ends while still joined may be aborted by its own threads."""
        if self.size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def join(device: str | None) -> Group:
    """Join the processes of this run; MissingExtraError where accelerate is not installed."""
    try:
        from accelerate import Accelerator
    except ImportError:
        raise MissingExtraError("calibrate", "accelerate", "calibrate") from None
    try:
        accelerator = Accelerator(cpu=device == "cpu" or (device is None and not torch.cuda.is_available()))
    except (RuntimeError, ValueError) as error:
        raise TokenAdaptError(
            f"The processes of this run cannot be joined: {str(error).splitlines()[0]}",
            "Start them with torchrun, or run a single one.",
        ) from error
    return Group(accelerator.process_index, accelerator.num_processes, accelerator)
