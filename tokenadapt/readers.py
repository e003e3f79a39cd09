"""One file, stream or dataset to documents, in bounded memory, naming what cannot be read by file and line."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from tokenadapt.documents import CorpusCounts, CorpusOptions, Document
from tokenadapt.errors import MissingExtraError, RequestError
from tokenadapt.progress import Advance
from tokenadapt.rows import Fault, from_record, read_parquet

SUFFIXES: Final = {".txt": "text", ".jsonl": "jsonl", ".parquet": "parquet"}
PACKED: Final = (".gz", ".zst")
_BROKEN: Final = (EOFError, zlib.error, gzip.BadGzipFile)  # a truncated or damaged compressed file
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_LINE_START: Final = re.compile(rb"\n(?=[^\s])")


def unpacked_suffix(path: Path) -> str:
    """The suffix that tells the format, below `.gz` or `.zst`."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in PACKED else path.suffix.lower()


def stem(path: Path) -> str:
    """The file's name without its format and compression suffixes."""
    base = Path(path.stem) if path.suffix.lower() in PACKED else path
    return base.stem if base.suffix.lower() in SUFFIXES else base.name


def format_of(path: Path, options: CorpusOptions) -> str:
    """text, jsonl or parquet: what was said, else by the name."""
    return options.format if options.format != "auto" else SUFFIXES.get(unpacked_suffix(path), "text")


class _Watched(io.RawIOBase):
    """A raw file that tells how many bytes were read from it: progress of compressed input is in bytes on disk."""

    def __init__(self, raw: IO[bytes], advance: Advance) -> None:
        self.raw, self.advance = raw, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # any writable buffer
        data = self.raw.read(len(buffer))
        buffer[: len(data)] = data
        self.advance(len(data))
        return len(data)


@contextmanager
def open_bytes(path: Path | None, advance: Advance) -> Iterator[IO[bytes]]:
    """The uncompressed bytes of a file, or of standard input where `path` is None."""
    if path is None:
        yield sys.stdin.buffer
        return
    with path.open("rb", buffering=0) as raw:
        plain = io.BufferedReader(_Watched(cast("IO[bytes]", raw), advance), 1 << 16)
        if path.suffix.lower() == ".gz":
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=plain, mode="rb"))
        elif path.suffix.lower() == ".zst":
            yield cast("IO[bytes]", io.BufferedReader(_Zstd(cast("IO[bytes]", plain)), 1 << 16))
        else:
            yield cast("IO[bytes]", plain)


class _Zstd(io.RawIOBase):
    """Frames of zstandard one after another; unlike the library's own reader it notices a truncated one."""

    def __init__(self, plain: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise MissingExtraError("Reading .zst", "zstandard", "zstd") from None
        self.plain, self.error = plain, zstandard.ZstdError
        self.new_frame = zstandard.ZstdDecompressor().decompressobj
        self.frame: Any = None
        self.ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # any writable buffer
        while not self.ready and (data := self.plain.read(1 << 16)):
            self._feed(data)
        if not self.ready and self.frame is not None:
            raise EOFError("the last zstandard frame has no end")
        part, self.ready = self.ready[: len(buffer)], self.ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def _feed(self, data: bytes) -> None:
        try:
            while data:
                self.frame = self.frame or self.new_frame()
                self.ready += self.frame.decompress(data)
                data = self.frame.unused_data
                if self.frame.eof:
                    self.frame = None
        except self.error as error:
            raise EOFError(str(error)) from None


def read_file(
    path: Path | None, label: str, options: CorpusOptions, counts: CorpusCounts, advance: Advance
) -> Iterator[Document]:
    """All documents of one file (None: standard input); what cannot be read is failed on or counted."""
    name = "standard input" if path is None else str(path)
    counts.files += 1

    def fault(reason: str, message: str) -> None:
        counts.fault(options, reason, f"{name}{message}")

    kind = format_of(path or Path(), options)
    try:
        if kind == "parquet":
            if path is None or path.suffix.lower() in PACKED:
                raise RequestError(f"{name}: parquet needs an uncompressed file.", "Name the file itself.")
            yield from read_parquet(path, label, options, fault, advance)
            return
        with open_bytes(path, advance) as stream:
            blocks = _blocks(stream, options, kind, fault)
            yield from (_jsonl if kind == "jsonl" else _text)(blocks, (name, label), options, fault)
    except _BROKEN as error:
        fault("truncated", f" is truncated or damaged: {error}.")
    except OSError as error:
        fault("unreadable", f" cannot be read: {error.strerror or error}.")


def _blocks(stream: IO[bytes], options: CorpusOptions, kind: str, fault: Fault) -> Iterator[tuple[bytes, int]]:
    """Blocks of whole lines with the number of their first line; a longer line is cut between characters."""
    rest, line, first = b"", 1, True
    while True:
        data, broken = _read(stream, rest, options.block_bytes)
        if first and not data and broken is None:
            fault("empty", " is empty.")
            return
        if first and (b"\0" in data[:4096] or data[:2] in _UTF16) and options.encoding == "utf-8":
            what = "looks like UTF-16, not UTF-8" if data[:2] in _UTF16 else "is binary (it holds NUL bytes)"
            fault("binary", f" {what}.")
            return
        if first and data.startswith(b"\xef\xbb\xbf"):
            data = data[3:]
        first, ended = False, len(data) < options.block_bytes
        end = len(data) if ended or broken else _cut(data, options, kind)
        if end:
            yield data[:end], line
        line, rest = line + data.count(b"\n", 0, end), data[end:]
        if broken:
            fault("truncated", f", line {line}: the file is truncated or damaged ({broken}).")
        if broken or (ended and not rest):
            return


def _read(stream: IO[bytes], data: bytes, size: int) -> tuple[bytes, Exception | None]:
    """`data` filled up to `size` bytes; what came before a fault in the file is kept."""
    parts, have = [data], len(data)
    try:
        while have < size and (part := stream.read1(min(size - have, 1 << 16))):  # type: ignore[attr-defined]
            parts.append(part)
            have += len(part)
    except _BROKEN as error:
        return b"".join(parts), error
    return b"".join(parts), None


def _cut(data: bytes, options: CorpusOptions, kind: str) -> int:
    """Where a full block ends: at a blank line for paragraphs, before a line that begins with text, else a line."""
    if kind == "text" and options.documents == "paragraph" and (at := data.rfind(b"\n\n")) > 0:
        return at + 2
    if kind == "text" and options.documents == "file":
        tail = max(0, len(data) - (1 << 16))
        starts = [match.end() for match in _LINE_START.finditer(data, tail)]
        if starts:
            return starts[-1]
    if (at := data.rfind(b"\n")) >= 0:
        return at + 1
    if kind == "jsonl":
        return len(data)  # a row longer than a block: reported as a line that is no JSON
    end = len(data)
    while end > len(data) - 4 and data[end - 1] & 0xC0 == 0x80:  # never inside a UTF-8 character
        end -= 1
    return end - 1 if data[end - 1] >= 0xC0 else end


def _decoded(block: bytes, line: int, options: CorpusOptions, fault: Fault) -> Iterator[tuple[str, int]]:
    """The block as text; where a line is binary or not in the encoding, only that line is left out."""
    try:
        text = block.decode(options.encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" not in text:
        yield text, line
        return
    good: list[str] = []
    start = line
    for number, raw in enumerate(_lines(block), line):
        try:
            one = raw.decode(options.encoding)
            problem = ("binary", "holds a NUL byte") if "\0" in one else None
        except UnicodeDecodeError as error:
            problem = ("encoding", f"is not {options.encoding} at byte {error.start} ({error.reason})")
        if problem is None:
            good.append(one)
            continue
        fault(problem[0], f", line {number}: {problem[1]}.")
        if good:
            yield "".join(good), start
        good, start = [], number + 1
    if good:
        yield "".join(good), start


def _lines(block: bytes) -> list[bytes]:
    """Lines with their ends, cut after a line feed only: other line ends are text."""
    return re.findall(rb"[^\n]*\n|[^\n]+", block)


def _text(
    blocks: Iterator[tuple[bytes, int]], where: tuple[str, str], options: CorpusOptions, fault: Fault
) -> Iterator[Document]:
    name, label = where
    for block, first in blocks:
        for text, line in _decoded(block, first, options, fault):
            if options.documents == "file":
                yield Document(text, label, name, line)
                continue
            parts = re.split(r"(?<=\n)(?=[^\n])" if options.documents == "line" else r"(?<=\n\n)(?=[^\n])", text)
            for part in parts:
                if part.strip("\n"):
                    yield Document(part.rstrip("\r\n") if options.documents == "line" else part, label, name, line)
                line += part.count("\n")


def _jsonl(
    blocks: Iterator[tuple[bytes, int]], where: tuple[str, str], options: CorpusOptions, fault: Fault
) -> Iterator[Document]:
    name, label = where
    for block, first in blocks:
        for text, start in _decoded(block, first, options, fault):
            for line, row in enumerate(text.split("\n"), start):
                if not row.strip():
                    continue
                try:
                    record = json.loads(row)
                except json.JSONDecodeError as error:
                    fault("json", f", line {line}: no JSON ({error.msg} at character {error.pos}).")
                    continue
                document = from_record(record, (name, label, line), options, fault)
                if document is not None:
                    yield document
