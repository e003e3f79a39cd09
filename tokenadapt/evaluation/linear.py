"""Matrix products of float32 models on a CPU by oneDNN, which torch itself uses for half precision only.

The BLAS that torch takes instead reads badly where the other side is a large vocabulary: 128 rows against 49,152
tokens at 76 GFLOP/s, oneDNN at 99 (one core of a Zen 4). Results differ in the last bits, as between any two BLAS.
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _OneDnn(TorchFunctionMode):
    """Within this, `torch.nn.functional.linear` of float32 tensors is oneDNN's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear and not kwargs and args[0].dtype == torch.float32 == args[1].dtype:
            bias = args[2] if len(args) > 2 else None
            return _product(args[0], args[1], bias)
        return func(*args, **(kwargs or {}))


def _product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return made


@cache
def _usable() -> bool:
    """Whether this torch has the operation, and on the kind of processor on which it was measured."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    states, weight, bias = torch.randn(2, 3, 8), torch.randn(5, 8), torch.randn(5)
    try:
        with torch.inference_mode():
            return torch.allclose(_product(states, weight, bias), states @ weight.T + bias, atol=1e-5)
    except (AttributeError, RuntimeError, TypeError):
        return False


def fast_linear(device: torch.device) -> AbstractContextManager[object]:
    """A context for a forward pass without gradients on `device`; it changes nothing where it does not apply."""
    return _OneDnn() if device.type == "cpu" and _usable() else nullcontext()
