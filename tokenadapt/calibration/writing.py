"""Texts that the source model writes itself: what to learn from where there is no corpus. Seeded, and kept.

Nothing about the source's own text is foreign to it, so what a student learns from it is the swap and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from tokenadapt.calibration.speaker import Speaker
from tokenadapt.progress import SILENT, Progress

_TOGETHER: Final = 64  # texts that are written side by side
_DROP: Final = 0.75  # finished texts are dropped from a batch once less than this share still runs


@dataclass(frozen=True)
class Manner:
    """How texts are written."""

    tokens: int  # of the source's tokenizer, all texts together
    longest: int  # of one text
    temperature: float
    seed: int


class Writer:
    """Writes with a speaker; `stop` ids end a text."""

    def __init__(self, speaker: Speaker, stop: Sequence[int]) -> None:
        self.speaker = speaker
        self.stop = torch.tensor(sorted(stop), dtype=torch.long)

    def write(self, prompts: Sequence[Sequence[int]], manner: Manner, progress: Progress = SILENT) -> list[list[int]]:
        """Go on from the prompts, again and again, until enough tokens are written; texts as ids, prompts included."""
        texts: list[list[int]] = []
        written, number = 0, 0
        with progress.stage("texts of the source model's own", manner.tokens, "tokens") as advance:
            while written < manner.tokens:
                batch = [list(prompts[(number * _TOGETHER + i) % len(prompts)]) for i in range(_TOGETHER)]
                for same in _by_length(batch):
                    generator = torch.Generator().manual_seed(manner.seed * 1_000_003 + number)
                    made = self.go_on(same, manner, generator)
                    count = sum(map(len, made)) - sum(map(len, same))
                    texts += made
                    written += count
                    advance(count)
                    number += 1
        return texts

    def once(self, prompts: Sequence[Sequence[int]], manner: Manner, progress: Progress = SILENT) -> list[list[int]]:
        """Go on from each prompt once."""
        texts: list[list[int]] = []
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
        with progress.stage("texts around new tokens", len(prompts), "texts") as advance:
            for number, low in enumerate(range(0, len(order), _TOGETHER)):
                for same in _by_length([list(prompts[index]) for index in order[low : low + _TOGETHER]]):
                    generator = torch.Generator().manual_seed(manner.seed * 1_000_003 + number)
                    texts += self.go_on(same, manner, generator)
                    advance(len(same))
        return texts

    @torch.inference_mode()
    def go_on(self, starts: Sequence[Sequence[int]], manner: Manner, generator: torch.Generator) -> list[list[int]]:
        """Texts that begin with `starts`, which are of one length."""
        speaker, device = self.speaker, self.speaker.device
        texts = [list(start) for start in starts]
        running = torch.arange(len(texts))
        feed, past = torch.tensor(texts, device=device), None
        body, scale = speaker.body, speaker.body.scale
        with body.as_teacher(), _short_queries(body.core, device):
            for _ in range(manner.longest - len(texts[0])):
                rows = speaker.input.lookup(feed)
                out: Any = body.core(
                    inputs_embeds=rows * scale if scale != 1 else rows, past_key_values=past, use_cache=True
                )
                past = out.past_key_values
                logits = speaker.head.logits(out[0][:, -1])
                chosen = speaker.output.order.cpu()[_draw(logits, manner.temperature, generator)]
                for place, token in zip(running.tolist(), chosen.tolist(), strict=True):
                    texts[place].append(token)
                going = ~torch.isin(chosen, self.stop)
                if not going.any():
                    break
                running, feed, past = _drop(running, chosen, going, past, device)
        return [self._ended(text, len(starts[0])) for text in texts]

    def _ended(self, text: list[int], prompt: int) -> list[int]:
        """Up to its end, which is no part of it."""
        stops = set(self.stop.tolist())
        end = next((place for place, token in enumerate(text[prompt:], prompt) if token in stops), len(text))
        return text[:end]


@contextmanager
def _short_queries(core: Any, device: torch.device) -> Iterator[None]:
    """Within this, attention on a CPU is plain products: for one query at a time its fused form is half as fast."""
    before = getattr(core.config, "_attn_implementation", None)
    if device.type != "cpu" or before != "sdpa":
        yield
        return
    core.set_attn_implementation("eager")
    try:
        yield
    finally:
        core.set_attn_implementation(before)


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One column per row of logits, by inverse transform: (B,)."""
    edges = (logits.float().cpu() / temperature).softmax(1).cumsum(1)
    point = torch.rand(len(edges), 1, generator=generator) * edges[:, -1:]
    return torch.searchsorted(edges, point).clamp(max=edges.shape[1] - 1)[:, 0]


def _drop(
    running: Tensor, chosen: Tensor, going: Tensor, past: Any, device: torch.device
) -> tuple[Tensor, Tensor, Any]:
    """Leave finished texts out of the batch once they are many; what they would go on with is cut off later."""
    if float(going.float().mean()) < _DROP and hasattr(past, "batch_select_indices"):
        keep = going.nonzero()[:, 0]
        past.batch_select_indices(keep.to(device))
        running, chosen = running[keep], chosen[keep]
    return running, chosen[:, None].to(device), past


def _by_length(prompts: list[list[int]]) -> Iterator[list[list[int]]]:
    for length in sorted({len(prompt) for prompt in prompts}):
        yield [prompt for prompt in prompts if len(prompt) == length]


def key_of(model: str, manner: Manner, prompts: Sequence[Sequence[int]]) -> str:
    """What written texts depend on, as a name. The type that computed them is no part of it: texts are kept as text."""
    what = {"model": model, **asdict(manner), "prompts": [list(prompt) for prompt in prompts]}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]
