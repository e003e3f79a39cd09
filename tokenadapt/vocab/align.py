"""Which old row each target token takes: the user's map, the same role, the same bytes, or none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from tokenadapt.errors import RequestError
from tokenadapt.vocab.index import ids_by_bytes
from tokenadapt.vocab.special import IDLE, match_special, role_order, roles_by_id
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Kind

_TEXT: Final = (Kind.ORDINARY, Kind.BYTE, Kind.ADDED)
_RESERVED: Final = re.compile(r"[<\[]\|?_*(unused|reserved|extra_id|placeholder|dummy)[\w-]*\|?[>\]]", re.IGNORECASE)


def align(
    source: ByteVocab,
    target: ByteVocab,
    *,
    maps: Mapping[int, tuple[int, ...]] | None = None,
    source_rows: int | None = None,
    target_rows: int | None = None,
) -> Alignment:
    """Give every target id an old row or the reason why it has none.

    Precedence: `maps` (target id -> old ids, see parse_maps; several ids are the pieces of a missing token), special
    role, equal bytes, missing. A special token never meets an ordinary one by its spelling; one without a counterpart
    is unused and noted by name. Old ids from `source_rows` on have no row and do not exist; target ids from the end of
    the vocabulary to `target_rows` are padding.
    """
    rows = len(target) if target_rows is None else target_rows
    old_rows = len(source) if source_rows is None else min(source_rows, len(source))
    if rows < len(target):
        raise RequestError(
            f"The target tokenizer has {len(target)} ids, more than the {rows} rows asked for.",
            "Ask for at least as many rows as ids.",
        )
    source_id, how, notes = [-1] * rows, [How.UNUSED] * rows, {}
    special = match_special(source, target, old_rows)
    by_bytes = ids_by_bytes(source, old_rows, _TEXT)
    copied, missing = How.COPIED, How.MISSING  # looked up once: enums are slow in long loops
    for index, data in enumerate(target.token_bytes):
        if index not in special and data:
            source_id[index] = old = by_bytes.get(data, -1)
            how[index] = missing if old < 0 else copied
    for index, old in special.items():
        source_id[index], how[index] = old, How.SPECIAL
    for index, note in _without_bytes(target, special).items():
        notes[index] = note
        how[index] = How.MISSING if target.kind[index] == Kind.UNKNOWN else How.UNUSED
    for index in _reserved(target):
        how[index] = How.UNUSED if how[index] == How.MISSING else how[index]
    pieces = _apply_maps(maps or {}, source_id, how, old_rows)
    notes = {index: note for index, note in notes.items() if how[index] in (How.UNUSED, How.MISSING)}
    texts = {text for text in source.text[:old_rows] if text is not None}
    return Alignment(
        source_id=np.array(source_id, dtype=np.int64),
        how=np.array(how, dtype=np.uint8),
        notes=notes | _shared(source, target, source_id, how),
        spelled_alike=sum(text in texts for text in target.text if text is not None),
        pieces=pieces,
        source_rows=old_rows,
    )


def _shared(source: ByteVocab, target: ByteVocab, source_id: list[int], how: list[How]) -> dict[int, str]:
    """Notes on control tokens that took one old row: the model cannot tell them apart."""
    takers: dict[int, list[int]] = {}
    for index, reason in enumerate(how):
        if reason == How.SPECIAL:
            takers.setdefault(source_id[index], []).append(index)
    notes: dict[int, str] = {}
    for old, group in takers.items():
        names = ", ".join(str(target.text[index]) for index in group)
        notes |= {index: f"{names} share the row of {source.text[old]}" for index in group if len(group) > 1}
    return notes


def _without_bytes(target: ByteVocab, special: Mapping[int, int]) -> dict[int, str]:
    """Notes on control tokens without a counterpart, and on tokens that cannot be read."""
    alone = np.flatnonzero(target.kind == Kind.SPECIAL).tolist()
    notes = {index: f"special token {target.text[index]} has no counterpart" for index in alone if index not in special}
    unknown = np.flatnonzero(target.kind == Kind.UNKNOWN).tolist()
    return notes | {index: f"the bytes of {target.text[index]!r} cannot be known" for index in unknown}


def _reserved(target: ByteVocab) -> list[int]:
    """Added tokens that are places for later use: no text reaches them."""
    added = np.flatnonzero(target.kind == Kind.ADDED).tolist()
    return [index for index in added if _RESERVED.fullmatch(target.text[index] or "")]


def _apply_maps(
    maps: Mapping[int, tuple[int, ...]], source_id: list[int], how: list[How], old_rows: int
) -> dict[int, tuple[int, ...]]:
    pieces = {}
    for index, old in maps.items():
        if any(piece >= old_rows for piece in old):
            raise RequestError(
                f"A map gives target id {index} the old ids {list(old)}, but the source table has {old_rows} rows.",
                "Map it to tokens that the source model has rows for.",
            )
        if len(old) == 1:
            source_id[index], how[index] = old[0], How.MAPPED
        else:
            source_id[index], how[index], pieces[index] = -1, How.MISSING, tuple(old)
    return pieces


def id_map(source: ByteVocab, target: ByteVocab, alignment: Alignment) -> dict[int, int]:
    """Old id -> target id that means the same, for ids in configurations: by role first, then by the row it gave.

    Where several target ids took one old row: a mapped or special one, else the one that the target tokenizer
    produces for these bytes, else the lowest.
    """
    produced = ids_by_bytes(target, len(target), _TEXT)
    means: dict[int, int] = {}
    taken = np.flatnonzero(alignment.source_id >= 0)
    strength = {How.SPECIAL: 0, How.MAPPED: 1}
    for index in sorted(taken.tolist(), key=lambda one: strength.get(How(int(alignment.how[one])), 2)):
        old = int(alignment.source_id[index])
        data = target.token_bytes[index] if alignment.how[index] == How.COPIED else None
        means.setdefault(old, index if data is None else produced.get(data, index))
    parts = roles_by_id(source)
    by_role: dict[int, int] = {}
    for role in sorted(set(source.roles) & set(target.roles), key=role_order):
        if role not in IDLE or parts[source.roles[role]] <= IDLE:
            by_role.setdefault(source.roles[role], target.roles[role])
    return means | by_role
