"""Word vectors from files, and vectors of subword tokens made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokenadapt.errors import MissingExtraError, RequestError
from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.options import unit
from tokenadapt.spaces.wordvectors import first_width, read_words
from tokenadapt.vocab.types import ByteVocab

Matrix = NDArray[np.float32]
BATCH = 8192  # words cut at once


@dataclass(frozen=True)
class Words:
    """Words in the order of the file, most frequent first, with their vectors and weights."""

    words: list[str]
    vectors: Matrix  # (n, d)
    weight: NDArray[np.float64]  # (n,) frequency, or 1 / rank where the file does not say
    spell: Callable[[str], Matrix] | None = None  # the vector of any string, from its n-grams

    @property
    def index(self) -> dict[str, int]:
        """Word -> place."""
        return {word: place for place, word in reversed(list(enumerate(self.words)))}


def read_word_vectors(path: Path, limit: int, *, progress: Progress = SILENT) -> Words:
    """The first `limit` words of a text file of vectors, plain or gzipped, or of fastText's .bin (through gensim)."""
    if not path.is_file():
        raise RequestError(f"There is no file of word vectors {path}.", "Give a .vec, .txt, .gz or fastText .bin file.")
    with progress.stage(f"read {path.name}"):
        if path.suffix == ".bin":
            return _fasttext(path, limit)
        found = read_words(path, first_width(path), None, limit)
    words = list(found)
    rank = np.arange(1, len(words) + 1)
    return Words(words, np.stack([found[word] for word in words]), 1.0 / rank)


def _fasttext(path: Path, limit: int) -> Words:
    try:
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError:
        raise MissingExtraError("Reading fastText's .bin", "gensim", "gensim") from None
    learnt = load_facebook_vectors(str(path))
    words = list(learnt.index_to_key[:limit])
    counts = np.array([learnt.get_vecattr(word, "count") for word in words], dtype=np.float64)
    return Words(words, learnt.vectors[: len(words)].astype(np.float32), counts, learnt.get_vector)


def subword_vectors(
    vocab: ByteVocab, words: Words, *, by_frequency: bool = True, progress: Progress = SILENT
) -> Matrix:
    """A unit vector for each token, zero where none can be made: (V, d).

    From the n-grams of the token's own text where the file has them; else the mean of the words that the tokenizer
    cuts into this token and others, with and without a space before them, weighted by frequency.
    """
    if words.spell is not None:
        return _from_ngrams(vocab, words)
    rows: list[int] = []
    columns: list[int] = []
    with progress.stage("cut words into tokens", total=len(words.words), unit="words") as advance:
        for first in range(0, len(words.words), BATCH):
            part = words.words[first : first + BATCH]
            for before in ("", " "):
                for place, ids in enumerate(vocab.encode([before + word for word in part]), first):
                    distinct = sorted(set(ids))
                    rows += distinct
                    columns += [place] * len(distinct)
            advance(len(part))
    if not rows:
        return np.zeros((len(vocab), words.vectors.shape[1]), np.float32)
    weight = words.weight[columns] if by_frequency else np.ones(len(rows))
    share = weight / np.bincount(rows, weights=weight, minlength=len(vocab))[rows]
    matrix = csr_array((share, (rows, columns)), shape=(len(vocab), len(words.words)))
    return unit(matrix @ words.vectors.astype(np.float64))


def _from_ngrams(vocab: ByteVocab, words: Words) -> Matrix:
    out = np.zeros((len(vocab), words.vectors.shape[1]), np.float32)
    for index, data in enumerate(vocab.token_bytes):
        try:
            text = (data or b"").decode().strip()
            if text and words.spell is not None:
                out[index] = words.spell(text)
        except (UnicodeDecodeError, KeyError):  # no text, or no n-gram of it is known
            continue
    return unit(out)
