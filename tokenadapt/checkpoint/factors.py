"""`transplant.factors`: new tables as F P too, for code that keeps embeddings factorised.

A safetensors file under a name that no engine globbing `*.safetensors` loads; the model beside it does not need it.
For each role it holds `ROLE.F` (V, k) and `ROLE.P` (k, D) in float32. P's rows are orthonormal, so F = E P^T is the
best that this P can say of the table E: exact for rows that were made inside its span, an approximation of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.checkpoint.shards import make_header
from tokenadapt.plan import Role
from tokenadapt.progress import SILENT, Advance, Progress

FILE: Final = "transplant.factors"
UNUSED, NEW, COPIED = range(3)


@dataclass(frozen=True)
class Factored:
    """A new table that is wanted as factors."""

    blocks: Callable[[], Iterator[torch.Tensor]]  # its rows in order, float32
    primitives: torch.Tensor  # (k, D) float32, orthonormal
    group: NDArray[np.int64]  # (V,) UNUSED, NEW or COPIED


def write_factors(
    path: Path, tables: Mapping[Role, Factored], progress: Progress = SILENT
) -> dict[str, dict[str, float]]:
    """Write the factors of every table; gives, by role, the rank and what is lost.

    `lost_new` and `lost_copied` are shares of the squared length of made and of copied rows that F P does not have.
    """
    entries: list[tuple[str, str, tuple[int, ...], int]] = []
    for role, table in tables.items():
        k, width = table.primitives.shape
        for name, shape in ((f"{role}.F", (len(table.group), k)), (f"{role}.P", (k, width))):
            entries.append((name, "F32", shape, 4 * shape[0] * shape[1]))
    told = {}
    rows = sum(len(table.group) for table in tables.values())
    with path.open("xb") as file, progress.stage("write factors", rows, "rows") as advance:
        file.write(make_header(entries, {"format": "pt"}))
        for role, table in tables.items():
            told[str(role)] = _write(file, table, advance)
    return told


def _write(file: BinaryIO, table: Factored, advance: Advance) -> dict[str, float]:
    """F in blocks, then P."""
    onto = table.primitives.float().contiguous()
    whole, kept, first = np.zeros(3), np.zeros(3), 0
    for block in table.blocks():
        coordinates = block.float() @ onto.T
        file.write(coordinates.contiguous().numpy().data)
        group = table.group[first : first + len(block)]
        first += len(block)
        for total, rows in ((whole, block), (kept, coordinates)):
            total += np.bincount(group, weights=rows.double().square().sum(1).numpy(), minlength=3)
        advance(len(block))
    file.write(onto.numpy().data)
    lost = 1 - np.divide(kept, whole, out=np.ones(3), where=whole > 0).clip(0, 1)
    return {"rank": len(onto), "lost_new": float(lost[NEW]), "lost_copied": float(lost[COPIED])}
