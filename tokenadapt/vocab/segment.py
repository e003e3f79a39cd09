"""Missing tokens cut into the old tokens that the source model would have read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenadapt.vocab.index import ids_by_bytes
from tokenadapt.vocab.types import Alignment, ByteVocab, Ids, Kind, Segmentation


def segment(source: ByteVocab, target: ByteVocab, alignment: Alignment) -> Segmentation:
    """The pieces of every missing token: the source's own cut, else the fewest old tokens, longest first among equals.

    Special and added old tokens and ids without a row are no pieces. A token that no old tokens can spell, or whose
    bytes are unknown, has an empty run. Pieces that the user gave (`alignment.pieces`) stand as they are. Lengths are
    in code points; in bytes for the whole token where a piece is not valid UTF-8.
    """
    missing = alignment.missing.tolist()
    rows = len(source) if alignment.source_rows is None else alignment.source_rows
    strings = [target.token_bytes[index] or b"" for index in missing]
    cut = source.spell(strings) if strings else []
    runs = [ids if ids is not None and max(ids, default=0) < rows else None for ids in cut]
    fewest = Fewest(ids_by_bytes(source, rows, (Kind.ORDINARY, Kind.BYTE)))
    chosen = [fewest.cut(data) if run is None else run for data, run in zip(strings, runs, strict=True)]
    for position, index in enumerate(missing):
        if index in alignment.pieces:
            chosen[position] = list(alignment.pieces[index])
    return measured(source, strings, chosen)


class Fewest:
    """Byte strings cut into as few tokens as possible."""

    def __init__(self, ids: dict[bytes, int]) -> None:
        self.ids = ids
        self.longest = max(map(len, ids), default=0)

    def cut(self, data: bytes) -> list[int]:
        """Ids whose bytes join to `data`: the fewest, longest first among equals; empty where impossible."""
        size = len(data)
        unreachable = size + 1
        fewest = [unreachable] * size + [0]  # tokens from here to the end
        for start in range(size - 1, -1, -1):
            for end in range(start + 1, min(size, start + self.longest) + 1):
                if fewest[end] + 1 < fewest[start] and data[start:end] in self.ids:
                    fewest[start] = fewest[end] + 1
        pieces: list[int] = []
        start = 0
        while start < size and fewest[0] < unreachable:
            for end in range(min(size, start + self.longest), start, -1):
                if fewest[end] == fewest[start] - 1 and data[start:end] in self.ids:
                    pieces.append(self.ids[data[start:end]])
                    start = end
                    break
        return pieces


def measured(source: ByteVocab, strings: list[bytes], runs: list[list[int]]) -> Segmentation:
    """Given runs of old ids, with their lengths; `strings` are the tokens' own bytes, for runs that are empty."""
    start: Ids = np.concatenate([[0], np.cumsum([len(run) for run in runs], dtype=np.int64)]).astype(np.int64)
    piece: Ids = np.array([index for run in runs for index in run], dtype=np.int64)
    used = np.unique(piece)
    characters, size = np.zeros(len(source), dtype=np.int64), np.zeros(len(source), dtype=np.int64)
    for index in used.tolist():
        data = source.token_bytes[index] or b""
        characters[index], size[index] = _characters(data), len(data)
    owner = np.repeat(np.arange(len(runs)), np.diff(start))
    in_bytes = np.zeros(len(runs), dtype=bool)
    np.logical_or.at(in_bytes, owner, characters[piece] < 0)
    length: NDArray[np.int64] = np.where(in_bytes[owner], size[piece], characters[piece])
    token_length = np.bincount(owner, weights=length, minlength=len(runs)).astype(np.int64)
    for position in np.flatnonzero(np.diff(start) == 0).tolist():
        count = _characters(strings[position])
        token_length[position] = len(strings[position]) if count < 0 else count
    return Segmentation(start=start, piece=piece, length=length, token_length=token_length)


def _characters(data: bytes) -> int:
    """Code points; -1 where the bytes are no text."""
    try:
        return len(data.decode("utf-8"))
    except UnicodeDecodeError:
        return -1
