"""Where two tokenizers agree: positions at equal byte offsets, and texts cut there so that both read the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenadapt.vocab.types import Ids


@dataclass(frozen=True)
class Shared:
    """Tokens of two tokenizations of one text that end at the same byte: `ours[k]` and `theirs[k]`, both rising."""

    ours: Ids  # (n,)
    theirs: Ids  # (n,)


def shared_positions(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> Shared:
    """Shared positions from the bytes that each token accounts for; of tokens that end alike the last one counts.

    A token without bytes ends where the one before it does: what was read up to there includes it.
    """
    ends, others = np.cumsum(ours), np.cumsum(theirs)
    common = np.intersect1d(ends, others)
    common = common[common > 0]
    return Shared(np.searchsorted(ends, common, "right") - 1, np.searchsorted(others, common, "right") - 1)


@dataclass(frozen=True)
class Cut:
    """A stretch of a text that both read: tokens ours[0]:ours[1] and theirs[0]:theirs[1], and its shared positions."""

    ours: tuple[int, int]
    theirs: tuple[int, int]
    shared: Shared  # positions counted from the cut's own first tokens


def cut(shared: Shared, room: tuple[int, int]) -> Iterator[Cut]:
    """Stretches between shared positions with at most `room` tokens each way, as long as they come.

    A span between two neighbouring shared positions that is longer than the room alone is left out.
    """
    first, begin, other = 0, 0, 0
    ours, theirs = shared.ours, shared.theirs
    while first < len(ours):
        last = min(
            int(np.searchsorted(ours, begin + room[0], "left")), int(np.searchsorted(theirs, other + room[1], "left"))
        )
        if last > first:
            stop, end = int(ours[last - 1]) + 1, int(theirs[last - 1]) + 1
            inside = Shared(ours[first:last] - begin, theirs[first:last] - other)
            yield Cut((begin, stop), (other, end), inside)
        else:  # one span alone does not fit
            last = first + 1
            stop, end = int(ours[first]) + 1, int(theirs[first]) + 1
        first, begin, other = last, stop, end
