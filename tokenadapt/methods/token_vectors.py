"""Vectors of target tokens learnt from the corpus: fastText and skip-gram through gensim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenadapt.errors import MissingExtraError
from tokenadapt.methods.running import texts_of
from tokenadapt.plan import Problem


@dataclass(frozen=True)
class Training:
    """How token vectors are learnt."""

    dim: int
    epochs: int
    min_count: int
    texts: int
    negative: int = 10
    window: int = 5


class TokenTexts:
    """The corpus as lists of token names, read anew at each pass; names are unique spellings of ids."""

    def __init__(self, problem: Problem, limit: int) -> None:
        self.problem, self.limit = problem, limit
        self.names = names_of(problem)

    def __iter__(self) -> Iterator[list[str]]:
        """One list a text."""
        for batch in texts_of(self.problem, self.limit):
            for ids in self.problem.target.encode(batch):
                yield [self.names[index] for index in ids]


def names_of(problem: Problem) -> list[str]:
    """A name for each target id: its spelling; with its id where another id has the same."""
    seen: set[str] = set()
    names = []
    for index, text in enumerate(problem.target.text):
        name = text if text and text not in seen else f"{text or ''}#{index}"
        seen.add(name)
        names.append(name)
    return names


def fasttext_vectors(problem: Problem, training: Training) -> NDArray[np.float32]:
    """One vector per target id, zero where a token is rarer than `min_count`: (V_new, dim). CBOW, as FOCUS has it."""
    try:
        from gensim.models import FastText
    except ImportError:
        raise MissingExtraError("Training fastText vectors", "gensim", "gensim") from None
    texts = TokenTexts(problem, training.texts)
    model = FastText(
        vector_size=training.dim,
        window=training.window,
        min_count=training.min_count,
        negative=training.negative,
        sg=0,
        seed=problem.seed,
        workers=1,  # more would make the vectors depend on the order in which threads run
        bucket=min(2_000_000, 8 * len(problem.target) + 1000),
    )
    model.build_vocab(texts)
    if len(model.wv):
        model.train(texts, total_examples=model.corpus_count, epochs=training.epochs)
    return _by_id(model.wv, texts.names, training.dim)


def _by_id(learnt: Any, names: list[str], dim: int) -> NDArray[np.float32]:
    out = np.zeros((len(names), dim), dtype=np.float32)
    for index, name in enumerate(names):
        if name in learnt.key_to_index:
            out[index] = learnt.vectors[learnt.key_to_index[name]]
    return out
