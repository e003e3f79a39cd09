"""A model's log-probabilities of given tokens, without ever holding the logits of a whole batch.

The model's layers run once; then its own forward runs again on blocks of their final states, with the layers put
aside, so that whatever it does after them (bias, scale, soft cap, a masked model's transform) happens as written.
A model for which that does not give its logits (checked once on a few tokens) is run whole instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.evaluation.batches import Batch, Budget
from tokenadapt.evaluation.linear import fast_linear
from tokenadapt.evaluation.trial import longest_packed, reads_packed

_NATS_TO_BITS: Final = 1 / math.log(2)
# On a CPU, then on an accelerator. Blocks below 32 MiB are kept by malloc from one use to the next; larger ones are
# given back to the system and paid for page by page each time.
_HEAD_BYTES: Final = (24 << 20, 512 << 20)
_BATCH_TOKENS: Final = (1024, 32768)
_PADDING: Final = (24, 4096)  # reading the weights once more costs as much (CPU: measured on a model of 135M)
_ROW: Final = 192  # tokens of a row of packed windows: each costs attention, and a longer row shares and fills more
_OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory")


class Scorer:
    """Bits of given tokens under one loaded model; `head_bytes` bounds a block of its logits in float32."""

    def __init__(self, model: nn.Module, *, head_bytes: int | None = None, masked: bool = False) -> None:
        self.model, self.masked = model.eval(), masked
        self.device = next(model.parameters()).device
        self.body = _body(model)
        self.vocab = self._check()  # columns of the logits
        self.block = max(1, (head_bytes or self._held(_HEAD_BYTES)) // (4 * self.vocab))

    def budget(self, batch_tokens: int | None, shortest: int = 0) -> Budget:
        """How much to read at a time, where the shortest window that is read has so many tokens."""
        tokens = batch_tokens or self._held(_BATCH_TOKENS)
        row = self.row if shortest < min(tokens, _ROW) else 0  # not tried where nothing can be packed
        return Budget(tokens, self._held(_PADDING), min(row, tokens))

    @cached_property
    def row(self) -> int:
        """Tokens of a row of packed windows; 0 for a model that cannot read such."""
        if self.masked or not reads_packed(self):
            return 0
        return min(_ROW, longest_packed(getattr(self.model, "config", None)))

    def _held(self, sizes: tuple[int, int]) -> int:
        return sizes[self.device.type != "cpu"]

    def bits(self, batch: Batch, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Negative log2-probability of each of `targets`, the tokens that the batch's rows predict: (n,)."""
        if not len(targets):
            return np.zeros(0)
        highest = max(int(targets.max()), int(batch.ids.max()))
        if highest >= self.vocab:
            raise RequestError(
                f"The tokenizer gives id {highest}, but the model has only {self.vocab} rows.",
                "Tokenizer and model do not belong together: use the tokenizer that the model was trained with.",
            )
        try:
            nats = self.nats(batch, targets)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
                raise TokenAdaptError(
                    f"Memory ran out on a batch of {batch.ids.shape[0]} windows of {batch.ids.shape[1]} tokens.",
                    "Lower --batch-tokens, then --context; --device-map auto spreads a large model.",
                ) from error
            raise
        bits = nats * _NATS_TO_BITS
        if not np.isfinite(bits).all():
            what = "NaN" if np.isnan(bits).any() else "probability zero"
            raise TokenAdaptError(
                f"The model gives {what} at {int((~np.isfinite(bits)).sum())} of {len(bits)} tokens of a batch.",
                "Try --dtype float32; if it stays, the weights themselves are damaged (`tokenadapt verify`).",
            )
        return bits

    @torch.inference_mode()
    def nats(self, batch: Batch, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same in nats, unchecked, in blocks of rows; a row that several windows share is computed once."""
        rows, place = np.unique(batch.rows, return_inverse=True)
        order = np.argsort(place, kind="stable")
        with fast_linear(self.device):
            inputs = self._inputs(batch)
            states = (self.model(**inputs).logits if self.body is None else self.body(**inputs)[0]).flatten(0, 1)
            # Made before the blocks: small results kept one by one would sit in the holes that freed blocks leave,
            # and each next block would need new memory.
            found = torch.empty(len(order), device=self.device)
            for low in range(0, len(rows), self.block):
                block = slice(*np.searchsorted(place[order], (low, low + self.block)))
                which = torch.from_numpy(rows[low : low + self.block]).to(self.device)
                here, wanted = place[order[block]] - low, targets[order[block]]
                found[block] = _nats(self._logits(states, which), torch.from_numpy(here), torch.from_numpy(wanted))
        nats = np.empty(len(order))
        nats[order] = found.double().cpu().numpy()
        return nats

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """Padding on the right is seen by no token of a causal model: it needs no mask, and runs faster without."""
        ids = torch.from_numpy(batch.ids).to(self.device)
        if self.masked:
            reach = torch.arange(ids.shape[1]) < torch.from_numpy(batch.length)[:, None]
            return {"input_ids": ids, "attention_mask": reach.to(self.device, torch.long)}
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if batch.until is not None and batch.depth is not None:
            place, until = torch.arange(ids.shape[1], device=self.device), torch.from_numpy(batch.until)
            seen = (place <= place[:, None]) & (place[:, None] < until.to(self.device)[:, None])
            kind = next(self.model.parameters()).dtype
            mask = torch.zeros(seen.shape, dtype=kind, device=self.device).masked_fill_(~seen, torch.finfo(kind).min)
            inputs |= {"position_ids": torch.from_numpy(batch.depth).to(self.device), "attention_mask": mask[:, None]}
        return inputs

    def _logits(self, states: Tensor, rows: Tensor) -> Tensor:
        """Logits of a block of rows: (n, V)."""
        chosen = states.index_select(0, rows.to(states.device))
        if self.body is None:
            return chosen
        with _answering(self.body, chosen[None]):
            blank = torch.zeros(1, len(rows), dtype=torch.long, device=self.device)
            logits: Tensor = self.model(input_ids=blank).logits
        return logits[0]

    @torch.inference_mode()
    def _check(self) -> int:
        """Compare the split run with the whole one on a few tokens; the number of logits."""
        probe = Batch(np.array([[0, 1, 1, 0]]), np.array([4]), np.arange(4), np.arange(4))
        inputs = self._inputs(probe)
        whole = self.model(**inputs).logits[0].float()
        if self.body is not None:
            try:
                split = self._logits(self.body(**inputs)[0].flatten(0, 1), torch.arange(4)).float()
                close = torch.allclose(split, whole, rtol=1e-2, atol=1e-2, equal_nan=True)
            except (TypeError, AttributeError, RuntimeError, ValueError):
                close = False
            if not close:
                self.body = None
        if not self.masked:
            self._check_causal(whole)
        return int(whole.shape[-1])

    def _check_causal(self, whole: Tensor) -> None:
        """Refuse a model that reads what comes after a token, an encoder loaded as a causal model for one."""
        probe = Batch(np.array([[0, 1, 1, 1]]), np.array([4]), np.arange(4), np.arange(4))
        moved = (self.model(**self._inputs(probe)).logits[0].float() - whole).abs().amax(dim=1).cpu()
        noise = (
            1e-3 if next(self.model.parameters()).dtype == torch.float32 else 0.1
        )  # experts' rounding, of half types
        if float(moved[:3].max()) > noise * float(moved[3]):
            raise RequestError(
                "The model's answer at a token changes with the tokens after it: it is no causal model.",
                "Score a masked model with --masked.",
            )


class _States(BaseModelOutputWithPast):  # type: ignore[misc]  # transformers is untyped
    """Final states alone; whatever else a model's forward looks for is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _body(model: nn.Module) -> nn.Module | None:
    """The layers below the head, where the model has them as one module."""
    body = getattr(model, "base_model", None)
    return body if isinstance(body, nn.Module) and body is not model else None


@contextmanager
def _answering(body: nn.Module, states: Tensor) -> Iterator[None]:
    """Within this, the layers give these states whatever they are asked."""
    own = body.__dict__.get("forward")
    body.forward = lambda *_, **__: _States(last_hidden_state=states)
    try:
        yield
    finally:
        if own is None:
            del body.forward
        else:
            body.forward = own


def _nats(logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """Negative log-probability in float32 of each target at its row of the block: (n,)."""
    logs = nn.functional.log_softmax(logits.float(), dim=-1)
    return -logs[rows.to(logs.device), targets.to(logs.device)]
