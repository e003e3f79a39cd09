"""Short strings that begin alike: a causal model reads each beginning once, and no layer that is not asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenadapt.threads import side_by_side, stop_if_ended
from tokenadapt.vocab.types import Ids

AT_ONCE = 8192  # tokens of the strings whose keys and values are held together
NOISE = (0.03, 0.0003)  # share of a state's length by which it may differ in 16 bits, in 32


@dataclass(frozen=True)
class Tree:
    """All beginnings of some strings, level by level: those of one token, of two, ..."""

    token: tuple[Ids, ...]  # the last token of each
    parent: tuple[Ids, ...]  # where in the level before each goes on
    level: Ids  # (n,) where each string ends: its level ...
    place: Ids  # (n,) ... and its place there


def grow(strings: Sequence[Sequence[int]]) -> Tree:
    """The tree of some strings of one token or more."""
    length = np.array([len(string) for string in strings], dtype=np.int64)
    padded = np.full((len(strings), int(length.max(initial=0))), -1, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < length[:, None]] = np.concatenate(
        [np.asarray(string, dtype=np.int64) for string in strings]
    )
    order = np.lexsort(padded.T[::-1])
    rows = padded[order]
    differs = np.ones(len(rows), dtype=bool)  # from the row before, in this column or an earlier one
    differs[1:] = False
    token, parent = [], []
    place, before = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    for column in range(padded.shape[1]):
        differs[1:] |= rows[1:, column] != rows[:-1, column]
        inside = rows[:, column] >= 0
        first = np.flatnonzero(inside & differs)
        token.append(rows[first, column])
        parent.append(before[first])
        node = np.cumsum(inside & differs) - 1
        place[inside] = node[inside]
        before = node
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Tree(tuple(token), tuple(parent), length - 1, place[back])


@dataclass(frozen=True)
class Following:
    """The beginnings of some strings that something follows, each once, and what follows them, string by string."""

    beginnings: list[tuple[int, ...]]
    owner: Ids  # (n,) the beginning before each token that is not a string's first
    token: Ids  # (n,) that token


def following(strings: Sequence[Sequence[int]]) -> Following:
    """What is asked of a model that is to say how likely each token is after those before it."""
    number: dict[tuple[int, ...], int] = {}
    owner = [number.setdefault(tuple(text[:at]), len(number)) for text in strings for at in range(1, len(text))]
    token = [token for text in strings for token in text[1:]]
    return Following(list(number), np.array(owner, dtype=np.int64), np.array(token, dtype=np.int64))


class Reader:
    """A causal transformers model without its head, read down to some of its layers.

    A layer is a number of `hidden_states`: 0 what the first layer reads, n what the model leaves.
    """

    def __init__(self, core: Any, layers: Sequence[int]) -> None:
        self.core, self.layers = core, tuple(layers)
        self.stack = _stack(core)

    @property
    @torch.inference_mode()
    def able(self) -> bool:
        """Whether this model can be read so: found out on strings that begin alike, against plain runs."""
        if self.stack is None:
            return False
        strings = [[0, 1, 2], [0, 1, 3], [0, 2, 3], [0]]
        try:
            with _watched(self.stack, self.layers) as watch:
                found = self._read(strings, watch)
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError):
            return False
        for string, got in zip(strings, found, strict=True):
            ids = torch.tensor([string], device=self.core.device)
            plain = self.core(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
            want = torch.stack([plain[layer][0, -1].float().cpu() for layer in self.layers])
            if bool(((got - want).norm(dim=1) > NOISE[self.core.dtype.itemsize > 2] * want.norm(dim=1)).any()):
                return False
        return True

    def read(self, strings: Sequence[Sequence[int]]) -> Iterator[tuple[Ids, Tensor]]:
        """States after the last token of each string, some strings at a time: their places, (n, layers, D) float32."""
        order = np.array(sorted(range(len(strings)), key=lambda at: tuple(strings[at])), dtype=np.int64)
        reach = np.cumsum([len(strings[at]) for at in order])
        cuts = np.searchsorted(reach, np.arange(AT_ONCE, int(reach[-1]) if len(reach) else 0, AT_ONCE))
        parts = [part for part in np.split(order, np.unique(cuts)) if len(part)]
        with _watched(self.stack, self.layers) as watch:
            found = side_by_side(lambda part: self._read([strings[at] for at in part], watch), parts, self.core.device)
            yield from zip(parts, found, strict=True)

    @torch.inference_mode()
    def _read(self, strings: Sequence[Sequence[int]], watch: _Watch) -> Tensor:
        from transformers import DynamicCache

        tree = grow(strings)
        out = torch.zeros(len(strings), len(self.layers), self.core.config.get_text_config().hidden_size)
        cache = DynamicCache(config=self.core.config.get_text_config())
        for depth, (token, parent) in enumerate(zip(tree.token, tree.parent, strict=True)):
            stop_if_ended()
            if depth:
                cache.batch_select_indices(torch.from_numpy(parent).to(self.core.device))
            states = self._level(torch.from_numpy(token)[:, None].to(self.core.device), cache, watch)
            here = np.flatnonzero(tree.level == depth)
            at = torch.from_numpy(tree.place[here])
            for slot, layer in enumerate(self.layers):
                out[torch.from_numpy(here), slot] = states[layer][at]
        return out

    def _level(self, ids: Tensor, cache: Any, watch: _Watch) -> Mapping[int, Tensor]:
        """States of one more token behind each string in the cache, by layer: (n, D) float32."""
        assert self.stack is not None
        watch.seen = {}
        try:
            last = self.core(input_ids=ids, past_key_values=cache, use_cache=True)[0]
        except _EnoughError:
            pass
        else:
            watch.seen[len(self.stack)] = last
        return {layer: states[:, -1].float().cpu() for layer, states in watch.seen.items()}


class _Watch(threading.local):
    """What passed between the layers in this thread's last run, by layer."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}


class _EnoughError(Exception):
    """The deepest layer that is wanted has been passed."""


def _stack(core: Any) -> Any:
    """The model's list of layers; None where there is not exactly one of their number."""
    count = getattr(core.config.get_text_config(), "num_hidden_layers", None)
    lists = [part for part in core.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == count]
    return lists[0] if len(lists) == 1 else None


@contextmanager
def _watched(stack: Any, layers: Sequence[int]) -> Iterator[_Watch]:
    """Catch what passes between layers, and stop behind the deepest that is asked for."""
    watch = _Watch()
    wanted, deepest = set(layers), max(layers)

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watch.seen[0] = args[0] if args else kwargs["hidden_states"]

    def after(place: int, output: Any) -> None:
        if place in wanted:
            watch.seen[place] = output[0] if isinstance(output, tuple) else output
        if place == deepest < len(stack):
            raise _EnoughError

    hooks = [stack[0].register_forward_pre_hook(before, with_kwargs=True)] if 0 in wanted else []
    for place in range(1, min(deepest, len(stack) - 1) + 1):
        if place in wanted:
            hooks.append(stack[place - 1].register_forward_hook(lambda _m, _i, out, place=place: after(place, out)))
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()
