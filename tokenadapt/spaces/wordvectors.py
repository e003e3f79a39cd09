"""Word vectors in text form (word2vec, GloVe, fastText's .vec), plain or gzipped: one word and its numbers a line."""

from __future__ import annotations

import gzip
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.spaces.options import Matrix, unit


class WordVectors:
    """A string is its word's vector, else the lower-case word's, else the mean of its words' vectors.

    Only words that are asked for are kept: a file of two million words is read once, at `prefetch`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.width = first_width(path)
        self.found: dict[str, Matrix] = {}
        self.asked: set[str] = set()

    def prefetch(self, texts: Sequence[str]) -> None:
        """Read the vectors of all words in `texts` that were not asked for before."""
        wanted = {form for text in texts for word in (text, *text.split()) for form in (word, word.lower())}
        fresh = wanted - self.asked
        if fresh:
            self.asked |= fresh
            self.found.update(read_words(self.path, self.width, fresh))

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Unit vectors; a string of unknown words has none."""
        self.prefetch(texts)
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            whole = self._word(text)
            known = [whole] if whole is not None else [v for v in map(self._word, text.split()) if v is not None]
            if known:
                out[row] = np.mean(known, axis=0)
        return unit(out)

    def _word(self, word: str) -> Matrix | None:
        exact = self.found.get(word)
        return exact if exact is not None else self.found.get(word.lower())


def _lines(path: Path) -> Iterator[list[str]]:
    """Lines as fields. Words may hold white space of their own kinds: only the space parts fields."""
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            for line in io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="\n"):
                yield line.rstrip(" \r\n").split(" ")
    except (OSError, EOFError) as error:
        raise TokenAdaptError(f"{path} cannot be read to its end ({error}).", "Fetch it again.") from error


def _is_count(fields: list[str]) -> bool:
    """Whether a first line is word2vec's head: number of words, width."""
    return len(fields) == 2 and all(field.isdecimal() for field in fields)


def first_width(path: Path) -> int:
    """d, from the first line; RequestError where it is no line of word vectors."""
    fields = next(_lines(path), [])
    if _is_count(fields):
        return int(fields[1])
    try:
        [float(field) for field in fields[1:]]
    except ValueError:
        fields = []
    if len(fields) < 2:
        raise RequestError(
            f"{path} holds no word vectors as text.",
            "Give a folder with a safetensors table and tokenizer.json, or a .vec/.txt file (or .gz): a word and its "
            "numbers a line. Binary word2vec and fastText .bin files must be converted first.",
        )
    return len(fields) - 1


def read_words(
    path: Path, width: int, wanted: Collection[str] | None = None, limit: int | None = None
) -> dict[str, Matrix]:
    """The vectors of the words that are wanted (None: all), at most `limit`, in the file's order.

    The first of two lines with one word counts.
    """
    found: dict[str, Matrix] = {}
    for number, fields in enumerate(_lines(path)):
        if number == 0 and _is_count(fields):
            continue
        word = " ".join(fields[:-width])
        if (wanted is not None and word not in wanted) or word in found:
            continue
        if limit is not None and len(found) >= limit:
            break
        try:
            row = np.array(fields[-width:], dtype=np.float32)
        except ValueError:
            row = np.zeros(0, dtype=np.float32)
        if len(row) != width or not np.isfinite(row).all():
            raise TokenAdaptError(
                f"{path}, line {number + 1}: no {width} finite numbers after the word.", "Fetch it again."
            )
        found[word] = row
    return found
