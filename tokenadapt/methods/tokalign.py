"""TokAlign: one old row, found by how both tokenizers' tokens stand to shared ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tokenadapt.methods.glove import GloveOptions, Together, cooccurrences, train
from tokenadapt.methods.nearest import nearest_unit
from tokenadapt.methods.normal import standard_normal, token_keys
from tokenadapt.methods.options import Count, Positive
from tokenadapt.methods.running import texts_of
from tokenadapt.plan import Plan, Problem
from tokenadapt.spaces.options import unit
from tokenadapt.vocab.types import ByteVocab, How, Ids


def tokalign(
    problem: Problem,
    *,
    dim: Count = 300,
    window: Count = 15,
    epochs: Count = 15,
    x_max: Positive = 10.0,
    min_count: Count = 5,
    pivots: Count = 300,
    texts: Count = 1_000_000,
) -> Plan:
    """The one old row whose token stands to the pivots as this token does (Li et al., arXiv:2506.03523).

    GloVe vectors of `dim` numbers are learnt on the first `texts` lines of the corpus under either tokenizer, `epochs`
    times over pairs of tokens at most `window` apart; rare pairs (below `x_max`) count less. A token's relative
    representation is its cosines with `pivots` copied tokens, drawn by the seed; the old token of the most similar one
    gives its row whole. A token seen fewer than `min_count` times is left to the fallback (published: a random old
    row).
    """
    options = GloveOptions(dim, window, epochs, x_max, min_count)
    new = _vectors(problem, problem.target, options, texts)
    old = _vectors(problem, problem.source, options, texts)[: problem.table.shape[0]]
    return match(problem, old, new, pivots)


def match(problem: Problem, old: NDArray[np.float32], new: NDArray[np.float32], pivots: int) -> Plan:
    """The nearest old token by relative representation; `old` (V_old, d) and `new` (V_new, e) are two spaces."""
    alignment = problem.alignment
    copied = np.flatnonzero(alignment.how == How.COPIED)
    both = new[copied].any(axis=1) & old[alignment.source_id[copied]].any(axis=1)
    copied = copied[both]
    chosen = copied[np.argsort(token_keys(problem.target, copied.tolist(), problem.seed), kind="stable")[:pivots]]
    here = unit(unit(new[alignment.missing]) @ unit(new[chosen]).T)
    there = unit(unit(old) @ unit(old[alignment.source_id[chosen]]).T)
    place, _ = nearest_unit(here, there, 1, progress=problem.progress)
    found = place[:, 0] >= 0
    start = np.concatenate([[0], np.cumsum(found)]).astype(np.int64)
    return Plan(start, place[found, 0], np.ones(int(found.sum()), np.float32))


def _vectors(problem: Problem, vocab: ByteVocab, options: GloveOptions, limit: int) -> NDArray[np.float32]:
    """GloVe vectors of one tokenizer's tokens; they depend on tokens, text and seed, not on ids."""

    def encoded() -> Iterator[Ids]:
        for batch in texts_of(problem, limit):
            for ids in vocab.encode(batch):
                yield np.array(ids, dtype=np.int64)

    counts = cooccurrences(encoded(), len(vocab), options)
    keys = token_keys(vocab, list(range(len(vocab))), problem.seed)
    noise = np.clip(standard_normal(keys, 2 * options.dim) / 4, -0.5, 0.5)
    return train(counts, noise, options, order=_order(counts, keys), seed=problem.seed, progress=problem.progress)


def _order(counts: Together, keys: NDArray[np.uint64]) -> Ids:
    """An order of pairs that their tokens alone decide."""
    return np.lexsort((keys[counts.column], keys[counts.row]))
