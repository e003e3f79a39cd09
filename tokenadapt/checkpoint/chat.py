"""Which chat template the result gets, and whether the target vocabulary can say it.

A template's markers must each be one token: `<|im_start|>` in seven pieces is no marker to a model that learnt one row
for it.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenadapt.vocab.load import LoadedTokenizer

SYSTEM, USER, ASSISTANT = "tokenadapt-system", "tokenadapt-user", "tokenadapt-assistant"
_SAMPLES: Final = (
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user"),
    ("user", "assistant"),
    ("user",),
)
_TEXT: Final = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


@dataclass(frozen=True)
class Chosen:
    """The template of the result, and a line that says why. `untaught` are markers that the model never saw."""

    template: str | dict[str, str] | None
    reason: str
    untaught: tuple[str, ...] = ()
    split: tuple[str, ...] = ()  # markers that stood in the way: the target vocabulary cuts them


def choose_template(source: LoadedTokenizer, target: LoadedTokenizer) -> Chosen:
    """The target's own template; else the source's where each of its markers is one token of the target; else none."""
    own, theirs = target.fast.chat_template, source.fast.chat_template
    if own and own != theirs:
        untaught = tuple(mark for mark in markers(target, own) if single(source, mark) is None)
        reason = "the target tokenizer's own chat template"
        if untaught:
            reason += f"; the source model never saw its markers {', '.join(untaught)}"
        return Chosen(own, reason, untaught=untaught)
    if not theirs:
        return Chosen(None, "no chat template: neither tokenizer has one")
    cut = tuple(mark for mark in markers(source, theirs) if single(target, mark) is None)
    if cut:
        reason = (
            f"no chat template: the target vocabulary splits the source's markers {', '.join(cut)}; "
            "--carry-chat adds them"
        )
        return Chosen(None, reason, split=cut)
    return Chosen(theirs, "the source's chat template: each of its markers is one token of the target")


def carry_chat(target: LoadedTokenizer, source: LoadedTokenizer) -> tuple[LoadedTokenizer, tuple[str, ...]]:
    """The target tokenizer with the source's chat markers as special tokens, and its template; and what was added.

    New ids follow the last one, so that no id of the target moves. Alignment gives them the source's rows by name.
    """
    from tokenizers import AddedToken

    theirs = source.fast.chat_template
    if not theirs:
        return target, ()
    added = tuple(mark for mark in markers(source, theirs) if single(target, mark) is None)
    fast = copy.deepcopy(target.fast)
    fast.chat_template = theirs
    tokens = [AddedToken(mark, special=True, normalized=False) for mark in added]
    fast.backend_tokenizer.add_special_tokens(tokens)
    return dataclasses.replace(target, fast=fast), added


def markers(tokenizer: LoadedTokenizer, template: str | dict[str, str]) -> tuple[str, ...]:
    """The added tokens of `tokenizer` that its template writes into conversations, in order of first use.

    Tokens that the template takes from the tokenizer's roles (`bos_token`, `eos_token`) follow the tokenizer and are
    no markers of the template's own.
    """
    added = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values() if token.content.strip()]
    if not added:
        return ()
    pattern = re.compile("|".join(re.escape(token) for token in sorted(added, key=lambda text: (-len(text), text))))
    found = [mark for text in _rendered(tokenizer, template) for mark in pattern.findall(text)]
    return tuple(dict.fromkeys(found))


def single(tokenizer: LoadedTokenizer, marker: str) -> int | None:
    """The id of `marker` where the tokenizer reads it as one token, else None."""
    number: int | None = tokenizer.backend.token_to_id(marker)
    if number is None or tokenizer.backend.encode(marker, add_special_tokens=False).ids != [number]:
        return None
    return number


def turn_end(tokenizer: LoadedTokenizer, template: str | dict[str, str] | None) -> int | None:
    """The id of the special token that closes an assistant's turn in `template`; None where none does."""
    if not template:
        return None
    special = {
        token.content: number
        for number, token in tokenizer.backend.get_added_tokens_decoder().items()
        if token.special
    }  # fmt: skip
    text = _render(tokenizer, _main(template), ("user", "assistant"), roles=True) or ""
    tail = text.rpartition(ASSISTANT)[2]
    closing = sorted((tail.index(token), -len(token), number) for token, number in special.items() if token in tail)
    return closing[0][2] if closing else None


def _main(template: str | dict[str, str]) -> str:
    if isinstance(template, str):
        return template
    return template.get("default") or next(iter(template.values()))


def _rendered(tokenizer: LoadedTokenizer, template: str | dict[str, str]) -> list[str]:
    texts = [_render(tokenizer, _main(template), sample, roles=False) for sample in _SAMPLES]
    return [text for text in texts if text is not None]


def _render(tokenizer: LoadedTokenizer, template: str, sample: Sequence[str], *, roles: bool) -> str | None:
    """The sample conversation in the template's words; None where the template refuses such a conversation."""
    messages = [{"role": role, "content": _TEXT[role]} for role in sample]
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    values: dict[str, Any] = {name: (getattr(tokenizer.fast, name) or "") if roles else "" for name in names}
    try:
        compiled = _compile(template)
        text: str = compiled.render(messages=messages, add_generation_prompt=sample[-1] == "user", **values)
    except Exception:  # templates raise on roles or orders that they do not know
        return None
    return text


def _compile(template: str) -> Any:
    """As transformers compiles it: the sandbox, its white space rules, and the helpers that templates use."""
    from datetime import datetime, timezone
    from json import dumps

    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime(2026, 1, 1, tzinfo=timezone.utc).strftime(form)
    return environment.from_string(template)
