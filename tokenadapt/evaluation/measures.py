"""Per-document sums to the figures that are shown: one function, the same for every model and subset."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LOG2: Final = math.log(2)


@dataclass(frozen=True)
class Sums:
    """One model's sums over each document of a selection."""

    bits: Floats  # (documents,)
    tokens: Ints
    nbytes: Ints
    words: Ints
    reference_tokens: Ints

    def take(self, which: Ints | NDArray[np.bool_]) -> Sums:
        """The same of some documents."""
        return Sums(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Measures:
    """The figures of one model on one selection of documents; NaN where there is nothing to divide by.

    `bits_per_byte` and what follows from it (`byte_perplexity`, `word_perplexity`, `reference_perplexity`) compare
    across tokenizers, since their divisors are the text's own. `token_perplexity` and `paper_perplexity` (the
    mean over documents of the token perplexity, as TokenAdapt publishes it) do not.
    """

    documents: int
    bytes: int
    tokens: int
    words: int
    bits: float
    bits_per_byte: float
    median_bits_per_byte: float
    byte_perplexity: float
    word_perplexity: float
    reference_perplexity: float
    token_perplexity: float
    paper_perplexity: float
    bytes_per_token: float

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON, which has neither NaN nor infinity."""
        return {name: finite(value) for name, value in asdict(self).items()}


def measure(sums: Sums) -> Measures:
    """All figures of a selection."""
    bits, nbytes, tokens = float(sums.bits.sum()), int(sums.nbytes.sum()), int(sums.tokens.sum())
    held = sums.nbytes > 0
    rate = sums.bits[held] / sums.nbytes[held]
    spelled = sums.tokens > 0
    with np.errstate(over="ignore"):
        each = np.exp2(sums.bits[spelled] / sums.tokens[spelled])
    return Measures(
        documents=len(sums.bits),
        bytes=nbytes,
        tokens=tokens,
        words=int(sums.words.sum()),
        bits=bits,
        bits_per_byte=_over(bits, nbytes),
        median_bits_per_byte=float(np.median(rate)) if len(rate) else math.nan,
        byte_perplexity=_perplexity(bits, nbytes),
        word_perplexity=_perplexity(bits, int(sums.words.sum())),
        reference_perplexity=_perplexity(bits, int(sums.reference_tokens.sum())),
        token_perplexity=_perplexity(bits, tokens),
        paper_perplexity=float(each.mean()) if len(each) else math.nan,
        bytes_per_token=_over(nbytes, tokens),
    )


def finite(value: float | int) -> float | int | None:
    """The value, or None where JSON cannot hold it."""
    return value if math.isfinite(value) else None


def _over(top: float, bottom: int) -> float:
    return top / bottom if bottom else math.nan


def _perplexity(bits: float, units: int) -> float:
    if not units:
        return math.nan
    power = bits / units
    return 2.0**power if power < 1000 else math.inf
