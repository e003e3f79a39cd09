"""Which id plays which part: begin, end, padding, and the markers of chats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

NAMED: Final = ("bos", "eos", "unk", "mask", "sep", "cls", "pad")  # what tokenizers name themselves

# Control tokens that mean the same under other names. Only names that are used for nothing else.
CONVENTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "text:start": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>"),
    "text:end": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>"),
    "chat:start": ("<|im_start|>", "<start_of_turn>", "<|start_header_id|>", "<|turn>"),
    "chat:header-end": ("<|end_header_id|>", "<|im_sep|>", "<|message|>"),
    "chat:end": ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<turn|>"),
    "chat:user": ("[INST]", "<|user|>", "<｜User｜>"),
    "chat:user-end": ("[/INST]",),
    "chat:assistant": ("<|assistant|>", "<｜Assistant｜>"),
    "chat:system": ("<|system|>", "[SYSTEM_PROMPT]"),
    "fim:prefix": ("<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "<｜fim▁begin｜>", "<|PRE|>", "[PREFIX]"),
    "fim:middle": ("<|fim_middle|>", "<fim_middle>", "<fim-middle>", "<｜fim▁end｜>", "<|MID|>", "[MIDDLE]"),
    "fim:suffix": ("<|fim_suffix|>", "<fim_suffix>", "<fim-suffix>", "<｜fim▁hole｜>", "<|SUF|>", "[SUFFIX]"),
}


def read_roles(named: Mapping[str, int | None], special: Mapping[str, int], added: Mapping[str, int]) -> dict[str, int]:
    """Role -> id: what the tokenizer itself names (`named`), and the control tokens that everyone knows.

    special, added: spelling -> id. An ordinary token never gets a role by its name, nor does an added token that is
    matched in text get to begin or end it: `<s>` among HTML tags is a tag.
    """
    roles = {role: named[role] for role in NAMED if named.get(role) is not None}
    control = {**added, **special}
    found = {
        role: _first(names, special if role.startswith("text:") else control) for role, names in CONVENTIONS.items()
    }
    return {role: index for role, index in (roles | found).items() if index is not None}


def named_ids(tokenizer: Any) -> dict[str, int | None]:
    """The ids that a transformers tokenizer names, as far as its vocabulary holds them."""
    return {role: _one(getattr(tokenizer, f"{role}_token_id", None)) for role in NAMED}


def _one(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _first(names: Iterable[str], control: Mapping[str, int]) -> int | None:
    return next((control[name] for name in names if name in control), None)
