"""What a tokenizer's normaliser, pre-tokeniser and decoder are made of, read from their own descriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from tokenizers import Tokenizer

Part = Literal["normalizer", "pre_tokenizer", "decoder"]


def component(tokenizer: Tokenizer, part: Part) -> dict[str, Any] | None:
    """The description of one component as `tokenizer.json` would hold it."""
    value = getattr(tokenizer, part)
    if value is None:
        return None
    state: dict[str, Any] = json.loads(value.__getstate__())
    return state


def same_tokens(one: Tokenizer, other: Tokenizer, part: Part) -> bool:
    """Whether a component of two tokenizers is the same in all that bears on tokens: offsets do not."""
    return bool(_without_offsets(component(one, part)) == _without_offsets(component(other, part)))


def _without_offsets(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without_offsets(value) for key, value in state.items() if key != "trim_offsets"}
    return [_without_offsets(item) for item in state] if isinstance(state, list) else state


def steps(tokenizer: Tokenizer, part: Part) -> Iterator[dict[str, Any]]:
    """The single steps of a component in order: sequences, however nested, are opened."""
    pending = [component(tokenizer, part)]
    while pending:
        state = pending.pop(0)
        if state is None:
            continue
        if state["type"] == "Sequence":  # its list is called normalizers, pretokenizers or decoders
            pending[:0] = next(value for value in state.values() if isinstance(value, list))
        else:
            yield state
