"""What a tokenizer loses: tokens that it never produces, and text that does not come back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokenadapt.vocab.types import ByteVocab, Ids, Kind


def unreachable(vocab: ByteVocab) -> Ids:
    """Ordinary tokens that are text, and that the tokenizer gives neither for this text alone nor after a letter.

    Normalisers (NFKC), pre-tokenisers and merges leave such tokens: their rows were never trained. Tokens that are part
    of a character are not asked. The answer is an estimate: a token may still come up after other characters.
    """
    texts, ids = [], []
    for index in np.flatnonzero(vocab.kind == Kind.ORDINARY).tolist():
        try:
            texts.append((vocab.token_bytes[index] or b"").decode("utf-8"))
        except UnicodeDecodeError:
            continue
        ids.append(index)
    alone, after = vocab.encode(texts), vocab.encode(["a" + text for text in texts])
    lost = [index for index, one, two in zip(ids, alone, after, strict=True) if index not in one and index not in two]
    return np.array(lost, dtype=np.int64)


def round_trips(vocab: ByteVocab, texts: Sequence[str]) -> list[bool]:
    """Whether the bytes of each text's tokens are the text's, up to the one space that some tokenizers add in front."""
    came_back = []
    for text, ids in zip(texts, vocab.encode(texts), strict=True):
        parts = [vocab.token_bytes[index] for index in ids]
        known = [part for part in parts if part is not None]
        joined = b"".join(known)
        same = joined in (text.encode(), b" " + text.encode())
        came_back.append(same and len(known) == len(parts))
    return came_back
