"""Texts to tokens, with the bytes that each token accounts for.

The bytes of a document are its own UTF-8 bytes, whatever the tokenizer makes of it: they are handed out to its tokens
so that none is lost and none counted twice. Where the tokens' true bytes join to the text, each gets its own; where
they do not (a normaliser, an unknown character), the tokenizer's offsets say where each token ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokenadapt.errors import RequestError

if TYPE_CHECKING:
    from tokenadapt.vocab.load import LoadedTokenizer


@dataclass(frozen=True)
class Encoded:
    """Documents as tokens, ragged: document d is tokens start[d]:start[d+1]."""

    ids: NDArray[np.int64]  # (N,)
    start: NDArray[np.int64]  # (documents + 1,)
    nbytes: NDArray[np.int64]  # (N,) bytes of the text that each token accounts for; 0 is possible
    exact: NDArray[np.bool_]  # (documents,) the tokens' bytes join to the text
    size: NDArray[np.int64]  # (documents,) UTF-8 bytes; more than its tokens' only where a text gives no token

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.nbytes) or self.start[-1] != len(self.ids):
            raise ValueError("one byte count per token, and runs that cover all tokens")

    def __len__(self) -> int:
        return len(self.start) - 1

    def document_of(self) -> NDArray[np.int64]:
        """The document of each token: (N,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.start))


@contextmanager
def _as_text(backend: Any) -> Iterator[None]:  # tokenizers.Tokenizer has no usable type
    """Special tokens spelled in the text are text, and nothing is cut or padded; all is put back afterwards."""
    specials, cut, pad = backend.encode_special_tokens, backend.truncation, backend.padding
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        backend.encode_special_tokens = specials
        if cut:
            backend.enable_truncation(**cut)
        if pad:
            backend.enable_padding(**pad)


class TextEncoder:
    """A tokenizer as scoring needs it: ids and byte counts, and what stands before and after a text.

    `prefix` and `suffix` are the special tokens that the tokenizer itself puts around a text; `begin` is the token
    that can stand in for a missing prefix, `mask` the mask token of a masked model.
    """

    def __init__(
        self,
        backend: Any,  # tokenizers.Tokenizer
        token_bytes: Sequence[bytes | None],
        *,
        begin: int | None = None,
        mask: int | None = None,
    ) -> None:
        self.backend, self.token_bytes, self.begin, self.mask = backend, token_bytes, begin, mask
        self.length = np.array([0 if text is None else len(text) for text in token_bytes], dtype=np.int64)
        self.texts = int(sum(text is not None for text in token_bytes))  # tokens that can stand for text
        self.prefix, self.suffix = _frame(backend)

    @classmethod
    def of(cls, loaded: LoadedTokenizer) -> TextEncoder:
        """From a tokenizer that `load_tokenizer` gave."""
        from tokenadapt.vocab import byte_vocab

        fast = loaded.fast
        begin = fast.bos_token_id if fast.bos_token_id is not None else fast.eos_token_id
        return cls(loaded.backend, byte_vocab(loaded).token_bytes, begin=begin, mask=fast.mask_token_id)

    def frame(self, policy: str, kind: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens before and after each window under a begin-token policy: as-trained, always or never."""
        suffix = self.suffix if kind == "masked" else ()
        if policy == "never":
            return (), ()
        if policy == "always" and not self.prefix:
            if self.begin is None:
                raise RequestError(
                    "The tokenizer has neither a begin nor an end token to stand before a text.", "Use --bos never."
                )
            return (self.begin,), suffix
        return self.prefix, suffix

    def encode(self, texts: Sequence[str]) -> Encoded:
        """All texts, special tokens in them read as text, none added."""
        with _as_text(self.backend):
            found = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
            runs = [np.array(encoding.ids, dtype=np.int64) for encoding in found]
            sizes: list[NDArray[np.int64]] = []
            exact, size = np.zeros(len(texts), dtype=bool), np.zeros(len(texts), dtype=np.int64)
            for index, (text, ids) in enumerate(zip(texts, runs, strict=True)):
                raw = text.encode()
                size[index] = len(raw)
                counted = self._own_bytes(raw, ids)
                exact[index] = counted is not None
                sizes.append(self._by_offsets(text, ids) if counted is None else counted)
        start = np.concatenate(([0], np.cumsum([len(ids) for ids in runs]))).astype(np.int64)
        empty = np.zeros(0, dtype=np.int64)
        return Encoded(np.concatenate([*runs, empty]), start, np.concatenate([*sizes, empty]), exact, size)

    def _own_bytes(self, raw: bytes, ids: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The tokens' own byte counts where they join to the text, give or take a space that was put before it."""
        if not len(ids):
            return None if raw else np.zeros(0, dtype=np.int64)
        if ids.max() >= len(self.token_bytes):
            return None
        counted = self.length[ids]
        extra = int(counted.sum()) - len(raw)
        if extra not in (0, 1):
            return None
        parts = [self.token_bytes[token] for token in ids.tolist()]
        if any(part is None for part in parts):
            return None
        joined = b"".join(part for part in parts if part is not None)
        if joined != (b" " + raw if extra else raw):
            return None
        if extra:
            counted[np.flatnonzero(counted)[0]] -= 1
        return counted

    def _by_offsets(self, text: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes up to where each token ends in the text; what is left over goes to the last token."""
        if not len(ids):
            return np.zeros(0, dtype=np.int64)
        widths = np.array([len(char.encode()) for char in text], dtype=np.int64)
        ends_at = np.concatenate(([0], np.cumsum(widths)))  # (characters + 1,) byte offset
        offsets = self.backend.encode(text, add_special_tokens=False).offsets
        ends = np.maximum.accumulate(ends_at[[end for _, end in offsets]])
        ends[-1] = ends_at[-1]
        return np.diff(ends, prepend=0)


def _frame(backend: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the tokenizer puts before and after a text."""
    probe = backend.encode("a", add_special_tokens=True)
    inner = np.flatnonzero(np.array(probe.special_tokens_mask) == 0)
    if not len(inner):
        return (), ()
    return tuple(probe.ids[: inner[0]]), tuple(probe.ids[inner[-1] + 1 :])
