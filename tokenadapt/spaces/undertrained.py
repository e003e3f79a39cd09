"""Old tokens whose rows training hardly touched ("glitch tokens"): they mislead whoever takes them for neighbours.

Land and Bartolo 2024, "Fishing for Magikarp" (arXiv 2405.05417): every step pushes the output rows of tokens that
never come the same way, so that they end up in one direction, near the mean of rows known to be unused. The distance
to that mean is their indicator. Taken about the mean of all rows, it also finds input rows that decay left near zero.
The paper prompts the model with the 2% of lowest distance to confirm; here a token must lie as near as the known
unused rows themselves, and those must agree among themselves: rows that were never moved from a random start share no
direction, and then nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.plan import Table, rows_at_once
from tokenadapt.vocab.types import ByteVocab, Ids, Kind

NEVER_IN_UTF8: Final = frozenset(bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100)))
FEWEST_KNOWN: Final = 4  # unused rows needed for a mean that says anything
ALIKE: Final = 0.99  # cosine, about the mean, at which special tokens' rows were left where the gradient drove all
LARGEST_DISTANCE: Final = 0.25  # of known unused rows from their mean
ROUNDING: Final = 1e-5  # rows that never differed in a bit come out this near


def undertrained(table: Table, vocab: ByteVocab) -> Ids:
    """Ordinary and byte tokens with a row like those that no text reaches, ascending.

    `table` is the output table, or the one of a tied model; it is read in blocks, three times at most.
    """
    total = torch.zeros(table.shape[1], dtype=torch.float64)
    for block in _blocks(table, np.arange(table.shape[0])):
        total += block.sum(dim=0, dtype=torch.float64)
    mean = (total / max(1, table.shape[0])).float()
    known = known_unused(table, mean, vocab)
    if len(known) < FEWEST_KNOWN:
        return np.zeros(0, dtype=np.int64)
    distance = indicator(table, mean, known)
    limit = float(np.quantile(distance[known], 0.9)) + ROUNDING
    if limit > LARGEST_DISTANCE:
        return np.zeros(0, dtype=np.int64)
    kind = np.asarray(vocab.kind)[: table.shape[0]]
    read = np.flatnonzero((kind == Kind.ORDINARY) | (kind == Kind.BYTE))
    return read[(distance[read] <= limit) | np.isin(read, known)]


def known_unused(table: Table, mean: torch.Tensor, vocab: ByteVocab) -> Ids:
    """Old ids that no text reaches, ascending; rows are taken about `mean` (D,).

    Rows beyond the tokenizer, gaps, tokens of bytes that UTF-8 never has, and special tokens of which several have
    one and the same direction: reserved ones that no text ever held.
    """
    count = table.shape[0]
    kind = np.asarray(vocab.kind)[:count]
    never = np.array([token is not None and token in NEVER_IN_UTF8 for token in vocab.token_bytes[:count]], dtype=bool)
    special = np.flatnonzero(kind == Kind.SPECIAL)
    unit = torch.nn.functional.normalize(table.rows(special).float() - mean, dim=1)
    twins = ((unit @ unit.T) > ALIKE).sum(dim=1).numpy() >= FEWEST_KNOWN  # itself included
    inside = np.flatnonzero((kind == Kind.GAP) | never)
    return np.unique(np.concatenate((inside, special[twins], np.arange(len(kind), count)))).astype(np.int64)


def indicator(table: Table, mean: torch.Tensor, known: Ids) -> NDArray[np.float64]:
    """Cosine distance of rows about `mean` to the mean of the known unused ones: (V,). Small is suspicious."""
    total = torch.zeros(table.shape[1], dtype=torch.float64)
    for block in _blocks(table, known):
        total += (block - mean).sum(dim=0, dtype=torch.float64)
    centre = (total / len(known)).float()
    found = []
    for block in _blocks(table, np.arange(table.shape[0])):
        rows = block - mean
        scale = rows.norm(dim=1).clamp_min(1e-12) * centre.norm().clamp_min(1e-12)
        found.append((1 - (rows @ centre) / scale).double().numpy())
    return np.concatenate(found)


def _blocks(table: Table, ids: Ids) -> Iterator[torch.Tensor]:
    """Rows `ids` in float32, a block at a time."""
    step = rows_at_once(table.shape[1])
    for first in range(0, len(ids), step):
        yield table.rows(ids[first : first + step]).float()
