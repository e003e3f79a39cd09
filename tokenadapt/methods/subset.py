"""A problem reduced to some of its missing tokens: what a fallback is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokenadapt.methods import ragged
from tokenadapt.plan import Problem, Space
from tokenadapt.vocab.types import How, Ids, Segmentation


@dataclass(frozen=True)
class SubSpace:
    """A space in which missing token i is token `index[i]` of the whole."""

    whole: Space
    index: Ids

    @property
    def name(self) -> str:
        """The whole space's name."""
        return self.whole.name

    def source(self, ids: Ids) -> NDArray[np.float32]:
        """Unit vectors of old tokens."""
        return self.whole.source(ids)

    def missing(self, index: Ids) -> NDArray[np.float32]:
        """Unit vectors of the chosen missing tokens."""
        return self.whole.missing(self.index[index])

    def neighbours(self, k: int) -> tuple[Ids, NDArray[np.float32]]:
        """The nearest old tokens of the chosen missing tokens."""
        ids, cosines = self.whole.neighbours(k)
        return ids[self.index], cosines[self.index]


def subset(problem: Problem, index: Ids) -> Problem:
    """The problem of missing tokens `index` (ascending) alone; the others count as unused."""
    alignment = problem.alignment
    how = alignment.how.copy()
    others = np.delete(alignment.missing, index)
    how[others] = How.UNUSED
    return replace(
        problem,
        alignment=replace(alignment, how=how),
        segmentation=_runs(problem.segmentation, index),
        space=None if problem.space is None else SubSpace(problem.space, index),
    )


def _runs(cut: Segmentation, index: Ids) -> Segmentation:
    chosen = np.zeros(len(cut.token_length), dtype=bool)
    chosen[index] = True
    keep = chosen[ragged.owners(cut.start)]
    start = np.concatenate([[0], np.cumsum(cut.counts[index])]).astype(np.int64)
    return Segmentation(start, cut.piece[keep], cut.length[keep], cut.token_length[index])
