"""Constrained Word2Vec: rows inside the convex hull of the old ones, learnt by skip-gram."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tokenadapt.methods.normal import standard_normal, token_keys
from tokenadapt.methods.options import Count, Positive
from tokenadapt.methods.running import texts_of
from tokenadapt.methods.skipgram import Pairs, loss_of
from tokenadapt.plan import Plan, Problem
from tokenadapt.vocab.types import Ids

ROWS = 4096  # learnt tokens whose weights are read out at once


def cw2v(
    problem: Problem,
    *,
    rank: Count = 32,
    hull: Count = 4096,
    steps: Count = 1000,
    batch: Count = 256,
    window: Count = 5,
    negative: Count = 5,
    rate: Positive = 0.05,
    min_count: Count = 5,
    k: Count = 64,
    texts: Count = 100_000,
) -> Plan:
    """Softmax of logits of low `rank` over old rows, learnt by skip-gram (Mundra et al., arXiv:2407.05841).

    The corpus, its first `texts` lines, is cut by the target tokenizer; copied tokens keep their rows, missing ones
    move inside the convex hull of the `hull` old rows that are most frequent as pieces and copied tokens of the
    corpus. Skip-gram with `negative` samples sees rows about their mean, of mean length 1: `steps` steps of Adam at
    the learning rate `rate`, `batch` pairs of tokens at most `window` apart in each. The `k` largest weights stay.
    Tokens seen fewer than `min_count` times are left to the fallback.
    """
    stream = _read(problem, texts)
    counts = np.bincount(stream[stream >= 0], minlength=len(problem.target))
    alignment = problem.alignment
    learnt = np.flatnonzero(counts[alignment.missing] >= min_count)
    usable = counts >= min_count
    vertices = _vertices(problem, counts, hull)
    if not len(learnt) or not len(vertices):
        nothing = np.zeros(0, np.int64)
        return Plan(np.zeros(len(alignment.missing) + 1, np.int64), nothing, nothing.astype(np.float32))
    model = Hull(problem, learnt, vertices, rank)
    keys = token_keys(problem.target, list(range(len(problem.target))), problem.seed)
    known = np.where((stream >= 0) & usable[stream], stream, -1)
    pairs = Pairs(known, np.cumsum(stream < 0), np.argsort(keys, kind="stable"), counts * usable, window, negative)
    optimiser = torch.optim.Adam([model.left, model.right], lr=rate)
    generator = np.random.default_rng(problem.seed)
    with problem.progress.stage("skip-gram inside the hull", total=steps, unit="steps") as advance:
        for _ in range(steps):
            centre, context, noise = pairs.draw(generator, batch)
            loss = loss_of(model.rows, centre, context, noise)
            optimiser.zero_grad()
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            advance(1)
    return _plan(problem, model, k)


def _read(problem: Problem, limit: int) -> Ids:
    """The corpus as one stream of target ids, -1 between lines."""
    parts = [np.full(1, -1, np.int64)]
    for batch in texts_of(problem, limit):
        for ids in problem.target.encode(batch):
            parts += [np.array(ids, dtype=np.int64), parts[0]]
    return np.concatenate(parts)


def _vertices(problem: Problem, counts: Ids, hull: int) -> Ids:
    """The old ids that the corpus needs most: (at most `hull`,), ascending."""
    alignment, cut = problem.alignment, problem.segmentation
    V = problem.table.shape[0]
    need = np.zeros(V)
    copied = np.flatnonzero(alignment.source_id >= 0)
    np.add.at(need, alignment.source_id[copied], counts[copied])
    inside = cut.piece < V
    np.add.at(need, cut.piece[inside], np.repeat(counts[alignment.missing], cut.counts)[inside])
    order = np.lexsort((np.arange(V), -need))
    return np.sort(order[:hull][need[order[:hull]] > 0])


class Hull:
    """Rows of all target tokens: fixed where copied, weights over the vertices where learnt, nothing elsewhere."""

    def __init__(self, problem: Problem, learnt: Ids, vertices: Ids, rank: int) -> None:
        alignment = problem.alignment
        self.learnt, self.vertices = learnt, vertices
        rows = problem.table.rows(vertices).float()
        self.mean = rows.mean(0)
        self.scale = float((rows - self.mean).norm(dim=1).mean()) or 1.0
        self.corner = (rows - self.mean) / self.scale  # (H, D)
        self.copied = np.where(alignment.source_id >= 0, alignment.source_id, -1)
        self.table = problem.table
        self.slot = np.full(len(alignment.how), -1, dtype=np.int64)
        self.slot[alignment.missing[learnt]] = np.arange(len(learnt))
        missing = alignment.missing[learnt].tolist()
        left = standard_normal(token_keys(problem.target, missing, problem.seed), rank)
        right = standard_normal(token_keys(problem.source, vertices.tolist(), problem.seed + 1), rank)
        self.left = torch.from_numpy(left * 0.1).float().requires_grad_()
        self.right = torch.from_numpy(right * 0.1).float().requires_grad_()

    def weights(self, slots: Tensor) -> Tensor:
        """Weights over the vertices of learnt tokens: (n, H)."""
        return (self.left[slots] @ self.right.T).softmax(1)

    def rows(self, ids: Ids) -> Tensor:
        """Rows about the mean, scaled, of tokens that are copied or learnt: (n, D)."""
        distinct, where = np.unique(ids, return_inverse=True)
        out = torch.zeros(len(distinct), self.corner.shape[1])
        copied = self.copied[distinct] >= 0
        if copied.any():
            old = self.table.rows(self.copied[distinct[copied]]).float()
            out[torch.from_numpy(copied)] = (old - self.mean) / self.scale
        fresh = np.flatnonzero(self.slot[distinct] >= 0)
        if len(fresh):
            made = self.weights(torch.from_numpy(self.slot[distinct[fresh]])) @ self.corner
            out = out.index_copy(0, torch.from_numpy(fresh), made)
        return out[torch.from_numpy(where)]


def _plan(problem: Problem, model: Hull, k: int) -> Plan:
    """The k largest weights of each learnt token, brought to sum 1, ids ascending."""
    M = len(problem.alignment.missing)
    k = min(k, len(model.vertices))
    ids, weights = [], []
    with torch.no_grad():
        for first in range(0, len(model.learnt), ROWS):
            slots = torch.arange(first, min(first + ROWS, len(model.learnt)))
            top, place = model.weights(slots).topk(k, dim=1)
            place, order = place.sort(dim=1)
            top = top.gather(1, order)
            ids.append(model.vertices[place.numpy()])
            weights.append((top / top.sum(1, keepdim=True)).numpy())
    counts = np.zeros(M, np.int64)
    counts[model.learnt] = k
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Plan(start, np.concatenate(ids).reshape(-1), np.concatenate(weights).reshape(-1))
