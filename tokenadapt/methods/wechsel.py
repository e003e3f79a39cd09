"""WECHSEL: word vectors of two languages, turned onto each other by a dictionary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes

from tokenadapt.errors import RequestError
from tokenadapt.methods.by_vectors import nearest_rows
from tokenadapt.methods.options import Count, Positive
from tokenadapt.methods.words import Words, read_word_vectors, subword_vectors
from tokenadapt.plan import Plan, Problem
from tokenadapt.spaces.options import unit


def wechsel(
    problem: Problem,
    *,
    source: Path,
    target: Path,
    dictionary: Path | None = None,
    k: Count = 10,
    tau: Positive = 0.1,
    words: Count = 200_000,
) -> Plan:
    """softmax(cosine / `tau`) over the `k` nearest old tokens (Minixhofer et al., arXiv:2112.06598).

    `source` and `target` are word vectors of the two languages (.vec text, or fastText's .bin through gensim: pip
    install 'tokenadapt[gensim]'). `dictionary` holds a word and its translation a line; the source's vectors are
    turned onto the target's by orthogonal Procrustes over it; without one they count as aligned already. Tokens get
    vectors from n-grams (.bin) or from the words that hold them, weighted by frequency (in text files: 1 / rank).
    `words` is how many words of each file are read.
    """
    here, there = (read_word_vectors(path, words, progress=problem.progress) for path in (source, target))
    if here.vectors.shape[1] != there.vectors.shape[1]:
        raise RequestError(
            f"{source} has vectors of {here.vectors.shape[1]} numbers, {target} of {there.vectors.shape[1]}.",
            "Give two files of one width.",
        )
    old, new = (
        subword_vectors(vocab, read, progress=problem.progress)
        for vocab, read in ((problem.source, here), (problem.target, there))
    )
    if dictionary is not None:
        old = unit(old @ alignment_matrix(here, there, dictionary))
    return nearest_rows(problem, old, new, k, tau)


def alignment_matrix(here: Words, there: Words, dictionary: Path) -> NDArray[np.float64]:
    """The orthogonal map from the source's vectors to the target's: (d, d).

    Each pair counts in the spellings word, lower case and title case, as far as both files have them.
    """
    left, right = here.index, there.index
    pairs = []
    for first, second in read_pairs(dictionary):
        for a in (first, first.lower(), first.title()):
            pairs += [(left[a], right[b]) for b in (second, second.lower(), second.title()) if a in left and b in right]
    if not pairs:
        raise RequestError(
            f"No pair of {dictionary} has vectors in both files.", "Check its languages: source word first."
        )
    of, to = np.array(pairs).T
    turn, _ = orthogonal_procrustes(here.vectors[of].astype(np.float64), there.vectors[to].astype(np.float64))
    return np.asarray(turn)


def read_pairs(dictionary: Path) -> list[tuple[str, str]]:
    """Word pairs, one a line, parted by a tab or else by white space."""
    if not dictionary.is_file():
        raise RequestError(f"There is no dictionary {dictionary}.", "Give a text file with a pair of words a line.")
    pairs = []
    for line in dictionary.read_text(encoding="utf-8").splitlines():
        parts = line.strip().split("\t") if "\t" in line else line.split()
        if len(parts) == 2:
            pairs.append((parts[0].strip(), parts[1].strip()))
    return pairs
