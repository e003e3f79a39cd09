"""Skip-gram with negative sampling (Mikolov et al. 2013) over a stream of token ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenadapt.vocab.types import Ids


@dataclass(frozen=True)
class Pairs:
    """Draws of a token, a neighbour in the same text, and tokens by frequency to the power 0.75."""

    stream: Ids  # ids, -1 where there is nothing to learn from
    text: Ids  # the number of the text that each place belongs to
    order: Ids  # (V,) all ids in an order that does not depend on how they are numbered
    counts: Ids  # (V,) how often each may be drawn
    window: int
    negative: int

    @cached_property
    def edge(self) -> NDArray[np.float64]:
        """Running sums of the noise weights, in the order of `order`."""
        return np.cumsum(self.counts[self.order].astype(np.float64) ** 0.75)

    def draw(self, generator: np.random.Generator, size: int) -> tuple[Ids, Ids, Ids]:
        """Centres (n,), contexts (n,), noise (n, negative); n is at most `size`: pairs that miss are dropped."""
        place = generator.integers(0, len(self.stream), size)
        other = place + generator.integers(1, self.window + 1, size) * generator.choice((-1, 1), size)
        noise = np.searchsorted(self.edge, generator.random((size, self.negative)) * self.edge[-1], side="right")
        inside = (other >= 0) & (other < len(self.stream))
        other = np.where(inside, other, 0)
        inside &= self.text[place] == self.text[other]
        fine = inside & (self.stream[place] >= 0) & (self.stream[other] >= 0)
        return self.stream[place[fine]], self.stream[other[fine]], self.order[noise[fine].clip(max=len(self.order) - 1)]


def loss_of(rows: Callable[[Ids], Tensor], centre: Ids, context: Ids, noise: Ids) -> Tensor:
    """Negative log-likelihood, mean over pairs; `rows` gives the vectors of ids."""
    if not len(centre):
        return torch.zeros(())
    here, there = rows(centre), rows(context)
    false = rows(noise.reshape(-1)).view(*noise.shape, -1)
    true = torch.nn.functional.logsigmoid((here * there).sum(1))
    wrong = torch.nn.functional.logsigmoid(-torch.einsum("nd,nkd->nk", here, false)).sum(1)
    return -(true + wrong).mean()
