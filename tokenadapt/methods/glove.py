"""GloVe (Pennington et al. 2014) over token ids: co-occurrence counts, then weighted least squares by AdaGrad."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab.types import Ids

Floats = NDArray[np.float64]
PAIRS = 1 << 22  # pairs kept before they are added up
BATCH = 1 << 14  # pairs of one step


@dataclass(frozen=True)
class GloveOptions:
    """The published settings of TokAlign."""

    dim: int = 300
    window: int = 15
    epochs: int = 15
    x_max: float = 10.0
    min_count: int = 5
    rate: float = 0.05
    power: float = 0.75


@dataclass(frozen=True)
class Together:
    """Co-occurrences: token `row[i]` stands near `column[i]` with the summed weight `value[i]`."""

    row: Ids
    column: Ids
    value: Floats


def cooccurrences(texts: Iterable[Ids], size: int, options: GloveOptions) -> Together:
    """Each pair at distance d <= window within a text counts 1 / d, both ways; rarer tokens are left out."""
    seen = np.zeros(size, np.int64)
    keys, values = np.zeros(0, np.int64), np.zeros(0)
    waiting: list[tuple[Ids, Floats]] = []
    held = 0
    for ids in texts:
        seen += np.bincount(ids, minlength=size)
        for distance in range(1, min(options.window, len(ids) - 1) + 1):
            one, other = ids[:-distance], ids[distance:]
            both = np.concatenate([one * size + other, other * size + one])
            waiting.append((both, np.full(len(both), 1 / distance)))
            held += 2 * len(one)
        if held > PAIRS:
            keys, values = _added(keys, values, waiting)
            waiting, held = [], 0
    keys, values = _added(keys, values, waiting)
    row, column = keys // size, keys % size
    often = (seen[row] >= options.min_count) & (seen[column] >= options.min_count)
    return Together(row[often], column[often], values[often])


def train(
    counts: Together, noise: Floats, options: GloveOptions, *, order: Ids, seed: int = 0, progress: Progress = SILENT
) -> NDArray[np.float32]:
    """One vector per token, word plus context vector, zero where a token has no pair: (V, dim).

    `noise` (V, 2 dim) in -0.5..0.5 starts the vectors; `order` is the order of pairs that the seeded shuffle starts
    from, so that ids play no part.
    """
    size, dim = len(noise), options.dim
    start = torch.from_numpy(noise).float() / dim
    word, context = _embedding(start[:, :dim]), _embedding(start[:, dim:])
    word_bias, context_bias = _embedding(torch.zeros(size, 1)), _embedding(torch.zeros(size, 1))
    tables = [word, context, word_bias, context_bias]
    optimiser = torch.optim.Adagrad(
        [table.weight for table in tables], lr=options.rate, initial_accumulator_value=1.0, eps=0.0
    )
    row, column = torch.from_numpy(counts.row[order]), torch.from_numpy(counts.column[order])
    value = torch.from_numpy(counts.value[order]).float()
    goal, trust = value.log(), (value / options.x_max).pow(options.power).clamp(max=1)
    generator = torch.Generator().manual_seed(seed)
    work = progress.stage("learn GloVe vectors", total=options.epochs * len(row), unit="pairs")
    unchecked = torch.sparse.check_sparse_tensor_invariants(enable=False)  # type: ignore[no-untyped-call]
    with work as advance, unchecked:
        for _ in range(options.epochs):
            shuffled = torch.randperm(len(row), generator=generator)
            for first in range(0, len(row), BATCH):
                part = shuffled[first : first + BATCH]
                i, j = row[part], column[part]
                guess = (word(i) * context(j)).sum(1) + word_bias(i)[:, 0] + context_bias(j)[:, 0]
                loss = 0.5 * (trust[part] * (guess - goal[part]) ** 2).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                advance(len(part))
    out = (word.weight + context.weight).detach().numpy()
    used = np.zeros(size, dtype=bool)
    used[counts.row] = True
    return np.where(used[:, None], out, 0).astype(np.float32)


def _embedding(values: torch.Tensor) -> torch.nn.Embedding:
    """Rows to be learnt, with gradients only where a row was read."""
    rows, width = values.shape
    return torch.nn.Embedding(rows, width, sparse=True, _weight=values.clone())


def _added(keys: Ids, values: Floats, more: list[tuple[Ids, Floats]]) -> tuple[Ids, Floats]:
    """Sums of values by key, keys ascending."""
    joined = np.concatenate([keys, *(part for part, _ in more)])
    unique, where = np.unique(joined, return_inverse=True)
    total = np.bincount(where, weights=np.concatenate([values, *(part for _, part in more)]), minlength=len(unique))
    return unique, total.astype(np.float64)
