"""Sparsemax (Martins and Astudillo 2016): the nearest point of the simplex, most weights exactly zero."""

from __future__ import annotations

import torch
from torch import Tensor


def sparsemax(scores: Tensor, first: int = 256) -> tuple[Tensor, Tensor]:
    """Places and weights of the largest scores of each row: (n, s), (n, s); weights sum to 1, trailing ones are 0.

    Sorting a whole row is avoided: the `first` largest are enough where fewer than that get weight; else twice as
    many are taken.
    """
    width = scores.shape[1]
    size = min(first, width)
    while True:
        top, place = scores.topk(size, dim=1)
        total = top.cumsum(1) - 1
        rank = torch.arange(1, size + 1, device=scores.device)
        support = (top * rank > total).sum(1, keepdim=True)  # (n, 1)
        if size == width or int(support.max()) < size:
            threshold = total.gather(1, support - 1) / support
            return place, (top - threshold).clamp(min=0)
        size = min(2 * size, width)
