"""Held-out anchors: how much worse a model reads its own texts when some of its tokens get the rows of a method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokenadapt.hidden import Hidden, OwnTexts, SpaceOpener
from tokenadapt.methods import classes
from tokenadapt.methods.halves import Runs
from tokenadapt.methods.hiding import hide
from tokenadapt.methods.make import make_rows
from tokenadapt.methods.merge_rows import select
from tokenadapt.methods.options import parse_method
from tokenadapt.methods.own_text import LENGTH, prompts
from tokenadapt.plan import Dense, Model, Plan, Problem, Role, Table, missing_rows, rows_at_once
from tokenadapt.progress import SILENT, Progress
from tokenadapt.verdict import Verdict, after_input_rows, after_output_rows, last_before
from tokenadapt.vocab.types import Ids

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


@dataclass(frozen=True)
class Judge:
    """`Problem.score` of one role."""

    anchors: Anchors
    problem: Problem

    def __call__(self, method: str) -> NDArray[np.float64]:
        """The harm of a method, by text."""
        return self.anchors.score(self.problem, method)

    def shares(self, method: str) -> NDArray[np.float64]:
        """The same by the class of the tokens that it is put to: (texts, classes)."""
        return self.anchors.verdict(self.problem, method).shares

    @property
    def hidden(self) -> NDArray[np.int64]:
        """How many tokens of each class are hidden: (classes,)."""
        return np.bincount(self.anchors.kinds, minlength=len(classes.CLASSES))


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
        self._verdicts: dict[tuple[Role, str], Verdict] = {}
        self._made: dict[tuple[Role, str], Plan | Dense] = {}

    def score(self, problem: Problem, method: str) -> NDArray[np.float64]:
        """Bits per byte more that each text costs, as its share of the whole: their sum is the harm of the method.

        `problem` says the role.
        """
        return self.verdict(problem, method).harm

    def verdict(self, problem: Problem, method: str) -> Verdict:
        """The harm of a method, and the classes of the tokens that do it; found once."""
        key = (problem.role, method)
        if key not in self._verdicts:
            self._verdicts[key] = self.weigh(problem, self._make(problem, method))
        return self._verdicts[key]

    def _make(self, problem: Problem, method: str) -> Plan | Dense:
        """Rows of the hidden tokens; those that methods of several classes share are made once."""
        key = (problem.role, method)
        if key not in self._made:
            chosen = parse_method(method)
            if chosen.name == classes.NAME:
                methods, which = classes.methods_of(chosen)
                made = [self._make(problem, str(each)) for each in methods]
                self._made[key] = select(problem.table, made, which[self.kinds])
            else:
                self._made[key] = make_rows(self.pose(problem, method), chosen)
        return self._made[key]

    def weigh(self, problem: Problem, made: Plan | Dense) -> Verdict:
        """What it does to the texts when the hidden tokens are given these rows.

        The output side of two tables changes the logits of hidden tokens only, at states that are known; a new input
        side is read again. There a change is put to the hidden token that was read last before it.
        """
        own, count = self.own, len(classes.CLASSES)
        if not len(self.hidden):
            return Verdict(np.zeros(len(own.texts)), np.zeros((len(own.texts), count)))
        found, rows = self._found, missing_rows(problem.table, made, 0, len(self.hidden))
        after, parts = self._before, np.zeros((len(self._before), count))
        if problem.role == "input" or self.tied:
            own = own.first(READ)
            found = self._read(self.model.states_with_rows(own.texts, self.hidden, rows), own.label)
            after = self._nats(found, own.label, self._true_rows)
            cause = np.concatenate([last_before(np.asarray(text), self._tokens.place) for text in own.texts])
            parts = after_input_rows(after - self._before[: len(after)], cause, self.kinds, count)
        if problem.role == "output":
            after = self._nats(found, own.label, rows)
            parts = parts + self._by_class(found, own.label, rows)
        size = sum(len(data) for text in own.texts for data in self.problem.source.bytes_of(text[1:]))
        at = (own.owner, np.arange(len(after)))
        by_text = csr_array((np.ones(len(after)), at), shape=(len(own.texts), len(after)))
        unit = np.log(2) * max(1, size)
        return Verdict(by_text @ (after - self._before[: len(after)]) / unit, by_text @ parts / unit)

    def sharing(self, other: Anchors) -> Anchors:
        """The judge itself, with the texts and hidden tokens of another, which are then not drawn anew."""
        known = ("own", "_runs", "_found", "_before") if len(other.hidden) else ("own", "_runs")
        self.__dict__.update({name: getattr(other, name) for name in known})
        return self

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
        return self._tokens.ids

    @property
    def kinds(self) -> Ids:
        """The class of each hidden token: (H,)."""
        return self._tokens.kinds

    @cached_property
    def _tokens(self) -> Hidden:
        return Hidden(self.problem, self._runs, self._open)

    def pose(self, problem: Problem, method: str) -> Problem:
        """The hidden tokens as a problem of their own: the source's vocabulary is the target, and lacks them itself."""
        return self._tokens.pose(problem, method)

    @cached_property
    def _runs(self) -> Runs:
        return self._hide(self.own.texts)

    def _hide(self, texts: Sequence[list[int]]) -> Runs:
        problem = self.problem
        return hide(problem.source, texts, rows=problem.table.shape[0], most=MOST, seed=problem.seed)

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
        at = torch.from_numpy(self._tokens.place[label])
        found = torch.empty(len(label), dtype=torch.float64)
        for part in _chunks(len(label)):
            logits = self.model.logits(read.states[part], self.hidden, rows)
            whole = torch.logaddexp(read.rest[part], logits.logsumexp(1))
            own = logits.gather(1, at[part].clamp(min=0)[:, None])[:, 0]
            found[part] = (whole - torch.where(at[part] >= 0, own, read.known[part])).double()
        return found.numpy()

    def _by_class(self, read: Read, label: Ids, rows: torch.Tensor) -> NDArray[np.float64]:
        """What these output rows change beside the true ones, by class: (positions, classes)."""
        at, one_hot = (
            torch.from_numpy(self._tokens.place[label]),
            torch.eye(len(classes.CLASSES))[torch.from_numpy(self.kinds)],
        )
        found = [np.zeros((0, len(classes.CLASSES)))]
        for part in _chunks(len(label)):
            states = read.states[part]
            logits = [self.model.logits(states, self.hidden, each) for each in (self._true_rows, rows)]
            found.append(after_output_rows(read.rest[part], (logits[0], logits[1]), at[part], one_hot))
        return np.concatenate(found)


def _chunks(count: int) -> Iterator[slice]:
    for first in range(0, count, CHUNK):
        yield slice(first, first + CHUNK)
