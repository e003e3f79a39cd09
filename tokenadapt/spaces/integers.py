"""Exact search by 8-bit integers: their products choose a few rows, a proven bound says that no other can matter.

Processors multiply 8-bit integers several times as fast as float32 (VNNI on x86). With p^ and q^ the vectors that the
integers stand for, Cauchy and Schwarz give |<q, p> - <q^, p^>| <= |q^| |p - p^| + |q - q^| |p|. Products of integers
are exact, so the best rows by them do not depend on threads or order; a query is answered when its k-th best exact
product is above what any other row can reach, and is left to another search when it is not.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.spaces.options import Matrix
from tokenadapt.vocab.types import Ids

LEVELS: Final = 127
GROUP: Final = 32  # neighbouring rows that are first compared by their best product alone
SCORES: Final = 1 << 24  # products held at once, in 4 bytes each
READ: Final = 8192  # rows rounded at once
LEAST_WORK: Final = 1 << 26  # products below which the choice of a search does not matter
SLACK: Final = 1e-5  # relative: float32 rounding of the bound itself and of lengths that are one but for rounding
WORTH: Final = 0.6  # of the time of a float32 product, at most


@dataclass(frozen=True)
class Shortlist:
    """Rows that may be among the k best of each query, and what no other row can exceed."""

    rows: Ids  # (n, fetch), -1 for none
    bound: NDArray[np.float64]  # (n,)


class IntegerSearch:
    """Unit vectors, rounded to 8 bits with one scale for all."""

    def __init__(self, ids: Ids, source: Callable[[Ids], Matrix]) -> None:
        self.count, width = len(ids), max(2, source(ids[:1]).shape[1])  # torch's product is wrong for one column
        blocks = [ids[at : at + READ] for at in range(0, self.count, READ)]
        self.scale = max(float(np.abs(source(block)).max()) for block in blocks) / LEVELS or 1.0
        self.whole = torch.zeros(-(-self.count // GROUP) * GROUP, width, dtype=torch.int8)
        self.residual = self.length = 0.0
        for at, block in zip(range(0, self.count, READ), blocks, strict=True):
            rows = torch.from_numpy(source(block))
            whole = (rows / self.scale).round_()
            self.residual = max(self.residual, float((rows - whole * self.scale).norm(dim=1).max()))
            self.length = max(self.length, float(rows.norm(dim=1).max()))
            self.whole[at : at + len(block), : rows.shape[1]] = whole.to(torch.int8)
        self.step = min(max(SCORES // len(self.whole), 16), 1024)  # queries at once
        self._scores = torch.empty(self.step, len(self.whole), dtype=torch.int32)

    @torch.inference_mode()
    def top(self, queries: Matrix, k: int, fetch: int) -> Shortlist:
        """At most `fetch` rows for each query, (n, d): those that can be among its k best by the exact product."""
        parts = [
            self._top(torch.from_numpy(queries[at : at + self.step]), k, fetch)
            for at in range(0, len(queries), self.step)
        ]
        return Shortlist(np.concatenate([part.rows for part in parts]), np.concatenate([part.bound for part in parts]))

    def _top(self, asked: torch.Tensor, k: int, fetch: int) -> Shortlist:
        scale = asked.abs().amax(1, keepdim=True) / LEVELS
        scale[scale == 0] = 1
        whole = (asked / scale).round_()
        near = whole * scale
        error = near.norm(dim=1) * self.residual + (asked - near).norm(dim=1) * self.length
        spare = self.whole.shape[1] - whole.shape[1]
        value, row = self._best(torch.nn.functional.pad(whole.to(torch.int8), (0, spare)), fetch)
        unit = scale[:, 0].double() * self.scale
        error = error.double() * (1 + SLACK) + SLACK
        score = value.double() * unit[:, None]
        row[(score + error[:, None] < score[:, min(k, fetch) - 1, None] - error[:, None]) | (row >= self.count)] = -1
        bound = score[:, -1] + error if fetch < self.count else torch.full_like(error, -torch.inf)
        return Shortlist(row.numpy(), bound.numpy())

    def _best(self, whole: torch.Tensor, fetch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest integer products, descending, and their rows: (n, fetch).

        A row among the best `fetch` lies in one of the `fetch` groups with the largest maxima.
        """
        scores = torch._int_mm(whole, self.whole.T, out=self._scores[: len(whole)])
        scores[:, self.count :] = torch.iinfo(torch.int32).min
        grouped = scores.view(len(whole), -1, GROUP)
        group = grouped.amax(2).topk(min(fetch, grouped.shape[1]), dim=1, sorted=False).indices
        inside = grouped.gather(1, group[:, :, None].expand(-1, -1, GROUP)).view(len(whole), -1)
        value, at = inside.topk(min(fetch, inside.shape[1]), dim=1)
        return value, group.gather(1, at // GROUP) * GROUP + at % GROUP


@functools.cache
def integers_are_exact() -> bool:
    """Whether torch multiplies 8-bit integers here, and without loss: tried out, once.

    Processors without the right instructions add pairs of products in 16 bits, which overflow.
    """
    drawn = np.random.default_rng(0)
    left, right = (drawn.choice([-LEVELS, LEVELS], (rows, 256)).astype(np.int8) for rows in (64, 128))
    left[0], right[0] = LEVELS, LEVELS
    try:
        made = torch._int_mm(torch.from_numpy(left), torch.from_numpy(right).T)
    except (AttributeError, RuntimeError):
        return False
    return np.array_equal(made.numpy(), left.astype(np.int64) @ right.astype(np.int64).T)


@functools.cache
def integers_pay(width: int) -> bool:
    """Whether 8-bit integers are exact on this processor and much faster than float32: tried out, once."""
    if not integers_are_exact():
        return False
    left, right = torch.ones(256, width, dtype=torch.int8), torch.ones(8192, width, dtype=torch.int8)
    whole = torch.empty(256, 8192, dtype=torch.int32)
    real, a, b = torch.empty(256, 8192), left.float(), right.float()
    fast = _seconds(lambda: torch._int_mm(left, right.T, out=whole))
    return fast < WORTH * _seconds(lambda: torch.mm(a, b.T, out=real))


def _seconds(work: Callable[[], object]) -> float:
    """The least of three."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)
