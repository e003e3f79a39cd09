"""Running a transformers model for its states, log-probabilities and samples, a bounded batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokenadapt.errors import TokenAdaptError
from tokenadapt.threads import alone, gather, precise, side_by_side, stop_if_ended
from tokenadapt.vocab.types import Ids

Kind = Literal["causal", "masked", "seq2seq"]
BATCH_TOKENS = 2048  # positions, padding included, whose states are held at once
HEAD_BYTES = 128 << 20  # largest block of float32 logits


@dataclass(frozen=True)
class Sampling:
    """How much text a model writes about itself, and how freely."""

    texts: int = 48
    tokens: int = 128  # each, the start included
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Sequences of similar length, padded on the right."""

    index: Ids  # (B,) places in the list that was given
    ids: Tensor  # (B, T)
    length: Tensor  # (B,)


def load_model(folder: Path, kind: Kind, dtype: torch.dtype, *, trust_remote_code: bool = False) -> Any:
    """The model, in evaluation mode; TokenAdaptError where transformers cannot load it."""
    import transformers

    loaders = {
        "causal": transformers.AutoModelForCausalLM,
        "masked": transformers.AutoModelForMaskedLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
    }
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        model = loaders[kind].from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, json.JSONDecodeError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TokenAdaptError(
            f"The source model in {folder} cannot be run: {first[:300]}",
            "Choose a method that does not need the model itself (see `tokenadapt methods`).",
        ) from error
    finally:
        if shown:
            bars.enable_progress_bar()
    return model.eval()


def batches(sequences: Sequence[Sequence[int]], budget: int = BATCH_TOKENS) -> Iterator[Batch]:
    """All sequences, longest first, in batches of at most `budget` positions (a longer one goes alone)."""
    length = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    order = np.argsort(-length, kind="stable")
    first = 0
    while first < len(order):
        longest = max(1, int(length[order[first]]))
        index = order[first : first + max(1, budget // longest)]
        ids = torch.zeros(len(index), longest, dtype=torch.long)
        for row, place in enumerate(index):
            ids[row, : length[place]] = torch.as_tensor(sequences[place], dtype=torch.long)
        yield Batch(index, ids, torch.from_numpy(length[index]))
        first += len(index)


def layers_of(model: Any, kind: Kind) -> Any:
    """The part of a model that reads text: its layers without a head; an encoder-decoder's encoder."""
    return model.get_encoder() if kind == "seq2seq" else model.base_model


def inputs_of(batch: Batch, kind: Kind, device: torch.device) -> dict[str, Any]:
    """A causal model's real positions never see the padding at their right: it needs no mask, and runs faster so."""
    given: dict[str, Any] = {"input_ids": batch.ids.to(device)}
    if kind == "causal":
        given["use_cache"] = False
    else:
        given["attention_mask"] = (torch.arange(batch.ids.shape[1]) < batch.length[:, None]).long().to(device)
    return given


@torch.inference_mode()
def states_of(
    run: Any, kind: Kind, sequences: Sequence[Sequence[int]], layers: Sequence[int]
) -> Iterator[tuple[Ids, Tensor]]:
    """Entries of `hidden_states` at each sequence's last position, batch by batch: places, (n, layers, D) float32."""
    device = next(run.parameters()).device
    for batch in batches(sequences):
        with alone():  # and not side by side, for transformers catches hidden states by changing the model
            hidden = run(**inputs_of(batch, kind, device), output_hidden_states=True).hidden_states
        rows, last = torch.arange(len(batch.index)), batch.length - 1
        yield batch.index, torch.stack([hidden[layer][rows, last].float().cpu() for layer in layers], dim=1)


class Head:
    """What stands between a causal model's last states and its logits: scale, soft cap and all."""

    def __init__(self, model: Any) -> None:
        self.module = model.get_output_embeddings()
        config = model.config.get_text_config()
        divide, times = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
        self.scale = float(1 / divide if divide else times if times else 1.0)
        self.cap = getattr(config, "final_logit_softcapping", None)
        self.plain = self.module is not None and self._holds(model)

    @torch.inference_mode()
    def _holds(self, model: Any) -> bool:
        """Whether layers and head, run one after the other, give the model's own logits."""
        probe = torch.arange(min(4, model.config.get_text_config().vocab_size), device=model.device)[None]
        whole = model(input_ids=probe, use_cache=False).logits.float()
        parts = self(model.base_model(input_ids=probe, use_cache=False)[0])
        return parts.shape == whole.shape and torch.allclose(parts, whole, rtol=1e-2, atol=1e-2)

    def __call__(self, states: Tensor) -> Tensor:
        """Float32 logits: (..., V)."""
        logits: Tensor = self.module(states).float() * self.scale
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits

    @property
    def block(self) -> int:
        """Positions whose logits are held at once."""
        return max(1, HEAD_BYTES // (4 * int(self.module.weight.shape[0])))


@torch.inference_mode()
def log_probs_of(head: Head, states: Tensor, targets: Tensor, owner: Tensor | None = None) -> Tensor:
    """Natural-log probability of each target at its state: (n,). `owner` (n,), ascending, says which; else one each."""
    owner = torch.arange(len(targets)) if owner is None else owner

    def block(first: int) -> Tensor:
        logits = head(states[first : first + head.block])
        here = slice(*torch.searchsorted(owner, torch.tensor([first, first + head.block])).tolist())
        at, wanted = (owner[here] - first).to(logits.device), targets[here].to(logits.device)
        return (logits[at, wanted] - logits.logsumexp(1)[at]).cpu()

    parts = side_by_side(block, range(0, len(states), head.block), states.device)
    return gather(parts, torch.empty(len(targets)))


def points(texts: int, tokens: int, seed: int) -> Tensor:
    """Numbers in 0..1 that decide what is drawn: (texts, tokens) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(tokens, texts, generator=generator, dtype=torch.float64).T


@torch.inference_mode()
def sample(
    model: Any, head: Head, starts: Tensor, drawn: Tensor, temperature: float, given: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Texts drawn from the model after `starts` (B, S): ids (B, T), and the states that chose them (B, T - S, D).

    `drawn` (B, T - S) holds the `points` by which tokens are drawn. `given` (B, P), where not -1, says what stands at
    positions S, S + 1, ...: beginnings of unequal length.
    """
    ids, feed, past = starts, starts.to(model.device), None
    exact, states = precise(model.device), []
    for step, point in enumerate(drawn.to(exact).T):
        stop_if_ended()
        out = model.base_model(input_ids=feed, past_key_values=past, use_cache=True)
        past, last = out.past_key_values, out.last_hidden_state[:, -1]
        states.append(last.float().cpu())
        edges = (head(last).to(exact).double() / temperature).softmax(1).cumsum(1)
        place = torch.searchsorted(edges, point[:, None] * edges[:, -1:])
        chosen = place.clamp(max=edges.shape[1] - 1).cpu()
        if given is not None and step < given.shape[1]:
            chosen = torch.where(given[:, step, None] >= 0, given[:, step, None], chosen)
        ids, feed = torch.cat([ids, chosen], dim=1), chosen.to(model.device)
    empty = torch.zeros(len(ids), 0, model.base_model.get_input_embeddings().weight.shape[1])
    return ids, torch.stack(states, dim=1) if states else empty
