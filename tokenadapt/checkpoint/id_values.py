"""One value of a configuration at a time: what it named among the old ids, in new ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenadapt.checkpoint.id_keys import NO_ID, ROLES, Names

Respell = Callable[[Sequence[int]], "list[int] | None"]


@dataclass(frozen=True)
class Target:
    """What ids are translated into."""

    translate: Mapping[int, int]
    roles: Mapping[str, int]
    rows: int
    tied: bool | None
    chat_end: int | None
    respell: Respell | None

    def of(self, old: Any) -> int | None:
        """The new id that means what `old` meant."""
        new = self.translate.get(old) if isinstance(old, int) and not isinstance(old, bool) else None
        return new if new is not None and 0 <= new < self.rows else None

    def role(self, role: str) -> int | None:
        """The target tokenizer's own id of a role."""
        new = self.roles.get(role)
        return new if new is not None and 0 <= new < self.rows else None

    def sequence(self, old: Sequence[Any]) -> list[int] | None:
        """The new ids of a text that old ids spelled together."""
        if self.respell is not None:
            return self.respell(old)
        new = [self.of(token) for token in old]
        return None if None in new else [token for token in new if token is not None]


@dataclass(frozen=True)
class Found:
    """A value that names tokens, where it was found."""

    kind: Names
    value: Any
    name: str
    block: Mapping[str, Any]


def flat(value: Any) -> Iterator[int]:
    """All ids inside nested lists and dictionaries, in order."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from flat(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from flat(inner)


def role_value(target: Target, key: str, value: Any, block: Mapping[str, Any]) -> Any:
    """The new id of a role: the target's own, else what the old id meant; for eos every meaning, own first."""
    role = ROLES[key]
    own = target.role(role)
    if role == "eos":
        ends = [
            own if own is not None else target.role("text:end"),
            *(target.of(token) for token in flat(value)),
            target.chat_end,
        ]
        unique = list(dict.fromkeys(token for token in ends if token is not None))
        return unique[0] if len(unique) == 1 else unique or None
    if own is not None:
        return own
    if role == "pad" and value is not None and value in list(flat(block.get("eos_token_id"))):
        ends = role_value(target, "eos_token_id", block.get("eos_token_id"), block)
        return ends[0] if isinstance(ends, list) else ends
    meant = [target.of(token) for token in flat(value)]
    return next((token for token in meant if token is not None), None)


def translated(target: Target, found: Found) -> tuple[Any, list[Any]]:
    """The new value, None where nothing is left, and what was lost."""
    value = found.value
    if found.kind is Names.IDS and isinstance(value, int):
        if value == NO_ID:
            return NO_ID, []
        new = target.of(value)
        if new is None:  # by identity: decoder_start is often the pad or the eos token
            same = (k for k, r in ROLES.items() if found.block.get(k) == value and target.role(r) is not None)
            new = target.role(ROLES[k]) if (k := next(same, None)) else None
        return new, [] if new is not None else [value]
    pairs: list[tuple[Any, Any]]
    if found.kind is Names.IDS:
        pairs = [(old, target.of(old)) for old in flat(value)]
    elif found.kind is Names.STEPS:
        pairs = [(old, None if (new := target.of(old[1])) is None else [old[0], new]) for old in value]
    elif found.kind is Names.SEQUENCES:
        pairs = [(old, _sequences(target, old)) for old in value]
    elif found.kind is Names.BIAS:
        pairs = [(old, _bias(target, old)) for old in (value.items() if isinstance(value, dict) else value)]
    else:
        by_name = {name: target.of(old) for name, old in value.items()}
        kept = {name: new for name, new in by_name.items() if new is not None}
        return kept or None, [value[name] for name in by_name if name not in kept]
    new_values = [new for _, new in pairs if new is not None]
    return new_values or None, [old for old, new in pairs if new is None]


def _sequences(target: Target, old: Any) -> Any:
    """A list of ids, or (alternatives in `force_words_ids`) a list of such lists."""
    if old and all(isinstance(inner, list) for inner in old):
        inner = [target.sequence(sequence) for sequence in old]
        return None if any(sequence is None for sequence in inner) else inner
    return target.sequence(list(flat(old)))


def _bias(target: Target, old: Any) -> Any:
    ids, bias = old
    if isinstance(ids, str):  # JSON has no tuples as keys: "(1, 2)"
        ids = [int(token) for token in ids.strip("()[] ").split(",") if token.strip()]
    new = target.sequence(list(flat(ids)))
    return None if new is None else [new, bias]
