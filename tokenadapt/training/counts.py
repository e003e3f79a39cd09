"""How often each pre-token occurs: the whole of a corpus that a trainer needs, as a small mergeable file.

A counts file is parquet: `piece` (bytes, UTF-8 as in the text), `count` (u64), most frequent first; its metadata say
how the text was cut. Counts of stretches serve every training; counts of words serve ordinary ones only.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tokenadapt.documents import Document
from tokenadapt.errors import RequestError
from tokenadapt.training.presets import State, build, build_normalizer

_KEY: Final = b"tokenadapt_counts"


@dataclass(frozen=True)
class Cut:
    """How text becomes pieces: normaliser and pre-tokeniser as tokenizer.json writes them; `kind` word or stretch.

    `markers` are the special tokens: their text is cut out, since no trainer may learn from it.
    """

    kind: str
    pre_tokenizer: State | None
    normalizer: State | None = None
    markers: tuple[str, ...] = ()

    def pieces(self) -> Pieces:
        """The function from text to pieces."""
        return Pieces(self)


class Pieces:
    """Text to its pieces, as the tokenizer will cut it."""

    def __init__(self, cut: Cut) -> None:
        self.split = build(cut.pre_tokenizer)
        self.normal = build_normalizer(cut.normalizer)
        marks = sorted(cut.markers, key=len, reverse=True)
        self.marker = re.compile("|".join(map(re.escape, marks))) if marks else None

    def __call__(self, text: str) -> Iterator[str]:
        """All pieces of a text, in order."""
        parts = self.marker.split(text) if self.marker else [text]
        for part in parts:
            clean = self.normal.normalize_str(part) if self.normal else part
            if self.split is None:
                yield from [clean] if clean else []
            else:
                for piece, _ in self.split.pre_tokenize_str(clean):
                    yield piece


@dataclass
class Counts:
    """Pieces with their number, how they were cut, and where they came from."""

    cut: Cut
    pieces: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    bytes: int = 0
    dropped: int = 0  # occurrences left out by a minimum count

    def add(self, documents: Iterable[Document]) -> None:
        """Count the pieces of documents."""
        cut = self.cut.pieces()
        for document in documents:
            self.pieces.update(cut(document.text))
            self.documents += 1
            self.bytes += len(document.text.encode())

    def merge(self, other: Counts) -> None:
        """Add another corpus's counts; RequestError where its text was cut in another way."""
        if other.cut != self.cut:
            raise RequestError("The counts were made with different cuts.", "Count all corpora with the same options.")
        self.pieces.update(other.pieces)
        self.documents += other.documents
        self.bytes += other.bytes
        self.dropped += other.dropped

    def pruned(self, least: int) -> Counts:
        """Without the pieces that occur fewer than `least` times; what was left out is counted."""
        if least <= 1:
            return self
        kept = Counter({piece: count for piece, count in self.pieces.items() if count >= least})
        lost = self.pieces.total() - kept.total()
        return Counts(self.cut, kept, self.documents, self.bytes, self.dropped + lost)

    def ordered(self) -> list[tuple[str, int]]:
        """Most frequent first, ties by spelling: an order that no reading order changes."""
        return sorted(self.pieces.items(), key=lambda item: (-item[1], item[0]))

    def words(self, cut: Cut) -> Counts:
        """These stretches cut further into words."""
        split = cut.pieces()
        found = Counts(cut, documents=self.documents, bytes=self.bytes, dropped=self.dropped)
        for piece, count in self.pieces.items():
            for word in split(piece):
                found.pieces[word] += count
        return found


def save_counts(counts: Counts, path: Path, *, overwrite: bool = False) -> None:
    """Write a counts file, whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    if path.exists() and not overwrite:
        raise RequestError(f"The output {path} exists already.", "Name another output, or say --overwrite.")
    items = counts.ordered()
    about = {
        "kind": counts.cut.kind, "pre_tokenizer": counts.cut.pre_tokenizer, "normalizer": counts.cut.normalizer,
        "markers": list(counts.cut.markers), "documents": counts.documents, "bytes": counts.bytes,
        "dropped": counts.dropped,
    }  # fmt: skip
    table = pyarrow.table(
        {
            "piece": pyarrow.array([piece.encode() for piece, _ in items], pyarrow.binary()),
            "count": pyarrow.array([count for _, count in items], pyarrow.uint64()),
        }
    ).replace_schema_metadata({_KEY: json.dumps(about, sort_keys=True).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.tokenadapt-{os.getpid()}")
    try:
        pyarrow.parquet.write_table(table, staging, compression="zstd")
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def load_counts(paths: Sequence[Path]) -> Counts:
    """Read one or more counts files into one; RequestError where one is no counts file or was cut otherwise."""
    merged: Counts | None = None
    for path in paths:
        counts = _load(path)
        if merged is None:
            merged = counts
        else:
            merged.merge(counts)
    if merged is None:
        raise RequestError("No counts file was given.", "Make one with: tokenadapt count CORPUS -o FILE")
    return merged


def _load(path: Path) -> Counts:
    import pyarrow
    import pyarrow.parquet

    hint = "Make one with: tokenadapt count CORPUS -o FILE"
    try:
        table = pyarrow.parquet.read_table(path)
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[_KEY])
        pieces = Counter(
            {
                piece.decode(): count
                for piece, count in zip(table["piece"].to_pylist(), table["count"].to_pylist(), strict=True)
            }
        )
    except FileNotFoundError:
        raise RequestError(f"The counts file {path} does not exist.", hint) from None
    except (KeyError, ValueError, pyarrow.ArrowException, OSError) as error:
        raise RequestError(f"{path} is no counts file ({type(error).__name__}).", hint) from error
    cut = Cut(about["kind"], about["pre_tokenizer"], about["normalizer"], tuple(about["markers"]))
    return Counts(cut, pieces, about["documents"], about["bytes"], about["dropped"])
