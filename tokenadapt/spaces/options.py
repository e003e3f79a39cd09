"""What can be chosen about an auxiliary space, and what its parts promise one another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from tokenadapt.errors import RequestError
from tokenadapt.vocab.types import Ids

Matrix = NDArray[np.float32]  # (n, d)
Precision = Literal["auto", "float32", "bfloat16"]
Backend = Literal["auto", "int8", "faiss", "faiss-gpu", "torch", "torch-cuda"]
POOLINGS: Final = ("auto", "mean", "cls", "max", "last", "weighted")


@dataclass(frozen=True)
class SpaceOptions:
    """Options of `--space`; the defaults take what the encoder's own files say.

    `prefix` is put before every string: a text, or the name of one of the encoder's prompts. `batch_tokens` bounds
    the padded tokens of one batch; 0 chooses by device. `precision` auto is bfloat16 on a GPU, float32 elsewhere.
    """

    pooling: str = "auto"
    prefix: str | None = None
    revision: str | None = None
    batch_tokens: int = 0
    device: str | None = None
    precision: Precision = "auto"
    backend: Backend = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise RequestError(f"There is no pooling {self.pooling!r}.", f"Choose one of {', '.join(POOLINGS)}.")
        if self.batch_tokens < 0:
            raise RequestError(f"A batch cannot hold {self.batch_tokens} tokens.", "Give 0 to let the device decide.")


class TokenVectors(Protocol):
    """Vectors of the tokens of one transplant; rows have length one, or are zero where a token has no vector."""

    def source(self, ids: Ids) -> Matrix:
        """Vectors of old tokens: (len(ids), d)."""
        ...

    def missing(self, index: Ids) -> Matrix:
        """Vectors of missing tokens by position: (len(index), d)."""
        ...

    def prepare(self) -> None:
        """Make all vectors that may be asked for; the ranks of a run come here together and share the work."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Vectors of any strings in the same space: (len(texts), d)."""
        ...


_KEYS: Final = "|".join(field.name for field in fields(SpaceOptions) if field.name != "trust_remote_code")


def split_spec(spec: str, options: SpaceOptions) -> tuple[str, SpaceOptions]:
    """`hf:ID:pooling=cls,prefix=query: ` to `hf:ID` and options; only the options' own names open such a tail.

    Raises RequestError for a value that an option cannot have.
    """
    place, *tail = re.split(rf":(?=(?:{_KEYS})=)", spec, maxsplit=1)
    if not tail:
        return spec, options
    said = dict(pair.split("=", 1) for pair in re.split(rf",(?=(?:{_KEYS})=)", tail[0]))
    for key, allowed in (("precision", get_args(Precision)), ("backend", get_args(Backend))):
        if said.get(key, "auto") not in allowed:
            raise RequestError(f"There is no {key} {said[key]!r} for a space.", f"Choose one of {', '.join(allowed)}.")
    try:
        given: dict[str, Any] = {
            **said,
            **({"batch_tokens": int(said["batch_tokens"])} if "batch_tokens" in said else {}),
        }
    except ValueError:
        raise RequestError(f"batch_tokens={said['batch_tokens']} is no number.", "Say how many tokens.") from None
    return place, replace(options, **given)


def unit(rows: NDArray[Any]) -> Matrix:
    """Rows of length one in float32; a zero row stays zero."""
    rows = np.asarray(rows, dtype=np.float32)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1), dtype=np.float32)
