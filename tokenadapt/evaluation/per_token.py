"""Every scored token as a row of a parquet file, written as the pools come in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tokenadapt.evaluation.score import Scores
from tokenadapt.evaluation.texts import Texts


class PerToken:
    """A writer that leaves the file under its name only when it is complete; nothing where `path` is None.

    Columns: model, subset, document (number in reading order), token (number in its document), id, offset and bytes
    (the stretch of the document that it accounts for), bits, row (how its table row was made, or null).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.writer: Any = None
        self.part = path.with_name(f".{path.name}.part") if path else None

    def __enter__(self) -> PerToken:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is None or self.part is None or self.path is None:
            return
        self.writer.close()
        if error is None:
            self.part.replace(self.path)
        else:
            self.part.unlink(missing_ok=True)

    def add(
        self,
        model: str,
        texts: Texts,
        documents: range,
        scores: Scores,
        rows: Sequence[str] | None,
    ) -> None:
        """Append one pool."""
        if self.part is None:
            return
        import pyarrow

        encoded, bits = scores.encoded, scores.bits
        document = encoded.document_of()
        before = np.concatenate(([0], np.cumsum(encoded.nbytes)))
        labels = [texts.label[index] for index in documents]
        table = pyarrow.table(
            {
                "model": pyarrow.array([model]).dictionary_encode().take(pyarrow.array(np.zeros(len(bits), np.int64))),
                "subset": pyarrow.array(labels).dictionary_encode().take(pyarrow.array(document)),
                "document": document + documents.start,
                "token": np.arange(len(bits)) - encoded.start[document],
                "id": encoded.ids,
                "offset": before[:-1] - before[encoded.start[document]],
                "bytes": encoded.nbytes,
                "bits": bits,
                "row": pyarrow.array(
                    [None] * len(bits) if rows is None else [rows[i] if i < len(rows) else None for i in encoded.ids],
                    pyarrow.string(),
                ),
            }
        )
        self._open(table.schema).write_table(table)

    def drop(self) -> None:
        """Give the file up: the run was interrupted."""
        if self.writer is not None and self.part is not None:
            self.writer.close()
            self.part.unlink(missing_ok=True)
        self.writer = self.part = None

    def _open(self, schema: Any) -> Any:  # pyarrow is untyped
        if self.writer is None:
            import pyarrow.parquet

            self.writer = pyarrow.parquet.ParquetWriter(self.part, schema)
        return self.writer
