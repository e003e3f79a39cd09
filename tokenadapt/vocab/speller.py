"""Byte strings cut into ids by a tokenizer's own model: no normaliser, no added space, no special tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tokenadapt.vocab.alphabet import Alphabet
from tokenadapt.vocab.components import steps
from tokenadapt.vocab.types import Kind

_NO_PREFIX: Final = {"add_prefix_space": False, "prepend_scheme": "never"}


@dataclass(frozen=True)
class Speller:
    """`cutting` runs pre-tokeniser and model, `bare` the model alone; both without added tokens and normaliser."""

    cutting: Tokenizer
    bare: Tokenizer
    alphabet: Alphabet
    known: tuple[bytes | None, ...]  # bytes by id of ordinary and byte tokens, None for all others

    def __call__(self, strings: Sequence[bytes]) -> list[list[int] | None]:
        """Ids whose bytes join to each string; None where the model cannot spell it exactly."""
        texts, cut, rest = [], [], []
        for index, data in enumerate(strings):
            text = _text(data)
            if text is not None:
                cut.append(index)
                # the byte letters are written by the pre-tokeniser itself
                texts.append(text if self.alphabet.letters else text.replace(" ", self.alphabet.mark or " "))
            elif self.alphabet.letters:
                rest.append(index)
        answer: list[list[int] | None] = [None] * len(strings)
        self._fill(answer, cut, self.cutting.encode_batch_fast(texts, add_special_tokens=False), strings)
        spelled = [self.alphabet.write(strings[index]) or "" for index in rest]
        self._fill(answer, rest, self.bare.encode_batch_fast(spelled, add_special_tokens=False), strings)
        return answer

    def _fill(
        self, answer: list[list[int] | None], where: list[int], encodings: list[Any], strings: Sequence[bytes]
    ) -> None:
        """Keep what spells the very bytes: a model drops what it does not know, or names it unknown."""
        for index, encoding in zip(where, encodings, strict=True):
            ids = encoding.ids
            parts = [self.known[piece] for piece in ids]
            if None not in parts and b"".join(parts) == strings[index]:
                answer[index] = ids


def make_speller(
    tokenizer: Tokenizer, alphabet: Alphabet, token_bytes: tuple[bytes | None, ...], kind: NDArray[np.uint8]
) -> Speller:
    """The speller of a tokenizer; its model is shared, not copied."""
    usable = np.isin(kind, (Kind.ORDINARY, Kind.BYTE)).tolist()
    known = tuple(data if use else None for data, use in zip(token_bytes, usable, strict=True))
    cutting, bare = Tokenizer(tokenizer.model), Tokenizer(tokenizer.model)
    cuts = [_without_prefix(step) for step in steps(tokenizer, "pre_tokenizer")]
    if alphabet.letters and not any(cut["type"] == "ByteLevel" for cut in cuts):
        # else the normaliser writes the letters
        cuts.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False})
    if cuts:
        shell = {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
            "model": {"type": "BPE", "vocab": {}, "merges": []},
        }
        cutting.pre_tokenizer = Tokenizer.from_str(json.dumps(shell)).pre_tokenizer
    return Speller(cutting, bare, alphabet, known)


def _without_prefix(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _NO_PREFIX.get(key, _without_prefix(value)) for key, value in state.items()}
    return [_without_prefix(item) for item in state] if isinstance(state, list) else state


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
