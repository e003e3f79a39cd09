"""A table in two parts: rows that stay, and one compact matrix of the rows that are trained.

Logits come in this compact order (frozen rows first), so that no full table is ever put together; `place` says where
the row of a token id stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from tokenadapt.plan import Table
from tokenadapt.vocab.types import Ids

_BLOCK = 8192


class SplitTable(nn.Module):
    """Rows of one role, or of both where the model is tied: `frozen` (V - M, D) and `trained` (M, D) float32."""

    frozen: Tensor
    place: Tensor
    order: Tensor
    bias: Tensor | None

    def __init__(self, table: Table, trained: Ids, dtype: torch.dtype, bias: Tensor | None = None) -> None:
        super().__init__()
        rows = table.shape[0]
        self.ids = np.sort(np.asarray(trained, dtype=np.int64))
        kept = np.setdiff1d(np.arange(rows, dtype=np.int64), self.ids, assume_unique=True)
        order = torch.from_numpy(np.concatenate([kept, self.ids]))
        place = torch.empty(rows, dtype=torch.long)
        place[order] = torch.arange(rows)
        self.register_buffer("frozen", _gather(table, kept, dtype))
        self.trained = nn.Parameter(_gather(table, self.ids, torch.float32))
        self.size = _typical_size(self.frozen, self.trained)
        self.register_buffer("place", place)
        self.register_buffer("order", order)
        self.register_buffer("bias", None if bias is None else bias.float().reshape(-1)[order])

    @property
    def rows(self) -> int:
        """V."""
        return len(self.place)

    def lookup(self, ids: Tensor) -> Tensor:
        """Rows of `ids` (...,) in the frozen part's type; gradients reach the trained ones only."""
        place, count = self.place[ids], len(self.frozen)
        fresh = place >= count
        out = self.frozen[torch.where(fresh, 0, place)] if count else self.frozen.new_zeros(*ids.shape, self.width)
        if bool(fresh.any()):
            new = nn.functional.embedding(place[fresh] - count, self.trained).to(out.dtype)
            out = out.index_put((fresh,), new)
        return out

    @property
    def width(self) -> int:
        """D."""
        return int(self.trained.shape[1])

    def current(self) -> Tensor:
        """The trained rows in the order of `ids`, on the CPU: (M, D) float32."""
        return self.trained.detach().float().cpu()


def _typical_size(*parts: Tensor) -> float:
    """Root mean square of all numbers, by which a step of training is measured."""
    total = sum(
        float(part.detach()[first:last].float().square().sum()) for part in parts for first, last in _blocks(len(part))
    )
    return float((total / max(1, sum(part.numel() for part in parts))) ** 0.5)


def _gather(table: Table, ids: Ids, dtype: torch.dtype) -> Tensor:
    out = torch.empty(len(ids), table.shape[1], dtype=dtype)
    for first, last in _blocks(len(ids)):
        out[first:last] = table.rows(ids[first:last]).to(dtype)
    return out


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    for first in range(0, count, _BLOCK):
        yield first, min(first + _BLOCK, count)
