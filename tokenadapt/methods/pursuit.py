"""Batch orthogonal matching pursuit (Rubinstein, Zibulevsky and Elad 2008): Gram matrix, progressive Cholesky."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

GRAM_BYTES: Final = 2 << 30  # a larger Gram matrix is not held: correlations come from the residuals instead
GRAM_GAIN: Final = 12  # adding up a row of the Gram matrix costs about as much as 24 columns of a matrix product
BLOCK_BYTES: Final = 64 << 20  # correlations of one block of targets
NOTHING: Final = 1e-5  # correlation, in units of the target's norm, that counts as none
DEPENDENT: Final = 1e-6  # share of an atom outside the span of those chosen that counts as none


@dataclass(frozen=True)
class Sparse:
    """Atoms and coefficients of each target; unused places hold coefficient 0."""

    atom: Tensor  # (M, k) int64
    weight: Tensor  # (M, k) float32
    count: Tensor  # (M,) how many places are used


def pursue(
    atoms: Tensor,
    targets: Tensor,
    k: int,
    *,
    use_gram: bool | None = None,
    advance: Callable[[int], object] | None = None,
) -> Sparse:
    """At most `k` rows of `atoms` (A, d) and coefficients whose sum is nearest to each row of `targets` (M, d).

    Each step takes the atom with the largest product with what is left, then fits all that were taken anew. It ends
    where nothing correlates with the rest, or an atom adds no direction; never more atoms than the width.
    `use_gram` None: where the Gram matrix fits in memory and is the faster way on a CPU.
    """
    k = min(k, *atoms.shape)
    if use_gram is None:
        use_gram = atoms.shape[0] ** 2 * 4 <= GRAM_BYTES and k * GRAM_GAIN <= atoms.shape[1] and not atoms.is_cuda
    gram = atoms @ atoms.T if use_gram else None
    block = max(1, BLOCK_BYTES // (4 * max(1, atoms.shape[0])))
    parts = []
    for first in range(0, len(targets), block):
        part = targets[first : first + block]
        parts.append(_pursue(atoms, gram, part, k))
        if advance:
            advance(len(part))
    if not parts:
        parts = [_pursue(atoms, gram, targets, 0)]
    return Sparse(*(torch.cat([getattr(part, name) for part in parts]) for name in ("atom", "weight", "count")))


def _pursue(atoms: Tensor, gram: Tensor | None, x: Tensor, k: int) -> Sparse:
    """One block of targets; all of them step together, those that ended stand still."""
    B, device = len(x), x.device
    row = torch.arange(B, device=device)
    first = x @ atoms.T  # (B, A) products with the targets themselves
    now = first.clone()
    size = (atoms * atoms).sum(1)
    taken = torch.zeros(B, k, dtype=torch.long, device=device)
    factor = torch.eye(k, dtype=torch.float64, device=device).repeat(B, 1, 1)  # Cholesky factors, grown by rows
    half = torch.zeros(B, k, dtype=torch.float64, device=device)  # the factor's forward solution
    weight = torch.zeros(B, k, dtype=torch.float64, device=device)
    count = torch.zeros(B, dtype=torch.long, device=device)
    live = torch.ones(B, dtype=torch.bool, device=device)
    least = NOTHING * x.norm(dim=1)
    for n in range(k):
        best, chosen = now.abs_().max(dim=1)
        live &= best > least * size[chosen].sqrt()
        held = taken[:, :n]
        along = _products(atoms, gram, held, chosen).double()
        side = torch.linalg.solve_triangular(factor[:, :n, :n], along[:, :, None], upper=False)[:, :, 0]
        pivot = size[chosen].double() - (side * side).sum(1)
        live &= pivot > DEPENDENT * size[chosen]
        if not live.any():
            break
        taken[:, n] = chosen
        root = torch.where(live, pivot, 1.0).sqrt()
        factor[:, n, :n] = torch.where(live[:, None], side, 0.0)
        factor[:, n, n] = root
        rest = first[row, chosen].double() - (side * half[:, :n]).sum(1)
        half[:, n] = torch.where(live, rest / root, 0.0)
        upper = factor[:, : n + 1, : n + 1].mT
        weight[:, : n + 1] = torch.linalg.solve_triangular(upper, half[:, : n + 1, None], upper=True)[:, :, 0]
        count += live
        now = _correlations(atoms, gram, x, first, taken[:, : n + 1], weight[:, : n + 1])
        now[row[:, None], taken[:, : n + 1]] = 0
    return Sparse(taken, weight.float(), count)


def _products(atoms: Tensor, gram: Tensor | None, held: Tensor, chosen: Tensor) -> Tensor:
    """Products of each target's new atom with those that it holds: (B, n)."""
    if gram is not None:
        return gram[held, chosen[:, None]]
    return torch.einsum("bnd,bd->bn", atoms[held], atoms[chosen])


def _correlations(atoms: Tensor, gram: Tensor | None, x: Tensor, first: Tensor, held: Tensor, weight: Tensor) -> Tensor:
    """Products of all atoms with what is left of each target: (B, A)."""
    if gram is not None:
        return first - embedding_bag(held, gram, per_sample_weights=weight.float(), mode="sum")
    return (x - embedding_bag(held, atoms, per_sample_weights=weight.float(), mode="sum")) @ atoms.T
