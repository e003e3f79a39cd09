"""Which control tokens of two vocabularies play the same part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tokenadapt.vocab.types import ByteVocab, Kind

# A token of several roles takes the row of the first; the last two are often names without a function.
ROLE_ORDER: Final = ("eos", "bos", "mask", "sep", "cls", "chat", "text", "fim", "unk", "pad")
_FUNCTION: Final = {"eos", "bos", "mask", "sep", "cls"}
_ENDS: Final = {"eos", "chat:end", "text:end"}
IDLE: Final = {"unk", "pad"}


def match_special(source: ByteVocab, target: ByteVocab, old_rows: int) -> dict[int, int]:
    """Target id -> old id of control tokens that play the same part, or bear the same name in no other part.

    A token of several parts prefers the old token of its own name among those that share a part, then the part that
    comes first in ROLE_ORDER. Two rules keep the odds of what comes next as they were: an old token that ends a text is
    the row of one end token only, and `unk` and `pad` take no old row that plays another part, since they would be
    sampled in its place.
    """
    found: dict[int, int] = {}
    wanted, parts = roles_by_id(target), roles_by_id(source)
    old_roles = {role: index for role, index in source.roles.items() if index < old_rows}
    ended: set[int] = set()
    for role in sorted(set(target.roles) & set(old_roles), key=role_order):
        index, old = target.roles[role], old_roles[role]
        if index in found or (role in IDLE and not parts[old] <= IDLE):
            continue
        shared = {old_roles[other] for other in wanted[index] if other in old_roles}
        chosen = next((one for one in shared if source.text[one] == target.text[index]), old)
        if wanted[index] & _ENDS:
            if chosen in ended:
                continue
            ended.add(chosen)
        found[index] = chosen
    return found | _same_name(source, target, found, old_rows)


def _same_name(source: ByteVocab, target: ByteVocab, found: Mapping[int, int], old_rows: int) -> dict[int, int]:
    control = np.flatnonzero(np.isin(source.kind[:old_rows], (Kind.SPECIAL, Kind.ADDED))).tolist()
    named = {source.text[index]: index for index in reversed(control)}
    parts, old_parts = roles_by_id(target), roles_by_id(source)
    taken = set(found.values())
    same = {}
    for index in np.flatnonzero(np.isin(target.kind, (Kind.SPECIAL, Kind.ADDED))).tolist():
        old = named.get(target.text[index], -1)
        if index in found or old < 0 or old in taken or Kind.SPECIAL not in (target.kind[index], source.kind[old]):
            continue
        ours, theirs = _FUNCTION & parts.get(index, set()), _FUNCTION & old_parts.get(old, set())
        if not (ours and theirs and not ours & theirs):
            same[index] = old
    return same


def roles_by_id(vocab: ByteVocab) -> dict[int, set[str]]:
    """All roles of each id that has one."""
    roles: dict[int, set[str]] = {}
    for role, index in vocab.roles.items():
        roles.setdefault(index, set()).add(role)
    return roles


def role_order(role: str) -> tuple[int, str]:
    """Sort key: the parts whose rows matter most come first."""
    return ROLE_ORDER.index(role.split(":")[0]), role
