"""Pre-tokenisation by name: which text a token may never cross.

Words are what ordinary merges stay inside of; stretches are what supertokens stay inside of. A stretch ends at line
breaks, at digit groups and between ':' and ' ', and holds at most `STRETCH_LIMIT` characters (cut before a blank
where there is one), so that encoding is local and its cost bounded whatever the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer, normalizers, pre_tokenizers

from tokenadapt.errors import RequestError

State = dict[str, Any]  # a component as tokenizer.json writes it

STRETCH_LIMIT: Final = 256
_TAIL: Final = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER: Final = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDINGS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


@dataclass(frozen=True)
class Preset:
    """A published word regex with what it does to digits, in words."""

    pattern: str
    about: str


PRESETS: Final[Mapping[str, Preset]] = {
    "gpt2": Preset(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        "digit runs whole, with the blank before them; contractions in lower case only; line breaks with other blanks",
    ),
    "gpt4": Preset(
        _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        "digits in threes from the left; contractions in any case; one mark may begin a word; single line breaks",
    ),
    "llama3": Preset(
        _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL,
        "as gpt4, with runs of line breaks whole",
    ),
    "qwen2": Preset(
        _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL,
        "as llama3, every digit alone",
    ),
    "gpt4o": Preset(
        rf"{_UPPER}*{_LOWER}+{_ENDINGS}?|{_UPPER}+{_LOWER}*{_ENDINGS}?"
        + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
        + _TAIL,
        "camelCase cut, combining marks stay with their letter, contractions stay with their word, digits in threes",
    ),
}


def split_state(pattern: str, behavior: str = "Isolated") -> State:
    """A Split component on a regex."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def word_state(name_or_regex: str) -> State:
    """The component that cuts text into words; RequestError where a regex cannot be compiled."""
    pattern = PRESETS[name_or_regex].pattern if name_or_regex in PRESETS else name_or_regex
    if name_or_regex not in PRESETS and re.fullmatch(r"[\w-]*", name_or_regex):
        raise RequestError(
            f"There is no pre-tokenisation preset {name_or_regex!r}.",
            f"Use one of {', '.join(PRESETS)}, or give a regular expression.",
        )
    state = split_state(pattern)
    try:
        build(state)
    except Exception as error:  # the library raises its own bare exceptions
        raise RequestError(f"The pre-tokenisation regex {pattern!r} does not compile: {error}.") from error
    return state


def build(state: State | None) -> pre_tokenizers.PreTokenizer | None:
    """The pre-tokeniser that a state describes."""
    return _skeleton(pre_tokenizer=state).pre_tokenizer if state else None


def _skeleton(**parts: State | None) -> Tokenizer:
    """A tokenizer of nothing but the given parts: the only way from a state to a component."""
    empty: State = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    model: State = {"type": "BPE", "vocab": {}, "merges": []}
    whole: State = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], **empty, "model": model}
    return Tokenizer.from_str(json.dumps({**whole, **parts}))


def digit_pattern(words: State | None) -> str:
    """How a word pre-tokeniser groups digits, as a regex: learnt by trying it."""
    splitter = build(words)
    if splitter is None:
        return r"\p{N}+"
    pieces = [piece for piece, _ in splitter.pre_tokenize_str(" 1234567")]
    longest = max((sum(char.isdigit() for char in piece) for piece in pieces), default=7)
    lead = " ?" if any(re.fullmatch(r"[ Ġ]\d+", piece) for piece in pieces) else ""
    return lead + (r"\p{N}" if longest == 1 else r"\p{N}+" if longest >= 7 else rf"\p{{N}}{{1,{longest}}}")


def stretch_state(digits: str = r"\p{N}{1,3}", limit: int = STRETCH_LIMIT) -> State:
    """The component that cuts text into bounded stretches, with digits grouped as `digits` says."""
    lead = r"(?! \p{N})" if digits.startswith(" ?") else ""  # a blank that belongs to the digits after it
    inner = rf"(?:{lead}[^\r\n\p{{N}}:]|:(?! ))"
    ending = r"(?:(?<=[^\p{L}\p{N}])[\r\n]+)?"  # line breaks stay with a mark or a blank before them, as in words
    return split_state(
        rf"{digits}|[\r\n]+|{inner}{{0,{limit - 1}}}:(?= )"
        rf"|{inner}{{1,{limit}}}(?!{inner}){ending}|{inner}{{1,{limit}}}(?= )|{inner}{{1,{limit}}}"
    )


def build_normalizer(state: State | None) -> normalizers.Normalizer | None:
    """The normaliser that a state describes."""
    return _skeleton(normalizer=state).normalizer if state else None
