"""Whether a model reads packed windows as it reads each alone: tried, not believed.

Some models ignore the mask or the positions that they are given (recurrent ones), or make their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from tokenadapt.evaluation.batches import Budget, Frame, arrange, build
from tokenadapt.evaluation.encode import Encoded
from tokenadapt.evaluation.windows import Windows

if TYPE_CHECKING:
    from tokenadapt.evaluation.head import Scorer

_LENGTHS: Final = (13, 9, 6)
_SHARED: Final = 4  # tokens with which the second begins as the first
_CLOSE: Final = {torch.float32: 1e-4}  # nats
_CLOSE_HALF: Final = 0.1
_FAILS: Final = (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError, AssertionError)


def longest_packed(config: Any) -> int:
    """Tokens of the longest window that may be packed: a mask that is given overrules a model's own short sight."""
    text = getattr(config, "text_config", None) or config
    sights = (getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size"))
    return min((sight for sight in sights if isinstance(sight, int) and sight > 0), default=1 << 30)


@torch.inference_mode()
def reads_packed(scorer: Scorer) -> bool:
    """Compare three short windows in one row with each alone; and see that a wrong mask would have shown."""
    ids = [np.arange(size) * 7 + 3 * number + 1 for number, size in enumerate(_LENGTHS)]
    ids[1][:_SHARED] = ids[0][:_SHARED]
    start = np.concatenate(([0], np.cumsum(_LENGTHS)))
    tokens = np.concatenate(ids) % scorer.vocab
    encoded = Encoded(tokens, start, np.ones_like(tokens), np.ones(3, dtype=bool), np.array(_LENGTHS))
    windows = Windows(start[:-1], start[:-1], start[1:], np.zeros(3, dtype=bool))
    (side,) = arrange(encoded, windows, Frame(), Budget(64, 64))
    (row,) = arrange(encoded, windows, Frame(), Budget(64, 64, 64))
    alone, packed = build(encoded, windows, Frame(), side), build(encoded, windows, Frame(), row)
    assert packed.until is not None
    blind = replace(packed, until=np.full_like(packed.until, packed.ids.shape[1]))
    found = np.zeros((3, len(tokens)))
    try:
        for nats, batch in zip(found, (alone, packed, blind), strict=True):
            nats[batch.token] = scorer.nats(batch, tokens[batch.token])
    except _FAILS:
        return False
    right, wrong = (float(np.abs(one - found[0]).max()) for one in found[1:])
    kept = next(scorer.model.parameters()).dtype
    return right <= _CLOSE.get(kept, _CLOSE_HALF) and wrong > 10 * right
