"""Several processes that share the batches of one run, started by torchrun; alone where it was not.

Scores travel as one float64 array in which each token is filled in by exactly one process, so that the sum over
processes is exact. gloo carries it whatever the devices: it is little, and a lost process is noticed at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from tokenadapt.errors import RequestError, TokenAdaptError

PATIENCE: Final = timedelta(minutes=float(os.environ.get("TOKENADAPT_RANK_MINUTES", "30")))


@dataclass(frozen=True)
class Ranks:
    """The number of a process and how many there are."""

    rank: int = 0
    size: int = 1
    local: int = 0  # its number on this machine: which accelerator it takes

    @property
    def first(self) -> bool:
        """Whether this process reports."""
        return self.rank == 0

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes, in float64."""
        if self.size == 1:
            return values
        total = torch.from_numpy(values.copy())
        with _noticing():
            dist.all_reduce(total)
        return total.numpy()

    def agree(self, error: TokenAdaptError | None) -> None:
        """Raise on every process what went wrong on any, so that none waits for the others."""
        if self.size == 1:
            if error is not None:
                raise error
            return
        said: list[tuple[str, str] | None] = [None] * self.size
        with _noticing():
            dist.all_gather_object(said, None if error is None else (error.message, error.hint))
        if error is not None:
            raise error
        for rank, words in enumerate(said):
            if words is not None:
                raise TokenAdaptError(f"Process {rank} of {self.size} failed: {words[0]}", words[1])


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did; they part at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        yield _already() if dist.is_initialized() else Ranks()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RequestError(
            f"WORLD_SIZE is {size}, but there is no {', '.join(missing)}.",
            "Start several processes with torchrun, or unset WORLD_SIZE.",
        )
    with _noticing():
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield _already()
    finally:
        dist.destroy_process_group()


def _already() -> Ranks:
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def _noticing() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TokenAdaptError(
            f"A process of this run was lost: {str(error).splitlines()[0]}",
            "Look above for what it said last (out of memory?), and start the run again.",
        ) from error
