"""What can be solved before any gradient: input rows, one bias per new token, and output rows.

Each step is taken as far as texts that it was not fitted on say that it helps, and not at all where they say no.

- Pieces: a new token's input row goes some way towards the row of its last piece, its output row (where that is another
  table) towards that of its first.
- Input rows: what an early layer holds after a new token in the student, against what it holds there in the teacher. A
  residual stream passes an embedding on, so the mean difference, shrunk by a ridge, is added to the row.
- Bias: a token that the student expects E times over some text in which it occurs n times gets log((n + k) / (E + k))
  along u, the direction in which all states agree (u.h = 1; `finishing.bias_direction`).
- Output rows: one Newton step of the cross-entropy, with the Hessian of token t taken as E_t C (C the states' second
  moment) and a ridge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from tokenadapt.calibration.batches import Batch
from tokenadapt.calibration.ends import Ends
from tokenadapt.calibration.examples import Example
from tokenadapt.calibration.expected import Evidence, Expected, slopes
from tokenadapt.calibration.lesson import Lesson
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.calibration.split import SplitTable
from tokenadapt.calibration.trained import Trained
from tokenadapt.finishing import bias_direction
from tokenadapt.progress import SILENT, Progress

TOKENS: Final = 8_192  # that are read for it
JUDGES: Final = 2_048  # that judge it
_ROUNDS: Final = 3  # of the bias: all tokens share one normaliser
_PRIOR: Final = 1.0  # k: occurrences that every token is given
_RIDGE: Final = 8.0  # in occurrences, of input rows
_DAMPING: Final = 128.0  # the same of output rows: a Newton step over few texts goes far astray
_DEPTH: Final = 0.2  # of the layer whose states move input rows


@dataclass(frozen=True)
class Step:
    """One closed-form step: how much of it was taken, and bits per byte of the texts that judged it."""

    name: str
    strength: float  # 0: none of it helped
    bits_per_byte: float


def fit_closed_form(
    lesson: Lesson,
    ends: Ends,
    examples: Sequence[Example],
    judges: Sequence[Example],
    trained: Trained,
    progress: Progress = SILENT,
) -> tuple[Step, ...]:
    """Take each step as far as `judges`, texts that it was not fitted on, say is best, or not at all.

    The first entry is where they began.
    """
    steps = [Step("as it came", 1.0, judge(lesson, judges))]
    ways = _ways(lesson, ends, examples)
    with progress.stage("closed form", len(ways), "steps") as advance:
        for way in ways:
            before, best = trained.snapshot(), steps[-1].bits_per_byte
            way.take()
            after, chosen = trained.snapshot(), 0.0
            for strength in way.strengths:
                trained.load(_between(before, after, strength))
                found = judge(lesson, judges)
                if found >= best:
                    break  # farther is worse still
                chosen, best = strength, found
            trained.load(_between(before, after, chosen))
            steps.append(Step(way.name, chosen, best))
            advance(1)
    return tuple(steps)


@dataclass(frozen=True)
class Way:
    """A step: what changes the rows, and how much of the change is tried, from little to much."""

    name: str
    take: Callable[[], None]
    strengths: tuple[float, ...]


def _ways(lesson: Lesson, ends: Ends, examples: Sequence[Example]) -> list[Way]:
    """The steps in order."""
    student = lesson.student
    tied = student.input is student.output
    seen: list[Evidence] = []

    def evidence() -> Evidence:
        """Read once where two tables are: output rows do not move states."""
        if tied or not seen:
            seen[:] = [collect(lesson, examples)]
        return seen[0]

    def first_pieces() -> None:
        ends.set_rows(student.output, "output", "first")
        add_biases(student, evidence())

    made = [
        Way("last pieces", lambda: ends.set_rows(student.input, "input", "last"), (0.2, 0.4, 0.6, 0.8)),
        Way("input rows", lambda: move_inputs(lesson, examples), (0.1, 0.3)),
        Way("bias", lambda: add_biases(student, evidence()), (1.0,)),
        Way("output rows", lambda: newton_step(student, evidence()), (0.1, 0.3, 1.0)),
    ]
    if not tied:  # else the same rows are read, and the last piece has been weighed
        made.insert(2, Way("first pieces", first_pieces, (0.3, 0.6, 1.0)))
    return made


def _between(before: dict[str, Tensor], after: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
    return {key: torch.lerp(before[key], after[key], strength) if strength else before[key] for key in before}


@torch.no_grad()
def judge(lesson: Lesson, examples: Sequence[Example]) -> float:
    """Bits of the student's tokens over the bytes of some examples."""
    nats, size = 0.0, 0
    for batch in lesson.batches(examples):
        nats -= float(lesson.view(batch).log_probs.double().sum())
    size = sum(example.nbytes for example in examples)
    return nats / math.log(2) / max(1, size)


@torch.no_grad()
def collect(lesson: Lesson, examples: Sequence[Example]) -> Evidence:
    """Read the examples with the student as it stands."""
    states, column = [], []
    for batch in lesson.batches(examples):
        side = batch.student
        final = lesson.student.read(side.ids).final.flatten(0, 1)
        states.append(final[side.rows].float())
        column.append(lesson.student.output.place[side.target])
    return Evidence(torch.cat(states), torch.cat(column))


@torch.no_grad()
def move_inputs(lesson: Lesson, examples: Sequence[Example]) -> None:
    """Add to each new row what an early layer lacks after it, on average, shrunk by a ridge."""
    table, body = lesson.student.input, lesson.student.body
    layer = max(1, round(_DEPTH * body.depth))
    total, count = torch.zeros_like(table.trained), torch.zeros(len(table.trained), device=table.trained.device)
    for batch in lesson.batches(examples):
        place, difference = _lacking(lesson, batch, layer)
        total.index_add_(0, place, difference)
        count.index_add_(0, place, torch.ones(len(place), device=count.device))
    table.trained.add_(total / (count + _RIDGE)[:, None] / body.scale)


def _lacking(lesson: Lesson, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
    """New tokens at shared positions: their trained rows (n,), and teacher minus student there (n, D)."""
    table = lesson.student.input
    ours = lesson.student.read_to(layer, batch.student.ids).flatten(0, 1)
    with lesson.teacher.body.as_teacher():
        theirs = lesson.teacher.read_to(layer, batch.teacher.ids).flatten(0, 1)
    ids = batch.student.ids.flatten()[batch.student.shared]
    new = lesson.is_new[ids]
    place = table.place[ids[new]] - len(table.frozen)
    return place, theirs[batch.teacher.shared[new]].float() - ours[batch.student.shared[new]].float()


@torch.no_grad()
def add_biases(student: Speaker, evidence: Evidence) -> None:
    """One bias per trained row, from expected against seen counts."""
    table = student.output
    direction = bias_direction(evidence.states.cpu()).to(table.trained)
    along, seen = evidence.states @ direction, _counts(table, evidence)
    expected = Expected.of(student, evidence.states)
    bias = torch.zeros_like(seen)
    for _ in range(_ROUNDS):
        bias += torch.log((seen + _PRIOR) / (expected.counts(bias, along) + _PRIOR))
    table.trained.add_(bias[:, None] * direction / student.head.shape.scale)


@torch.no_grad()
def newton_step(student: Speaker, evidence: Evidence) -> None:
    """One damped Newton step of the cross-entropy over the trained output rows."""
    table, states = student.output, evidence.states
    count = len(table.frozen)
    expected, slope = slopes(student, states)
    new = evidence.column >= count
    slope.neg_().index_add_(0, evidence.column[new] - count, states[new])
    moment = (states.T @ states / len(states)).double()
    values, vectors = torch.linalg.eigh(moment)
    values, vectors = values.clamp(min=0).float(), vectors.float()
    ridge = _DAMPING * float(values.mean())
    curvature = (expected + _counts(table, evidence))[:, None] / 2 * values + ridge
    table.trained.add_(((slope @ vectors) / curvature) @ vectors.T / student.head.shape.scale)


def _counts(table: SplitTable, evidence: Evidence) -> Tensor:
    """How often each trained token comes next: (M,)."""
    new = evidence.column[evidence.column >= len(table.frozen)] - len(table.frozen)
    return torch.bincount(new, minlength=len(table.trained)).float()


def told(steps: Sequence[Step]) -> dict[str, Any]:
    """For the manifest."""
    return {step.name: {"strength": step.strength, "bits_per_byte": step.bits_per_byte} for step in steps}
