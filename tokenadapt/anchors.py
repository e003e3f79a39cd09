"""Held-out anchors: how much worse a model reads its own texts when some of its tokens get the rows of a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.methods.halves import Runs
from tokenadapt.methods.hiding import hide
from tokenadapt.methods.make import make_rows
from tokenadapt.methods.options import parse_method
from tokenadapt.methods.own_text import LENGTH, prompts
from tokenadapt.methods.within import needs_of
from tokenadapt.plan import Dense, Model, Plan, Problem, Space, Table, missing_rows, rows_at_once
from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab.segment import measured
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Ids, Kind, Segmentation

MOST: Final = 1000  # tokens hidden
ENOUGH: Final = 300  # below which the model writes more texts
MORE: Final = 96  # texts then
READ: Final = 4096  # positions at most that are read anew for every method; the output side needs no reading
CHUNK: Final = 1024  # positions whose logits are held at once


class RowModel(Model, Protocol):
    """A source model that says what other rows would do: `tokenadapt.model.SourceModel`."""

    def states_with_rows(self, texts: Sequence[Sequence[int]], ids: Ids, rows: torch.Tensor) -> torch.Tensor:
        """What the head would read at all positions of `texts` but the last, were `rows` the input rows of `ids`."""
        ...

    def logits(self, states: torch.Tensor, ids: Ids, rows: torch.Tensor) -> torch.Tensor:
        """Logits of tokens `ids` at these states, were `rows` their output rows: (n, len(ids))."""
        ...


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


@dataclass(frozen=True)
class Read:
    """Positions, and all that a change of the hidden tokens' output rows does not change there."""

    states: torch.Tensor  # (n, D)
    rest: torch.Tensor  # (n,) log-sum-exp over the tokens that are not hidden
    known: torch.Tensor  # (n,) logit of the label, where it is not hidden


class Anchors:
    """The judge behind `Problem.score`: texts and hidden tokens are chosen once, and serve all roles and methods.

    `tied`: one new table serves both sides. `open_space` opens the space of the hidden tokens; None: there is none.
    """

    def __init__(
        self,
        problem: Problem,
        model: RowModel,
        *,
        tied: bool,
        open_space: SpaceOpener | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.problem, self.model, self.tied = problem, model, tied
        self._open, self.progress = open_space, progress

    def score(self, problem: Problem, method: str) -> NDArray[np.float64]:
        """Bits per byte more that each text costs, as its share of the whole: their sum is the harm of the method.

        `problem` says the role.
        """
        if not len(self.hidden):
            return np.zeros(len(self.own.texts))
        return self.harm(problem, make_rows(self.pose(problem, method), parse_method(method)))

    def harm(self, problem: Problem, made: Plan | Dense) -> NDArray[np.float64]:
        """The same of rows that the hidden tokens were given.

        The output side of two tables changes the logits of hidden tokens only, at states that are known; a new input
        side is read again.
        """
        rows = missing_rows(problem.table, made, 0, len(self.hidden))
        own, found = self.own, self._found
        if problem.role == "input" or self.tied:
            own = own.first(READ)
            found = self._read(self.model.states_with_rows(own.texts, self.hidden, rows), own.label)
        after = self._nats(found, own.label, rows if problem.role == "output" else self._true_rows)
        size = np.array([sum(map(len, self.problem.source.bytes_of(text[1:]))) for text in own.texts])
        harm = np.bincount(own.owner, after - self._before[: len(after)], minlength=len(own.texts))
        return np.asarray(harm / (np.log(2) * max(1, int(size.sum()))))

    def sharing(self, other: Anchors) -> Anchors:
        """The judge itself, with the texts and hidden tokens of another, which are then not drawn anew."""
        known = ("own", "_runs", "_found", "_before") if len(other.hidden) else ("own", "_runs")
        self.__dict__.update({name: getattr(other, name) for name in known})
        return self

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
    def own(self) -> OwnTexts:
        """The texts: the model's samples, and more, begun by missing tokens, where few tokens could be hidden."""
        texts, states = self.model.samples(), [self.model.final_states()]
        if len(self._hide(texts).tokens) < ENOUGH:
            begun = prompts(self.problem, MORE)
            for text, after in self.model.continued(begun, LENGTH, self.problem.seed + 1):
                texts = [*texts, text]
                states.append(after)
        return OwnTexts(tuple(texts), torch.cat(states).float())

    @property
    def hidden(self) -> Ids:
        """The old tokens that are hidden, ascending."""
        return self._runs.tokens

    @cached_property
    def _runs(self) -> Runs:
        return self._hide(self.own.texts)

    def _hide(self, texts: Sequence[list[int]]) -> Runs:
        problem = self.problem
        return hide(problem.source, texts, rows=problem.table.shape[0], most=MOST, seed=problem.seed)

    @cached_property
    def _source(self) -> ByteVocab:
        """The source vocabulary without the hidden tokens: it cuts text into their pieces; its texts still say them."""
        source, runs = self.problem.source, self._runs
        kind = source.kind.copy()
        kind[self.hidden] = Kind.UNKNOWN
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
        how[self.hidden] = How.MISSING
        return Alignment(np.where(how == How.COPIED, np.arange(len(source)), -1), how, source_rows=rows)

    @cached_property
    def _segmentation(self) -> Segmentation:
        runs = [part.tolist() for part in np.split(self._runs.piece, self._runs.start[1:-1])]
        return measured(self.problem.source, [b""] * len(runs), runs)

    @cached_property
    def _space(self) -> Space | None:
        if self._open is None:
            return None
        return self._open(self._source, self.problem.source, self._alignment, self._segmentation)

    @property
    def _table(self) -> Table:
        return self.model.table("output")

    @cached_property
    def _true_rows(self) -> torch.Tensor:
        """The hidden tokens' own output rows: (H, D)."""
        return self._table.rows(self.hidden).float()

    @cached_property
    def _found(self) -> Read:
        return self._read(self.own.states, self.own.label)

    @cached_property
    def _before(self) -> NDArray[np.float64]:
        """Nats of every position as the source model is: (positions,)."""
        return self._nats(self._found, self.own.label, self._true_rows)

    def _read(self, states: torch.Tensor, label: Ids) -> Read:
        """What all tokens but the hidden ones say at these states: one pass over the output table."""
        rest, known = torch.full((len(states),), -torch.inf), torch.zeros(len(states))
        label_at = torch.from_numpy(label)
        kept = np.setdiff1d(np.arange(self._table.shape[0]), self.hidden)
        step = rows_at_once(self._table.shape[1])
        with self.progress.stage("weigh its own texts", len(kept), "tokens") as advance:
            for first in range(0, len(kept), step):
                ids = kept[first : first + step]
                rows = self._table.rows(ids).float()
                place = torch.full((self._table.shape[0],), -1).index_put_(
                    (torch.from_numpy(ids),), torch.arange(len(ids))
                )
                for part in _chunks(len(states)):
                    logits = self.model.logits(states[part], ids, rows)
                    rest[part] = torch.logaddexp(rest[part], logits.logsumexp(1))
                    at = place[label_at[part]]
                    own = logits.gather(1, at.clamp(min=0)[:, None])[:, 0]
                    known[part] = torch.where(at >= 0, own, known[part])
                advance(len(ids))
        return Read(states, rest, known)

    def _nats(self, read: Read, label: Ids, rows: torch.Tensor) -> NDArray[np.float64]:
        """Nats of each position where the hidden tokens have these output rows: (positions,)."""
        place = torch.full((max(self._table.shape[0], len(self.problem.source)),), -1)
        place[torch.from_numpy(self.hidden)] = torch.arange(len(self.hidden))
        at = place[torch.from_numpy(label)]
        found = torch.empty(len(label), dtype=torch.float64)
        for part in _chunks(len(label)):
            logits = self.model.logits(read.states[part], self.hidden, rows)
            whole = torch.logaddexp(read.rest[part], logits.logsumexp(1))
            own = logits.gather(1, at[part].clamp(min=0)[:, None])[:, 0]
            found[part] = (whole - torch.where(at[part] >= 0, own, read.known[part])).double()
        return found.numpy()


def _chunks(count: int) -> Iterator[slice]:
    for first in range(0, count, CHUNK):
        yield slice(first, first + CHUNK)
