from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tokenadapt.plan import MemoryTable
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Kind, Segmentation


def greedy(tokens):
    """Cut bytes into the longest tokens first."""
    ids = {token: number for number, token in reversed(list(enumerate(tokens))) if token is not None}
    longest = max(map(len, ids), default=0)

    def spell_one(text):
        out, at = [], 0
        while at < len(text):
            for size in range(min(longest, len(text) - at), 0, -1):
                if text[at : at + size] in ids:
                    out.append(ids[text[at : at + size]])
                    at += size
                    break
            else:
                return None
        return out

    return spell_one


def make_vocab(tokens, kinds=None):
    """A vocabulary of byte strings; None is a special token."""
    spell = greedy(tokens)
    kind = kinds or [Kind.SPECIAL if token is None else Kind.ORDINARY for token in tokens]
    return ByteVocab(
        token_bytes=tuple(tokens),
        kind=np.array(kind, dtype=np.uint8),
        text=tuple(None if token is None else token.decode("latin-1") for token in tokens),
        roles={},
        encode=lambda texts: [spell(text.encode()) or [] for text in texts],
        spell=lambda texts: [spell(text) for text in texts],
    )


def make_setting(old, new, table=None, kinds=None):
    """What open_space needs, for byte vocabularies `old` and `new`: tokens of equal bytes are copied."""
    source, target = make_vocab(old, kinds), make_vocab(new)
    where = {token: number for number, token in enumerate(old) if token is not None}
    source_id = np.array([where.get(token, -1) for token in new], dtype=np.int64)
    how = np.where(source_id >= 0, How.COPIED, How.MISSING).astype(np.uint8)
    how[[token is None for token in new]] = How.UNUSED
    source_id[[token is None for token in new]] = -1
    missing = [new[i] for i in np.flatnonzero(how == How.MISSING)]
    cut = [run or [] for run in source.spell(missing)]
    start = np.concatenate(([0], np.cumsum([len(run) for run in cut]))).astype(np.int64)
    piece = np.array([p for run in cut for p in run], dtype=np.int64)
    length = np.array([len(old[p]) for p in piece], dtype=np.int64)
    if table is None:
        table = torch.randn(len(old), 8, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(
        source=source,
        target=target,
        alignment=Alignment(source_id, how),
        segmentation=Segmentation(start, piece, length, np.array([len(token) for token in missing], dtype=np.int64)),
        table=MemoryTable(table),
    )


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    """An empty cache folder that the program will take."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TOKENADAPT_CACHE", str(folder))
    return folder
