"""Rows with named columns to documents: records of jsonl, parquet files, Hub datasets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tokenadapt.documents import CorpusCounts, CorpusOptions, Document
from tokenadapt.errors import MissingExtraError, RequestError
from tokenadapt.progress import Advance

Fault = Callable[[str, str], None]  # (reason, what was wrong, to follow the name of the file)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def from_record(record: object, where: tuple[str, str, int], options: CorpusOptions, fault: Fault) -> Document | None:
    """The document in one row of jsonl, parquet or a dataset; None where the fault was counted."""
    name, label, line = where
    if not isinstance(record, dict):
        fault("no text", f", line {line}: a row is {type(record).__name__}, not an object with named columns.")
        return None
    text = record.get(options.column)
    if not isinstance(text, str):
        has = ", ".join(map(str, list(record)[:12]))
        what = "has no" if options.column not in record else "has no text in"
        fault("no text", f", line {line}: {what} column {options.column!r} (columns: {has}; choose one with --column).")
        return None
    if options.label_column is not None:
        if options.label_column not in record:
            fault("no label", f", line {line}: has no label column {options.label_column!r}.")
            return None
        label = str(record[options.label_column])
    if not text.isascii() and _SURROGATE.search(text):
        fault("encoding", f", line {line}: holds half of a surrogate pair, which no UTF-8 text can.")
        return None
    return Document(text, label, name, line)


def read_parquet(path: Path, label: str, options: CorpusOptions, fault: Fault, advance: Advance) -> Iterator[Document]:
    """The rows of one parquet file, batch by batch."""
    import pyarrow
    import pyarrow.parquet

    if path.stat().st_size == 0:
        fault("empty", " is empty.")
        return
    wanted = [options.column] + ([options.label_column] if options.label_column else [])
    row = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if missing := [name for name in wanted if name not in names]:
            fault("no text", f" has no column {missing[0]!r} (columns: {', '.join(names)}; choose one with --column).")
            return
        size, total = path.stat().st_size, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=1024, columns=wanted):
            for record in batch.to_pylist():
                row += 1
                document = from_record(record, (str(path), label, row), options, fault)
                if document is not None:
                    yield document
            advance(size * batch.num_rows / total)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException, OSError) as error:
        fault("truncated", f", row {row + 1}: no readable parquet ({str(error).splitlines()[0]}).")


def read_dataset(name: str, options: CorpusOptions, counts: CorpusCounts) -> Iterator[Document]:
    """The rows of a Hub dataset (or of a local folder that `datasets` understands), streamed."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(f"Reading the dataset {name}", "datasets", "datasets") from None
    path, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(path, config or None, split=options.split, streaming=True)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(
            f"{name} is no path here, and the dataset cannot be opened: {first}.",
            f"Check the name, its configuration (NAME:CONFIG), --split {options.split!r}, and the network.",
        ) from error
    if options.sample_bytes is not None:
        rows = rows.shuffle(seed=options.seed, buffer_size=10_000)
    counts.files += 1

    def fault(reason: str, message: str) -> None:
        counts.fault(options, reason, f"{name}{message}")

    label = path.rsplit("/", 1)[-1]
    for line, record in enumerate(rows, 1):
        document = from_record(record, (name, config or label, line), options, fault)
        if document is not None:
            yield document
