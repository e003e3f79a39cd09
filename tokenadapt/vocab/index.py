"""From bytes to the one id that stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenadapt.vocab.types import ByteVocab, Kind

_RANK: Final = {Kind.ORDINARY: 0, Kind.BYTE: 1, Kind.ADDED: 2}


def ids_by_bytes(vocab: ByteVocab, rows: int, kinds: Sequence[Kind]) -> dict[bytes, int]:
    """Bytes -> id among the ids below `rows` of these kinds.

    Where several ids spell the same bytes: the one that the tokenizer itself produces for them, else ordinary before
    byte token before added, else the lowest.
    """
    wanted, kind = set(map(int, kinds)), vocab.kind.tolist()
    first: dict[bytes, int] = {}
    rivals: dict[bytes, list[int]] = {}
    for index, data in enumerate(vocab.token_bytes[:rows]):
        if data and kind[index] in wanted and first.setdefault(data, index) != index:
            rivals.setdefault(data, [first[data]]).append(index)
    for data, produced in zip(rivals, _produced(vocab, list(rivals)), strict=True):
        among = [index for index in produced if index in rivals[data]]
        best = sorted(rivals[data], key=lambda index: (_RANK[Kind(kind[index])], index))
        first[data] = (among or best)[0]
    return first


def _produced(vocab: ByteVocab, strings: list[bytes]) -> list[list[int]]:
    """For each string the single ids that users' encoding and the bare model give it, in this order."""
    texts = {}
    for data in strings:
        try:
            texts[data] = data.decode("utf-8")
        except UnicodeDecodeError:
            continue
    encoded = dict(zip(texts, vocab.encode(list(texts.values())), strict=True)) if texts else {}
    spelled = vocab.spell(strings) if strings else []
    both = [(encoded.get(data), ids) for data, ids in zip(strings, spelled, strict=True)]
    return [[ids[0] for ids in pair if ids is not None and len(ids) == 1] for pair in both]
