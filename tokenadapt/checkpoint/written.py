"""What goes into the writer and what it tells the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from tokenadapt.checkpoint.place import Placed
from tokenadapt.plan import Role

Blocks = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True)
class NewTable:
    """A table to be written: `blocks` gives its rows in order, anew at each call, and leaves given blocks alone."""

    shape: tuple[int, int]
    dtype: torch.dtype
    blocks: Blocks


@dataclass(frozen=True)
class WrittenTensor:
    """One tensor of the output."""

    name: str
    shard: str
    dtype: str
    shape: tuple[int, ...]
    offset: int  # first byte, counted from the start of the file
    nbytes: int
    new: bool  # a table or a bias; False: the source's bytes
    sha256: str | None  # of its bytes; None where they were not read


@dataclass(frozen=True)
class WrittenShard:
    """One file of the output."""

    name: str
    size: int
    how: Literal["written"] | Placed
    sha256: str | None  # of the whole file, where a Hub cache knew it already


@dataclass(frozen=True)
class WrittenTensors:
    """What was written, for the manifest."""

    tensors: tuple[WrittenTensor, ...]
    shards: tuple[WrittenShard, ...]
    tied: bool
    tables: Mapping[Role, str]  # names in the output

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors, as an index counts them."""
        return sum(tensor.nbytes for tensor in self.tensors)
