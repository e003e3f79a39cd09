"""Which string stands for a token in a space made of text.

A token's bytes are decoded as UTF-8 and stripped of white space at both ends: encoders drop it anyway, so `x` and
` x` are one string, encoded once. A token that is no whole UTF-8, holds nothing but white space, or holds no text
(special tokens, gaps) has no string, and so a zero vector.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def token_text(token: bytes | None) -> str | None:
    """The string that stands for a token, or None."""
    if token is None:
        return None
    try:
        return token.decode("utf-8").strip() or None
    except UnicodeDecodeError:
        return None


class Strings:
    """Distinct strings of a run of tokens, and which one stands for each: `index` is -1 where none does."""

    def __init__(self, tokens: Iterable[bytes | None]) -> None:
        number: dict[str, int] = {}
        index = [
            -1 if text is None else number.setdefault(text, len(number)) for text in (token_text(t) for t in tokens)
        ]
        self.index: NDArray[np.int64] = np.array(index, dtype=np.int64)
        self.texts: list[str] = list(number)

    @property
    def without(self) -> int:
        """Number of tokens without a string."""
        return int((self.index < 0).sum())
