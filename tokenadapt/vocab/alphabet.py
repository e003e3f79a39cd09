"""How a tokenizer writes bytes into its tokens, read from its own components."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from tokenizers import Tokenizer

from tokenadapt.vocab.components import steps
from tokenadapt.vocab.letters import from_letters, to_letters
from tokenadapt.vocab.types import Kind

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_UNREADABLE: Final = {"CTC", "BPEDecoder"}  # decoders whose output depends on what follows
_MARK: Final = "▁"


@dataclass(frozen=True)
class Alphabet:
    """The rules of one tokenizer.

    letters: tokens are written in the 256 byte letters. mark: the character that stands for a space, or "".
    byte_tokens: `<0xNN>` is one byte; without it the same six characters are text.
    continuing: what begins a token inside a word (`##`); a token without it begins a word and stands for a space and
    its letters, except where the pre-tokeniser cuts before it without a space (punctuation): that follows `isolated`.
    suffix: ends a word's last token; whether a space follows cannot be told, so such tokens are unknown.
    """

    letters: bool
    mark: str = ""
    byte_tokens: bool = False
    continuing: str = ""
    suffix: str = ""
    readable: bool = True
    isolated: Callable[[str], bool] = lambda character: False

    @property
    def rule(self) -> str:
        """The rule in words, for reports."""
        if not self.readable:
            return "the decoder is of a kind whose tokens cannot be read as bytes"
        if self.letters:
            return "byte-level letters"
        said = [f"{self.mark} is a space" if self.mark else "text as it is"]
        said += ["<0xNN> is a byte"] if self.byte_tokens else []
        if self.continuing:
            said.append(f"{self.continuing} continues a word, other tokens stand for a space and a word")
        return ", ".join(said)

    def read(self, token: str) -> tuple[bytes | None, Kind]:
        """What a token of the model stands for inside text, and its kind; None where that cannot be known."""
        if not self.readable or (self.suffix and token.endswith(self.suffix)):
            return None, Kind.UNKNOWN
        if self.letters:
            data = from_letters(token)
            return data, Kind.UNKNOWN if data is None else Kind.ORDINARY
        if self.byte_tokens and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)]), Kind.BYTE
        if self.mark:
            token = token.replace(self.mark, " ")
        elif self.continuing:
            token = self._word(token)
        try:
            return token.encode("utf-8"), Kind.ORDINARY
        except UnicodeEncodeError:  # half of a surrogate pair
            return None, Kind.UNKNOWN

    def write(self, data: bytes) -> str | None:
        """The spelling in which the tokenizer's model reads these bytes; None where it has none."""
        if self.letters:
            return to_letters(data)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return text.replace(" ", self.mark) if self.mark else text

    def starts_word(self, token: str) -> bool:
        """Whether a token of the model can only begin a word."""
        return bool(self.continuing) and not token.startswith(self.continuing)

    def _word(self, token: str) -> str:
        if not self.starts_word(token):
            return token[len(self.continuing) :]
        return token if not token or self.isolated(token[0]) else " " + token


def read_alphabet(tokenizer: Tokenizer, model: Mapping[str, Any]) -> Alphabet:
    """The rules that a tokenizer's components state; `model` is its model's own description. No class name is asked."""
    decoder = list(steps(tokenizer, "decoder"))
    every = [*steps(tokenizer, "normalizer"), *steps(tokenizer, "pre_tokenizer"), *decoder]
    continuing = model.get("continuing_subword_prefix") or ""
    return Alphabet(
        letters=any(step["type"] == "ByteLevel" for step in every),
        mark=_space_mark(every),
        byte_tokens=bool(model.get("byte_fallback")),
        continuing=continuing if _drops_spaces(tokenizer) else "",
        suffix=model.get("end_of_word_suffix") or "",
        readable=not any(step["type"] in _UNREADABLE for step in decoder),
        isolated=_isolation(tokenizer),
    )


def _space_mark(every: list[dict[str, Any]]) -> str:
    """The character that replaces spaces: Metaspace says so, or a Replace in the normaliser or the decoder."""
    for step in every:
        if step["type"] == "Metaspace":
            return str(step["replacement"])
        if step["type"] == "Replace":
            pattern = step["pattern"]
            old = pattern.get("String") if isinstance(pattern, dict) else None
            for character, other in ((old, step["content"]), (step["content"], old)):
                if character == " " and other == _MARK:
                    return _MARK
    return ""


def _drops_spaces(tokenizer: Tokenizer) -> bool:
    cut = tokenizer.pre_tokenizer
    return cut is not None and all(" " not in piece for piece, _ in cut.pre_tokenize_str("x y"))


def _isolation(tokenizer: Tokenizer) -> Callable[[str], bool]:
    """Whether a character, right after a letter, begins a new word without a space: asked of the components."""

    @cache
    def isolated(character: str) -> bool:
        text = f"a{character}"
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        if tokenizer.pre_tokenizer is None:
            return False
        return len(tokenizer.pre_tokenizer.pre_tokenize_str(text)) > 1

    return isolated
