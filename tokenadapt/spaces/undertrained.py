"""Old tokens whose rows training hardly touched ("glitch tokens"): they mislead whoever takes them for neighbours.

Land and Bartolo 2024, "Fishing for Magikarp" (arXiv 2405.05417): rows that are never predicted are all pushed the
same way, so that an under-trained output row lies near the mean of rows known to be unused; and an input row that is
never read keeps the length it was born with, or decays.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.plan import Role, Table
from tokenadapt.vocab.types import ByteVocab, Ids, Kind

NEVER_IN_UTF8: Final = frozenset(bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100)))
LARGEST_SHARE: Final = 0.02  # the share of a vocabulary that the paper looks at
FEWEST_KNOWN: Final = 4  # unused rows needed for a mean that says anything


def known_unused(vocab: ByteVocab, rows: int) -> Ids:
    """Old ids that no text reaches: rows beyond the tokenizer, gaps, and tokens of bytes that UTF-8 never has."""
    kind = np.asarray(vocab.kind)
    never = [token is not None and token in NEVER_IN_UTF8 for token in vocab.token_bytes]
    inside = np.flatnonzero((kind == Kind.GAP) | np.array(never, dtype=bool))
    return np.concatenate((inside[inside < rows], np.arange(len(kind), rows))).astype(np.int64)


def undertrained(table: Table, vocab: ByteVocab, role: Role = "output") -> Ids:
    """Ordinary old ids with a row like those that no text reaches, ascending; at most 2% of the vocabulary.

    `role` output: cosine distance to the mean unused row, after the common direction of all rows is taken out;
    input: distance of the row's norm to the mean norm of unused rows. A token counts where its distance is no larger
    than the unused rows' own median. Empty where too few unused rows are known to compare with.
    """
    known = known_unused(vocab, table.shape[0])
    if len(known) < FEWEST_KNOWN:
        return np.zeros(0, dtype=np.int64)
    distance = indicator(table, known, role)
    ordinary = np.flatnonzero(np.asarray(vocab.kind)[: table.shape[0]] == Kind.ORDINARY)
    ordinary = np.setdiff1d(ordinary, known)
    close = ordinary[distance[ordinary] <= np.median(distance[known])]
    most = int(LARGEST_SHARE * len(ordinary))
    order = np.argsort(distance[close], kind="stable")[:most]
    return np.sort(np.concatenate((close[order], np.intersect1d(known, np.arange(len(vocab))))))


def indicator(table: Table, known: Ids, role: Role) -> NDArray[np.float64]:
    """How far each row is from the mean of `known` unused rows: (V,). Small is suspicious."""
    rows = table.rows(np.arange(table.shape[0])).float()
    if role == "input":
        norm = rows.norm(dim=1).double().numpy()
        return np.asarray(np.abs(norm - norm[known].mean()))
    rows = rows - rows.mean(dim=0)
    mean = rows[torch.from_numpy(known)].mean(dim=0)
    scale = rows.norm(dim=1).clamp_min(1e-12) * mean.norm().clamp_min(1e-12)
    return np.asarray((1 - (rows @ mean) / scale).double().numpy())
