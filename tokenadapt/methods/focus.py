"""FOCUS: the few copied tokens that are used alike."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.methods.options import Count
from tokenadapt.methods.sparsemax import sparsemax
from tokenadapt.methods.token_vectors import Training, fasttext_vectors
from tokenadapt.plan import Plan, Problem
from tokenadapt.spaces.options import unit
from tokenadapt.vocab.types import How, Ids

BLOCK = 1024  # missing tokens whose similarities to all copied ones are held at once


def focus(
    problem: Problem, *, dim: Count = 100, epochs: Count = 3, min_count: Count = 10, texts: Count = 1_000_000
) -> Plan:
    """Copied rows weighted by the sparsemax of cosines between fastText vectors (Dobler and de Melo, arXiv:2305.14481).

    The vectors are learnt on the corpus as the target tokenizer cuts it (CBOW, 10 negative samples; pip install
    'tokenadapt[gensim]'): `dim` numbers each, `epochs` times over the first `texts` lines. Tokens seen fewer than
    `min_count` times have none and are left to the fallback (published: a draw from a normal distribution with
    diagonal covariance, `normal:covariance=diagonal`). Similarities are computed in blocks.
    """
    vectors = fasttext_vectors(problem, Training(dim, epochs, min_count, texts))
    copied = np.flatnonzero(problem.alignment.how == How.COPIED)
    copied = copied[vectors[copied].any(axis=1)]
    return weigh(problem, vectors[problem.alignment.missing], vectors[copied], problem.alignment.source_id[copied])


def weigh(problem: Problem, new: NDArray[np.float32], anchors: NDArray[np.float32], source: Ids) -> Plan:
    """Sparsemax of the cosines of new vectors (M, d) to anchors (A, d), whose old ids are `source` (A,)."""
    here, there = torch.from_numpy(unit(new)), torch.from_numpy(unit(anchors))
    live = here.any(dim=1).numpy() & bool(len(there))
    counts = np.zeros(len(new), np.int64)
    ids: list[Ids] = [np.zeros(0, np.int64)]
    weights: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
    known = np.flatnonzero(live)
    with problem.progress.stage("weigh copied tokens", total=len(known), unit="tokens") as advance:
        for first in range(0, len(known), BLOCK):
            part = known[first : first + BLOCK]
            place, weight = sparsemax(here[torch.from_numpy(part)] @ there.T)
            used = weight > 0
            counts[part] = used.sum(1).numpy()
            ids.append(source[place[used].numpy()])
            weights.append(weight[used].numpy())
            advance(len(part))
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Plan(start, np.concatenate(ids), np.concatenate(weights))
