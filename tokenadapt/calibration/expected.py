"""What a student expects to come next: sums of its probabilities over many positions, with each logit made once.

`Expected` answers how often each trained token would be expected under any biases, from one pass: large probabilities
are kept one by one, small ones by their sums over positions and over tokens. `slopes` sums states by probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from tokenadapt.calibration.head import blocks, wide
from tokenadapt.calibration.speaker import Speaker

_LARGE: Final = 1e-3  # a probability that is kept by itself
_TOGETHER: Final = 4  # blocks of positions whose products with states are made at once: the result is a whole table


@dataclass(frozen=True)
class Evidence:
    """Final states of the student, and the columns (in the head's compact order) of the tokens that came next."""

    states: Tensor  # (N, D) float32
    column: Tensor  # (N,)


@dataclass(frozen=True)
class Expected:
    """Expected counts of the trained tokens (M of them) over N positions, and what they are made of."""

    row: Tensor  # (K,) positions of large probabilities
    column: Tensor  # (K,) their tokens
    share: Tensor  # (K,) the probabilities
    rest: Tensor  # (M,) sums of the small ones over positions
    rest_mass: Tensor  # (N,) their sums over tokens
    fixed: Tensor  # (N,) probability of tokens that are not trained

    @classmethod
    def of(cls, student: Speaker, states: Tensor) -> Expected:
        """From one pass over the states (N, D)."""
        first, size = len(student.output.frozen), len(states)
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        rest = torch.zeros(student.output.rows - first, device=states.device)
        rest_mass, fixed = torch.zeros(size, device=states.device), torch.zeros(size, device=states.device)
        for part, raised, total in _raised(student, states):
            fixed[part] = raised[:, :first].sum(1) / total
            fresh = raised[:, first:]
            row, column = torch.nonzero(fresh > _LARGE * total[:, None], as_tuple=True)
            kept.append((row + part.start, column, fresh[row, column] / total[row]))
            fresh[row, column] = 0
            rest += (1 / total) @ fresh
            rest_mass[part] = fresh.sum(1) / total
        rows, columns, shares = (torch.cat(pieces) for pieces in zip(*kept, strict=True))
        return cls(rows, columns, shares, rest, rest_mass, fixed)

    def counts(self, bias: Tensor, along: Tensor) -> Tensor:
        """Expected counts (M,) once each token has a bias (M,), which counts `along` (N,) times at each position."""
        share = self.share * torch.exp(bias[self.column] * along[self.row])
        rest = self.rest * bias.exp()
        grown = rest.sum() / self.rest.sum().clamp(min=1e-30)
        total = (self.fixed + self.rest_mass * grown).index_add(0, self.row, share)
        shrunk = (self.rest_mass / total).sum() / self.rest_mass.sum().clamp(min=1e-30)
        return (rest * shrunk).index_add(0, self.column, share / total[self.row])


def slopes(student: Speaker, states: Tensor) -> tuple[Tensor, Tensor]:
    """Expected counts (M,) of the trained tokens, and the sums of states by their probabilities (M, D)."""
    table, first = student.output, len(student.output.frozen)
    counts, slope = torch.zeros(len(table.trained), device=states.device), torch.zeros_like(table.trained)
    held: list[tuple[Tensor, Tensor]] = []

    def flush() -> None:
        if held:
            shares, weighed = (torch.cat(parts) for parts in zip(*held, strict=True))
            slope.add_(shares.T @ weighed)
            held.clear()

    for part, raised, total in _raised(student, states):
        fresh = raised[:, first:]
        counts += (1 / total) @ fresh
        held.append((fresh.to(table.frozen.dtype), (states[part] / total[:, None]).to(table.frozen.dtype)))
        if len(held) == _TOGETHER:
            flush()
    flush()
    return counts, slope


def _raised(student: Speaker, states: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of positions: e to the logits less their largest (n, V) in compact order, and their sums (n,)."""
    head, dtype = student.head, student.output.frozen.dtype
    rows = student.output.trained.detach().to(dtype)
    for part in blocks(len(states), head.block):
        logits = wide(head.logits(states[part].to(dtype), rows))
        raised = logits.sub_(logits.amax(1, keepdim=True)).exp_()
        yield part, raised, raised.sum(1)
