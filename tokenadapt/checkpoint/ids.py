"""All ids of a checkpoint tell one story: every id in its configuration is translated by meaning, or removed.

A generation that never stops, or starts with the wrong token, is the classic failure of a transplant; it comes from
one stale id in one of two files (design: a removed key is not gone where its class has a default, so it is null).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenadapt.checkpoint.id_keys import NO_ID, SIZES, TEXT, Names, defaults, names, nothing, tie_default
from tokenadapt.checkpoint.id_values import Found, Respell, Target, flat, role_value, translated
from tokenadapt.vocab.types import ByteVocab

CONFIG, GENERATION = "config.json", "generation_config.json"


@dataclass(frozen=True)
class Change:
    """One value that differs from the source's."""

    file: str
    key: str
    old: Any
    new: Any
    note: str = ""
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.file} {self.key}: {self.old} -> {self.new}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class Translated:
    """The two configurations as they are to be written, and what changed."""

    config: dict[str, Any]
    generation_config: dict[str, Any] | None
    changes: tuple[Change, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user must hear of."""
        return tuple(str(change) for change in self.changes if change.warning)


@dataclass
class _Scope:
    """One configuration file while it is gone through."""

    file: str
    target: Target
    changes: list[Change] = field(default_factory=list)

    def changed(self, key: str, old: Any, new: Any, note: str = "", warning: bool = False) -> None:
        if old != new or type(old) is not type(new):
            self.changes.append(Change(self.file, key, old, new, note, warning))


def translate_config(
    config: Mapping[str, Any],
    generation: Mapping[str, Any] | None,
    translate: Mapping[int, int],
    roles: Mapping[str, int],
    *,
    rows: int,
    tied: bool | None = None,
    chat_end: int | None = None,
    respell: Respell | None = None,
) -> Translated:
    """Both configurations with every id of the target tokenizer.

    `translate` maps old ids to new ones, `roles` names the target's own special ids, `rows` is the new table's height,
    `tied` says whether one table serves both roles (None: what the source says stays), `chat_end` is the token that
    ends a turn of the chat template. `respell` (see `respeller`) turns old ids that spell a text together into new
    ones; without it such sequences go id by id.
    """
    target = Target(translate, roles, rows, tied, chat_end, respell)
    scope = _Scope(CONFIG, target)
    new_config = copy.deepcopy(dict(config))
    if new_config.pop("tokenizer_class", None) is not None:
        scope.changed("tokenizer_class", config["tokenizer_class"], None, "the tokenizer's files say it")
    new_config = _block(scope, new_config, "", main=True)
    if not any(size in place for place in _places(new_config) for size in SIZES):
        new_config["vocab_size"] = rows
        scope.changed("vocab_size", None, rows)
    _tie(scope, new_config)
    new_generation = None
    if generation is not None:
        inner = _Scope(GENERATION, target, scope.changes)
        new_generation = _block(inner, copy.deepcopy(dict(generation)), "", main=True)
    _must_stop(scope, new_config, new_generation)
    return Translated(new_config, new_generation, tuple(scope.changes))


def respeller(source: ByteVocab, target: ByteVocab, translate: Mapping[int, int]) -> Respell:
    """A function from old ids that spell a text to the new ids that the target tokenizer would use for it."""

    def respell(old: Sequence[int]) -> list[int] | None:
        new: list[int] = []
        text = b""
        for token in [*old, None]:
            known = token is not None and 0 <= token < len(source)
            spelled = source.token_bytes[token] if known and token is not None else None
            if spelled is not None:
                text += spelled
                continue
            ids = target.spell([text])[0] if text else []
            if ids is None:
                return None
            new += ids
            text = b""
            if token is not None:
                if token not in translate:
                    return None
                new.append(translate[token])
        return new

    return respell


def stale_ids(config: Mapping[str, Any], rows: int, file: str = CONFIG) -> Iterator[str]:
    """One line per id named in a configuration that is outside a table of `rows` rows, or size that is not `rows`."""
    for key, value in config.items():
        kind = names(key, value)
        if kind is Names.BLOCK:
            yield from (f"{line} in {key}" for line in stale_ids(value, rows, file))
        elif key in SIZES and isinstance(value, int) and value != rows:
            yield f"{file} {key} is {value}, the table has {rows} rows"
        elif kind not in (Names.NOTHING, Names.STEPS, Names.BIAS):
            outside = [token for token in flat(value) if token >= rows or token < NO_ID]
            if outside:
                yield f"{file} {key} names {outside[:3]}, the table has {rows} rows"


def end_ids(config: Mapping[str, Any] | None) -> tuple[int, ...]:
    """The ids at which generation stops, by this configuration; nested text configurations count."""
    if config is None:
        return ()
    found = [token for place in _places(config) for token in flat(place.get("eos_token_id")) if token >= 0]
    return tuple(dict.fromkeys(found))


def _places(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    nested = [config[key] for key in TEXT if isinstance(config.get(key), dict)]
    return [config, *(place for inner in nested for place in _places(inner))]


def _block(scope: _Scope, block: dict[str, Any], path: str, main: bool) -> dict[str, Any]:
    """One configuration with its nested text configurations; `main`: eos belongs here even where it is not named."""
    filled = defaults(block) if scope.file == CONFIG else {}
    old = {**filled, **block}
    out = dict(block)
    for key, value in old.items():
        kind, name = names(key, value), f"{path}{key}"
        if key in SIZES and (main or path) and isinstance(value, int):
            out[key] = scope.target.rows
            scope.changed(name, block.get(key), scope.target.rows)
        elif kind is Names.BLOCK:
            out[key] = _block(scope, value, f"{name}.", main=False)
        elif kind is Names.ROLE:
            written = value if key in block else None
            out[key] = new = role_value(scope.target, key, written, old)
            lost = written is not None and written != NO_ID and new is None
            scope.changed(name, written, new, "the target tokenizer has no such token" if lost else "", lost)
        elif kind is not Names.NOTHING and value is not None:
            _replace(scope, out, key, Found(kind, value, name, old))
    return _add_roles(scope, out, path, main)


def _add_roles(scope: _Scope, out: dict[str, Any], path: str, main: bool) -> dict[str, Any]:
    """Name what the target has and the source did not: its end of text, always; pad and bos in the configuration."""
    if not main or any(isinstance(out.get(key), dict) and "eos_token_id" in out[key] for key in TEXT):
        return out
    wanted = ("eos", "bos", "pad") if scope.file == CONFIG else ("eos",)
    for role in wanted:
        key = f"{role}_token_id"
        if key not in out and (new := role_value(scope.target, key, None, out)) is not None:
            out[key] = new
            scope.changed(f"{path}{key}", None, new)
    return out


def _replace(scope: _Scope, out: dict[str, Any], key: str, found: Found) -> None:
    """Translate a value that is no role; what cannot be translated goes, and a warning says so."""
    new, lost = translated(scope.target, found)
    note = f"no token of the target means {lost}" if lost else ""
    if new is not None:
        out[key] = new
    elif scope.file == GENERATION:
        out.pop(key, None)
    else:
        out[key] = new = nothing(dict(found.block), key)
    scope.changed(found.name, found.value, new, note, bool(lost))


def _tie(scope: _Scope, config: dict[str, Any]) -> None:
    """State whether one table serves both roles, where what stands there or its default says otherwise.

    A flag that is right stays as it is, and so does that of an encoder-decoder: T5 reads it as a scale of its output.
    """
    tied, key = scope.target.tied, "tie_word_embeddings"
    if tied is None or config.get("is_encoder_decoder"):
        return
    places = [place for place in _places(config) if isinstance(place, dict)]
    said = [place[key] for place in places if key in place] or [tie_default(config)]
    if all(bool(one) == tied for one in said):
        return
    for index, place in enumerate(places):
        if index == 0 or key in place:
            scope.changed(key, place.get(key), tied)
            place[key] = tied


def _must_stop(scope: _Scope, config: dict[str, Any], generation: dict[str, Any] | None) -> None:
    if not end_ids(config) and not end_ids(generation):
        note = "no token ends a text: generation runs to its length limit"
        scope.changes.append(Change(CONFIG, "eos_token_id", None, None, note, warning=True))
