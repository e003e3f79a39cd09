"""Files, folders, globs, standard input and Hub datasets to one stream of documents, with weights and samples.

A spec is a file (.txt, .jsonl, .parquet, each also .gz or .zst; any other file is read as text), a folder (all such
files below it), a glob, `-` for standard input, or a Hub dataset (`hf:OWNER/NAME`, `hf:OWNER/NAME:CONFIG`, or
OWNER/NAME where no such path exists), each with an optional weight: `de.jsonl=0.7`.

A weight says how often a document is taken: 0.7 keeps seven of ten (by the seed), 2 takes each twice. With
`sample_bytes`, the weights are the shares of the sample instead. Files are then read twice, once to measure; standard
input and Hub datasets cannot be measured, so their first bytes are taken (a Hub stream is shuffled by the seed).
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from tokenadapt.documents import CorpusCounts, CorpusError, CorpusOptions, Document
from tokenadapt.progress import SILENT, Advance, Progress
from tokenadapt.readers import format_of, read_file
from tokenadapt.rows import read_dataset
from tokenadapt.sources import Source, find_sources

__all__ = [
    "CorpusCounts",
    "CorpusError",
    "CorpusOptions",
    "Document",
    "read_corpus",
    "read_in_turn",
]
OPEN: Final = 64  # files read side by side
TURN: Final = 1 << 16  # bytes of a text file until it is the next one's turn


def read_corpus(
    specs: Sequence[str],
    options: CorpusOptions = CorpusOptions(),  # noqa: B008  # frozen
    *,
    counts: CorpusCounts | None = None,
    progress: Progress = SILENT,
) -> Iterator[Document]:
    """Stream the documents of all specs, in the order given; `counts` is added to as they pass.

    Raises RequestError at once where a spec names nothing, and CorpusError while reading where input is bad and
    `on_error` is "fail".
    """
    sources = find_sources(specs)
    return _stream(sources, options, counts if counts is not None else CorpusCounts(), progress)


def read_in_turn(specs: Sequence[str], options: CorpusOptions) -> Iterator[Document]:
    """All documents, one of each file in turn: who stops early has read something of all files.

    A text file comes in blocks of at most TURN bytes. Fails as `read_corpus` does; a sample or a limit is one of each
    file.
    """
    parts = [
        part
        for source in find_sources(specs)
        for part in ([replace(source, files=(file,)) for file in source.files] or [source])
    ]
    waiting = (_stream([part], _in_turn(part, options), CorpusCounts(), SILENT) for part in parts)
    opened = deque(islice(waiting, OPEN))
    while opened:
        stream = opened.popleft()
        document = next(stream, None)
        if document is None:
            opened.extend(islice(waiting, 1))
        else:
            yield document
            opened.append(stream)


def _in_turn(part: Source, options: CorpusOptions) -> CorpusOptions:
    """How one file is read: text in smaller blocks; of rows, a line must stand in a block as a whole."""
    if any(format_of(file, options) == "text" for file, _ in part.files):
        return replace(options, block_bytes=min(TURN, options.block_bytes))
    return options


def _stream(
    sources: list[Source], options: CorpusOptions, counts: CorpusCounts, progress: Progress
) -> Iterator[Document]:
    if options.sample_bytes is not None:
        fine = max(4096, options.sample_bytes // 256)  # a sample of few large blocks would be no sample
        options = replace(options, block_bytes=min(options.block_bytes, fine))
    budgets = _budgets(sources, options, progress)
    size = sum(file.stat().st_size for source in sources for file, _ in source.files)
    taken: Counter[str] = Counter()
    with progress.stage("read corpus", total=size or None, unit="bytes") as advance:
        for index, source in enumerate(sources):
            draw = random.Random(f"{options.seed}:{index}")  # noqa: S311  # a seeded sample, no secret
            documents = _documents(source, options, counts, advance)
            chosen = (
                _weighted(documents, source.weight, draw) if budgets is None else budgets[index].draw(documents, draw)
            )
            for document in chosen:
                limited = _limited(document, options.limit_bytes, taken)
                if limited is not None:
                    counts.add(limited, len(limited.text.encode()))
                    yield limited
                if _used_up(source, document.label, options, taken):
                    break


def _used_up(source: Source, label: str, options: CorpusOptions, taken: Counter[str]) -> bool:
    """Whether nothing more of a source can be taken: it has one label, and its limit is reached."""
    if options.limit_bytes is None or options.label_column is not None or taken[label] < options.limit_bytes:
        return False
    return len({label for _, label in source.files}) <= 1


def _documents(source: Source, options: CorpusOptions, counts: CorpusCounts, advance: Advance) -> Iterator[Document]:
    if source.dataset is not None:
        yield from read_dataset(source.dataset, options, counts)
    elif not source.files:
        yield from read_file(None, "stdin", options, counts, advance)
    for file, label in source.files:
        yield from read_file(file, label, options, counts, advance)


def _weighted(documents: Iterator[Document], weight: float, draw: random.Random) -> Iterator[Document]:
    whole, part = int(weight), weight - int(weight)
    for document in documents:
        for _ in range(whole + (part > 0 and draw.random() < part)):
            yield document


@dataclass(frozen=True)
class _Budget:
    """How many bytes of a source are wanted, and how many it has (None: unknown, the first are taken)."""

    wanted: int
    total: int | None

    def draw(self, documents: Iterator[Document], draw: random.Random) -> Iterator[Document]:
        """Take each document with the probability that is left over: the sum lands beside the budget."""
        left, unseen = self.wanted, self.total
        for document in documents:
            if left <= 0:
                return
            size = len(document.text.encode())
            take = unseen is None or draw.random() * unseen < left
            unseen = None if unseen is None else max(1, unseen - size)
            if take:
                left -= size
                yield document


def _budgets(sources: list[Source], options: CorpusOptions, progress: Progress) -> list[_Budget] | None:
    if options.sample_bytes is None:
        return None
    weights = sum(source.weight for source in sources)
    found = []
    for source in sources:
        total: int | None = None
        if source.repeatable:
            size = sum(file.stat().st_size for file, _ in source.files)
            with progress.stage(f"measure {source.spec}", total=size, unit="bytes") as advance:
                total = sum(len(d.text.encode()) for d in _documents(source, options, CorpusCounts(), advance))
        found.append(_Budget(round(options.sample_bytes * source.weight / weights), total))
    return found


def _limited(document: Document, limit: int | None, taken: Counter[str]) -> Document | None:
    """The document, or its beginning where the limit of its label is reached, or None."""
    if limit is None:
        return document
    raw = document.text.encode()
    left = limit - taken[document.label]
    taken[document.label] += len(raw)
    if left <= 0:
        return None
    if len(raw) <= left:
        return document
    text = raw[:left].decode(errors="ignore")  # never inside a character
    return replace(document, text=text) if text else None
