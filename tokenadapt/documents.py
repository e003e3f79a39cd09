"""What a corpus is made of: documents, how they are to be read, and an account of what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tokenadapt.errors import RequestError, TokenAdaptError

EXAMPLES_KEPT: Final = 20  # messages of skipped input that are kept word for word


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from.

    `label` is the subset that it is counted under: the value of the label column, else the folder below a given
    folder, else the file's stem. `line` is its first line (1-based), or its row in a parquet file or a dataset.
    """

    text: str
    label: str
    source: str
    line: int


@dataclass(frozen=True)
class CorpusOptions:
    """How a corpus is read; the defaults suit evaluation, training sets `block_bytes` lower.

    `documents` says what one document of a text file is: "file" (in blocks of at most `block_bytes`, cut at line
    ends, so that memory is bounded), "line" or "paragraph" (cut at blank lines). `sample_bytes` is a seeded random
    sample over all corpora in proportion to their weights; `limit_bytes` keeps the first bytes of each label.
    """

    column: str = "text"
    label_column: str | None = None
    split: str = "train"
    on_error: str = "fail"
    documents: str = "file"
    format: str = "auto"
    encoding: str = "utf-8"
    seed: int = 0
    sample_bytes: int | None = None
    limit_bytes: int | None = None
    block_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        choices = {
            "on_error": ("fail", "skip"),
            "documents": ("file", "line", "paragraph"),
            "format": ("auto", "text", "jsonl", "parquet"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise RequestError(f"{name} is {getattr(self, name)!r}.", f"Use one of: {', '.join(allowed)}.")
        for name in ("sample_bytes", "limit_bytes", "block_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name} is {value}.", "Give a positive number of bytes.")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise RequestError(f"The encoding {self.encoding!r} is unknown.", "Use a name such as utf-8.") from None


class CorpusError(TokenAdaptError):
    """A part of a corpus cannot be read; the message names the file and, where there is one, the line."""


@dataclass
class CorpusCounts:
    """What was read and what was left out; every reader of one run adds to it."""

    files: int = 0
    documents: int = 0
    bytes: int = 0
    label_bytes: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, document: Document, size: int) -> None:
        """Count a document of `size` UTF-8 bytes that was handed on."""
        self.documents += 1
        self.bytes += size
        self.label_bytes[document.label] += size

    def fault(self, options: CorpusOptions, reason: str, message: str) -> None:
        """Fail, or count the fault under `reason` where the user asked to skip."""
        if options.on_error == "fail":
            raise CorpusError(message, "Mend the file, or leave such input out with --on-error skip.")
        self.skip(reason, message)

    def skip(self, reason: str, message: str = "") -> None:
        """Count something that was left out, and keep the first messages."""
        self.skipped[reason] += 1
        if message and len(self.examples) < EXAMPLES_KEPT:
            self.examples.append(message)
