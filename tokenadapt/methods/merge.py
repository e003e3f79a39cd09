"""Rows from the target tokenizer's own merge tree."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from tokenadapt.errors import RequestError
from tokenadapt.plan import Plan, Problem
from tokenadapt.vocab.types import ByteVocab, Ids


def merge(problem: Problem) -> Plan:
    """The mean of the two tokens that the target's merges make a token of, down to tokens with an old row.

    Where several merges make it, the mean over them. Tokens whose tree ends at one without an old row are left to the
    fallback (Yamaguchi et al., arXiv:2406.11477; their code takes the head's rows from the input table, this does not).
    """
    left, right, made = merges_of(problem.target)
    source = problem.alignment.source_id
    rows = problem.table.shape[0]
    leaf = (source >= 0) & (source < rows)
    fresh = ~leaf[made] & (problem.alignment.source_id[made] < 0)
    left, right, made = left[fresh], right[fresh], made[fresh]
    usable = _grounded(leaf, left, right, made)
    left, right, made = left[usable], right[usable], made[usable]
    V = len(source)
    share = 0.5 / np.bincount(made, minlength=V)[made]
    step = csr_array((np.tile(share, 2), (np.tile(made, 2), np.concatenate([left, right]))), shape=(V, V))
    ids = np.flatnonzero(leaf)
    own = csr_array((np.ones(len(ids)), (ids, source[ids])), shape=(V, rows))
    now = total = step @ own
    while now.nnz:
        now = step @ now
        total = total + now
    return _plan(total, problem.alignment.missing)


def merges_of(vocab: ByteVocab) -> tuple[Ids, Ids, Ids]:
    """Left, right and made token of every merge, in rank order."""
    if vocab.merges is None:
        raise RequestError(
            "The target tokenizer has no merges: it is no BPE.", "Choose pieces, or another method that needs none."
        )
    ids = {text: index for index, text in reversed(list(enumerate(vocab.text))) if text is not None}
    pairs = [(a, b, ids.get(f"{vocab.text[a]}{vocab.text[b]}", -1)) for a, b in vocab.merges.tolist()]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 3)
    table = table[table[:, 2] >= 0]
    return table[:, 0], table[:, 1], table[:, 2]


def _grounded(leaf: np.ndarray, left: Ids, right: Ids, made: Ids) -> np.ndarray:
    """Which merges join two tokens that both come down to tokens with a row."""
    known = leaf.copy()
    while True:
        usable = known[left] & known[right]
        before = int(known.sum())
        known[made[usable]] = True
        if int(known.sum()) == before:
            return np.asarray(usable)


def _plan(total: csr_array, missing: Ids) -> Plan:
    picked = csr_array(total)[missing]
    picked.sort_indices()
    start, ids = picked.indptr.astype(np.int64), picked.indices.astype(np.int64)
    return Plan(start, ids, picked.data.astype(np.float32))
