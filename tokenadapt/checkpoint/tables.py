"""Rows of a table read from its file: no other tensor is touched."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import numpy as np
import torch

from tokenadapt.checkpoint.shards import AGAIN, FLOATS, TensorRef
from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.plan import rows_at_once
from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab.types import Ids


class FileTable:
    """A table in a safetensors file, readable by row.

    Rows are read, not mapped: pages of a mapped file count as the process's own, and how many the system maps around
    a row depends on how the file came into its cache.
    """

    def __init__(self, path: Path, ref: TensorRef) -> None:
        self._shape = (ref.shape[0], ref.shape[1])
        self._dtype = FLOATS[ref.dtype]
        self._offset, self._row = ref.offset, ref.shape[1] * self._dtype.itemsize
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        """Storage type."""
        return self._dtype

    def rows(self, ids: Ids) -> torch.Tensor:
        """Rows `ids` in storage type, bits unchanged: (len(ids), D)."""
        ids = np.asarray(ids, dtype=np.int64)
        if len(ids) and not (ids.min() >= 0 and ids.max() < self._shape[0]):
            raise IndexError(f"row {ids.min()} or {ids.max()} of a table of {self._shape[0]}")
        made = torch.empty(len(ids), self._shape[1], dtype=self._dtype)
        if not made.numel():
            return made
        view = made.view(torch.uint8).numpy().data.cast("B")
        cuts = np.flatnonzero(np.diff(ids) != 1) + 1  # one read for each run of consecutive rows
        for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(ids)], strict=True):
            self._read(self._offset + int(ids[first]) * self._row, view[first * self._row : last * self._row])
        return made

    def _read(self, place: int, view: memoryview) -> None:
        while len(view):
            if hasattr(os, "preadv"):
                count = os.preadv(self._file.fileno(), [view], place)
            else:
                self._file.seek(place)
                count = self._file.readinto(view) or 0
            if not count:
                raise TokenAdaptError(f"{self._file.name} ends before its tensors do.", AGAIN)
            place, view = place + count, view[count:]


def check_finite(table: FileTable, name: str, progress: Progress = SILENT) -> None:
    """Read the table once, in blocks; raises RequestError naming the first rows that hold a NaN or an infinity."""
    total = table.shape[0]
    bad: list[int] = []
    with progress.stage(f"check {name}", total, "rows") as advance:
        step = rows_at_once(table.shape[1])
        for first in range(0, total, step):
            ids = np.arange(first, min(first + step, total))
            rows = table.rows(ids)
            if not torch.isfinite(rows.sum(dim=1, dtype=torch.float32)).all():  # one pass where all is well
                finite = torch.isfinite(rows).all(dim=1)
                bad += [first + int(row) for row in torch.nonzero(~finite).flatten()]
            advance(len(ids))
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise RequestError(
            f"The table {name} holds numbers that are not finite in {len(bad)} of {total} rows ({shown}).",
            "The checkpoint is damaged: download it again, or take another one.",
        )
