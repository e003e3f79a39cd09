"""Rows of a table read from its file through a map of the file: no other tensor is touched."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenadapt.checkpoint.shards import FLOATS, TensorRef
from tokenadapt.errors import RequestError
from tokenadapt.plan import rows_at_once
from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab.types import Ids

_WORD: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("<i4"),
    torch.float16: np.dtype("<i2"),
    torch.bfloat16: np.dtype("<i2"),
}
_KEEP = 64 << 20  # bytes of the map that may stay resident before they are given back
_AROUND = 64 << 10  # bytes that the system maps around a row that is read


class FileTable:
    """A table in a safetensors file, readable by row.

    Pages that were read are given back to the system now and then: they stay in its cache, and the process's resident
    memory stays small however large the table is.
    """

    def __init__(self, path: Path, ref: TensorRef) -> None:
        self._shape = (ref.shape[0], ref.shape[1])
        self._dtype = FLOATS[ref.dtype]
        self._read = 0
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        word = _WORD[self._dtype]
        flat = np.frombuffer(self._map, np.uint8, ref.nbytes, ref.offset).view(word)
        self._words = flat.reshape(self._shape)  # (V, D) raw words

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
        words = np.empty((len(ids), self._shape[1]), self._words.dtype)
        touched = words.itemsize * self._shape[1] + _AROUND  # by a row, where rows lie far apart
        step = max(1, _KEEP // touched)
        for first in range(0, len(ids), step):
            part = ids[first : first + step]
            words[first : first + step] = self._words[part]
            self._give_back(len(part) * touched)
        return torch.from_numpy(words).view(self._dtype)

    def _give_back(self, nbytes: int) -> None:
        self._read += nbytes
        if self._read >= _KEEP and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0


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
            "The source checkpoint is damaged: download it again, or take another one.",
        )
