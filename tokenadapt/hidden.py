"""Old tokens that are hidden, as a problem of their own, and the model's own texts in which they occur."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from tokenadapt.methods.classes import class_of
from tokenadapt.methods.halves import Runs
from tokenadapt.methods.options import parse_method
from tokenadapt.methods.within import needs_of
from tokenadapt.plan import Problem, Space
from tokenadapt.vocab.segment import measured
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Ids, Kind, Segmentation

SpaceOpener = Callable[[ByteVocab, ByteVocab, Alignment, Segmentation], Space]


@dataclass(frozen=True)
class OwnTexts:
    """Texts of the source model's own, and what its head read at all positions but each text's last."""

    texts: tuple[list[int], ...]
    states: torch.Tensor  # (positions, D)

    @property
    def label(self) -> Ids:
        """The token that comes next: (positions,)."""
        return np.concatenate([np.zeros(0, np.int64), *(np.asarray(text[1:], dtype=np.int64) for text in self.texts)])

    @property
    def owner(self) -> Ids:
        """The text of each position: (positions,)."""
        return np.repeat(np.arange(len(self.texts)), [len(text) - 1 for text in self.texts])

    def first(self, positions: int) -> OwnTexts:
        """The first texts, of so many positions at most, but one text at least."""
        ends = np.cumsum([len(text) - 1 for text in self.texts])
        count = max(1, int((ends <= positions).sum()))
        return OwnTexts(self.texts[:count], self.states[: int(ends[:count][-1]) if len(ends) else 0])


class Hidden:
    """Some tokens of a problem's source vocabulary, with pieces, as if they were missing."""

    def __init__(self, problem: Problem, runs: Runs, open_space: SpaceOpener | None) -> None:
        self.problem, self._runs, self._open = problem, runs, open_space

    @property
    def ids(self) -> Ids:
        """The tokens, ascending: (H,)."""
        return self._runs.tokens

    @cached_property
    def kinds(self) -> Ids:
        """The class of each hidden token: (H,)."""
        return class_of(self.pose(self.problem, "pieces"))

    @cached_property
    def place(self) -> Ids:
        """Which hidden token an old id is, or -1: (V_old,)."""
        place = np.full(max(self.problem.table.shape[0], len(self.problem.source)), -1, dtype=np.int64)
        place[self.ids] = np.arange(len(self.ids))
        return place

    def pose(self, problem: Problem, method: str) -> Problem:
        """The hidden tokens as a problem of their own: the source's vocabulary is the target, and lacks them itself."""
        space = self._space if "space" in needs_of(parse_method(method)) else None
        return replace(
            problem,
            source=self._source,
            target=self.problem.source,
            alignment=self._alignment,
            segmentation=self._segmentation,
            space=space,
            score=None,
        )

    @cached_property
    def _source(self) -> ByteVocab:
        """The source vocabulary without the hidden tokens: it cuts text into their pieces; its texts still say them."""
        source, runs = self.problem.source, self._runs
        kind = source.kind.copy()
        kind[self.ids] = Kind.UNKNOWN
        inside = {
            token: runs.piece[runs.start[at] : runs.start[at + 1]].tolist()
            for at, token in enumerate(runs.tokens.tolist())
        }

        def opened(ids: list[int]) -> list[int]:
            return [piece for index in ids for piece in inside.get(index, (index,))]

        def spell(words: Sequence[bytes]) -> list[list[int] | None]:
            return [None if ids is None else opened(ids) for ids in source.spell(words)]

        return replace(
            source, kind=kind, encode=lambda texts: [opened(ids) for ids in source.encode(texts)], spell=spell
        )

    @cached_property
    def _alignment(self) -> Alignment:
        source, rows = self.problem.source, self.problem.table.shape[0]
        known = (np.arange(len(source)) < rows) & (source.kind != Kind.GAP)
        how = np.where(known, How.COPIED, How.UNUSED).astype(np.uint8)
        how[self.ids] = How.MISSING
        return Alignment(np.where(how == How.COPIED, np.arange(len(source)), -1), how, source_rows=rows)

    @cached_property
    def _segmentation(self) -> Segmentation:
        start = self._runs.start
        runs = [self._runs.piece[start[at] : start[at + 1]].tolist() for at in range(len(self.ids))]
        return measured(self.problem.source, [b""] * len(runs), runs)

    @cached_property
    def _space(self) -> Space | None:
        if self._open is None:
            return None
        return self._open(self._source, self.problem.source, self._alignment, self._segmentation)
