"""From final states to log-probabilities, in blocks of positions: the logits of a batch never exist at once.

The gradient is exact. In the backward pass each block's logits are made again from the states and the saved
normalisers, and only trained rows get a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenadapt.calibration.split import SplitTable

HEAD_BYTES = 96 << 20  # largest block of float32 logits


@dataclass(frozen=True)
class Shape:
    """What the model does to raw products before they are its logits."""

    scale: float = 1.0
    cap: float | None = None


class SplitHead:
    """The head over a split table: logits in the table's compact order."""

    def __init__(self, table: SplitTable, shape: Shape, block: int | None = None) -> None:
        self.table, self.shape = table, shape
        self.block = block or max(1, HEAD_BYTES // (4 * table.rows))

    def logits(self, states: Tensor, rows: Tensor | None = None) -> Tensor:
        """Float32 logits (n, V) in compact order; differentiable, for small blocks of positions.

        `rows` are the trained rows in the type of the states, for who asks for many blocks.
        """
        table = self.table
        rows = table.trained.to(states.dtype) if rows is None else rows
        return _block(states, table.frozen, rows, table.bias, self.shape)

    def log_probs(self, states: Tensor, ids: Tensor) -> Tensor:
        """Natural-log probability of one token id per state: (n,)."""
        if not len(states):
            return wide(states).sum(-1)
        table = self.table
        found: Tensor = _LogProb.apply(  # type: ignore[no-untyped-call]
            states, table.trained, table.frozen, table.bias, table.place[ids], self.shape, self.block
        )
        return found

    def pulled(self, logits: Tensor, flow: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of states (n, D) and of trained rows (M, D) from that of logits (n, V), which is used up."""
        table = self.table
        slope = _slope(logits, self.shape)
        return _pull(slope, flow, states, table.frozen, table.trained.to(states.dtype), self.shape)


def wide(values: Tensor) -> Tensor:
    """At least float32."""
    return values if values.dtype == torch.float64 else values.float()


def bent(raw: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    """Raw products to logits: bias, scale, soft cap."""
    logits = raw if bias is None else raw + bias
    logits = logits if shape.scale == 1 else logits * shape.scale
    return shape.cap * torch.tanh(logits / shape.cap) if shape.cap else logits


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices that cover `count`."""
    for low in range(0, count, size):
        yield slice(low, min(low + size, count))


class _LogProb(torch.autograd.Function):
    """Log-probability of given columns under a softmax over frozen and trained rows."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        trained: Tensor,
        frozen: Tensor,
        bias: Tensor | None,
        target: Tensor,
        shape: Shape,
        block: int,
    ) -> Tensor:
        rows = trained.to(states.dtype)
        total = torch.empty(len(states), device=states.device, dtype=wide(states[:0]).dtype)
        picked = torch.empty_like(total)
        for part in blocks(len(states), block):
            logits = _block(states[part], frozen, rows, bias, shape)
            total[part] = logits.logsumexp(1)
            picked[part] = logits.gather(1, target[part, None])[:, 0]
        ctx.save_for_backward(states, trained, frozen, bias, target, total)
        ctx.shape, ctx.block = shape, block
        return picked - total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, trained, frozen, bias, target, total = ctx.saved_tensors
        rows = trained.to(states.dtype)
        to_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        to_rows = torch.zeros_like(trained) if ctx.needs_input_grad[1] else None
        for part in blocks(len(states), ctx.block):
            logits = _block(states[part], frozen, rows, bias, ctx.shape)
            slope = _slope(logits, ctx.shape)
            up = wide(grad[part])
            flow = logits.sub_(total[part, None]).exp_().mul_(-up[:, None])
            flow[torch.arange(len(up), device=up.device), target[part]] += up
            found = _pull(slope, flow, states[part], frozen, rows, ctx.shape)
            if to_states is not None:
                to_states[part] = found[0]
            if to_rows is not None:
                to_rows += found[1]
        return to_states, to_rows, None, None, None, None, None


def _block(states: Tensor, frozen: Tensor, rows: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    parts = [states @ part.T for part in (frozen, rows) if len(part)]
    return bent(wide(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]), bias, shape)


def _pull(
    slope: Tensor | None, flow: Tensor, states: Tensor, frozen: Tensor, rows: Tensor, shape: Shape
) -> tuple[Tensor, Tensor]:
    """From the gradient of logits (n, V), which is used up, to those of states (n, D) and trained rows (M, D)."""
    count = len(frozen)
    flow = flow if slope is None else flow.mul_(slope)
    flow = (flow if shape.scale == 1 else flow.mul_(shape.scale)).to(states.dtype)
    to_states = flow[:, count:] @ rows
    if count:
        to_states += flow[:, :count] @ frozen
    return to_states, flow[:, count:].T @ states


def _slope(logits: Tensor, shape: Shape) -> Tensor | None:
    """Derivative of the soft cap where there is one."""
    return 1 - (logits / shape.cap) ** 2 if shape.cap else None
