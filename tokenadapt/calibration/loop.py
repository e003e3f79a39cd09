"""The loop: steps until a budget is used up, held-out figures on the way, the best kept, the state saved."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tokenadapt.calibration.batches import Order
from tokenadapt.calibration.group import Group
from tokenadapt.calibration.lesson import BrokenLossError, Lesson
from tokenadapt.calibration.optimizer import RowOptimizer
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.schedule import highest_rate, rate
from tokenadapt.calibration.state import Desk, Point, RunState
from tokenadapt.calibration.stops import Stop, deferred
from tokenadapt.calibration.trained import Trained
from tokenadapt.errors import TokenAdaptError
from tokenadapt.progress import SILENT, Progress


@dataclass(frozen=True)
class Budget:
    """When a run ends: at the first of these."""

    steps: int | None
    tokens: int | None
    minutes: float | None

    def used(self, state: RunState) -> float:
        """The largest used share of any of them; 1 and more: it is over."""
        shares = [0.0]
        for limit, spent in ((self.steps, state.step), (self.tokens, state.tokens)):
            if limit is not None:
                shares.append(spent / limit if limit else 1.0)
        if self.minutes is not None:
            shares.append(state.seconds / (60 * self.minutes))
        return max(shares)

    def all_steps(self, step_tokens: int) -> float | None:
        """About how many steps a run has; None where only time ends it."""
        limits = [limit for limit in (self.steps, self.tokens and self.tokens / step_tokens) if limit is not None]
        return min(limits) if limits else None

    def tokens_left(self, state: RunState, step_tokens: int) -> float | None:
        """About how many tokens a run has still to read; None where only time ends it."""
        limits = [(self.tokens, state.tokens), (None if self.steps is None else self.steps * step_tokens, state.tokens)]
        left = [max(0, limit - spent) for limit, spent in limits if limit is not None]
        return float(min(left)) if left else None


@dataclass(frozen=True)
class Tools:
    """What a loop works with."""

    lesson: Lesson
    trained: Trained
    order: Order
    score: Callable[[], float]  # held-out bits per byte of the student as it stands
    group: Group
    desk: Desk | None = None  # None: nothing is saved
    progress: Progress = SILENT


@dataclass(frozen=True)
class Ended:
    """How a loop ended; the student holds the best values."""

    state: RunState
    why: str
    broken: str = ""  # what went wrong, where something did


class Loop:
    """One run over a lesson."""

    def __init__(self, tools: Tools, options: CalibrationOptions, budget: Budget, reference: float) -> None:
        self.tools, self.options, self.budget, self.reference = tools, options, budget, reference
        self.lr = options.lr or highest_rate(budget.all_steps(options.step_tokens))
        self.optimizer = RowOptimizer(tools.trained.groups(self.lr, options.optimizer))
        self.losses: dict[str, float] = {}

    def run(self, state: RunState) -> Ended:
        """Go on from `state` until a budget is used up, nothing improves any more, or the loss breaks.

        On Ctrl-C the state is saved once the step is done, and KeyboardInterrupt raised.
        """
        tools = self.tools
        if state.values:
            tools.trained.load(state.values)
            self.optimizer.load_state_dict(dict(state.optimizer))
        else:
            if state.best is None:
                state = self._measured(state)
            self._save(state)
        self._tell(state.curve[-1])
        ended: Ended | None = None
        with deferred(tools.progress) as stop:
            while ended is None:
                state, ended = self._to_next_measurement(state, stop)
        tools.trained.load(ended.state.best_values)
        return ended

    def _to_next_measurement(self, state: RunState, stop: Stop) -> tuple[RunState, Ended | None]:
        """Steps up to a measurement, under a line that shows the last one; and how the run ended, if it did."""
        options, used = self.options, self.budget.used
        left = self.budget.tokens_left(state, options.step_tokens)
        figure = state.curve[-1].bits_per_byte
        with self.tools.progress.stage(f"calibrate, {figure:.4f} bits per byte held out", left, "tokens") as advance:
            while used(state) < 1:
                before = state
                try:
                    state = self._step(state)
                except BrokenLossError as error:
                    return state, Ended(state, "the loss broke", error.message)
                advance(state.tokens - before.tokens)
                measured = state.step % options.every == 0 or used(state) >= 1
                state = self._measured(state) if measured else state
                self._save_or_stop(state, stop)
                if measured:
                    self._tell(state.curve[-1])
                    break
        if used(state) >= 1:
            return state, Ended(state, "the budget is used up")
        if self._tired(state):
            return state, Ended(state, f"nothing improved for {options.patience} measurements")
        return state, None

    def _save_or_stop(self, state: RunState, stop: Stop) -> None:
        asked = self.tools.group.agree(stop.asked)
        if asked or state.step % (self.options.save_every or self.options.every) == 0:
            self._save(state)
        if asked:
            self.tools.progress.note(f"saved at step {state.step}: the same command with --resume goes on from here")
            raise stop.error()

    def _step(self, state: RunState) -> RunState:
        began = time.perf_counter()
        tools, options = self.tools, self.options
        examples, place = tools.order.step(state.place, options.step_tokens)
        tokens = sum(one.scored for one in examples)
        parameters = tools.trained.in_order()
        for parameter in parameters:
            parameter.grad = None
        self.losses = tools.lesson.gradients(examples, tools.group)
        tools.group.sum_gradients(parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, options.clip))
        if not norm < float("inf"):
            names = ", ".join(dict.fromkeys(one.name for one in examples))
            raise BrokenLossError(f"The gradient is no number on the batch of {names[:300]}.", "Lower --lr.")
        after = replace(state, step=state.step + 1, tokens=state.tokens + tokens, place=place)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * rate(self.budget.used(after), options.schedule, options.warmup)
        self.optimizer.step()
        spent = tools.group.sum(torch.tensor([time.perf_counter() - began], dtype=torch.float64).numpy())
        return replace(after, seconds=state.seconds + float(spent[0]) / tools.group.size)

    def _measured(self, state: RunState) -> RunState:
        """The held-out figure, noted, and the values kept where it is the best."""
        tools = self.tools
        figure = tools.score()
        point = Point(state.step, state.tokens, round(state.seconds, 3), figure, dict(self.losses))
        state = replace(state, curve=(*state.curve, point))
        if state.best is None or figure < state.best.bits_per_byte:
            state = replace(state, best=point, best_values=tools.trained.snapshot())
        return state

    def _tell(self, point: Point) -> None:
        speed = point.tokens / point.seconds if point.seconds else 0.0
        excess = point.bits_per_byte - self.reference
        losses = ", ".join(f"{name} {value:.4f}" for name, value in point.losses.items())
        self.tools.progress.note(
            f"step {point.step}: {point.tokens:,} tokens at {speed:,.0f}/s, held out {point.bits_per_byte:.4f} bits "
            f"per byte (excess {excess:+.4f}){'; ' + losses if losses else ''}"
        )
        if self.options.log and self.tools.group.first:
            append_line(Path(self.options.log), {**asdict(point), "excess": excess})

    def _tired(self, state: RunState) -> bool:
        if not self.options.patience or state.best is None:
            return False
        since = [point for point in state.curve if point.step > state.best.step]
        return len(since) >= self.options.patience

    def _save(self, state: RunState) -> None:
        if not self.tools.group.first or self.tools.desk is None:
            return
        values, optimizer = self.tools.trained.snapshot(), self.optimizer.state_dict()
        self.tools.desk.save(replace(state, values=values, optimizer=optimizer))


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add one line of JSON to a file; TokenAdaptError where it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        raise TokenAdaptError(f"The log {path} cannot be written ({error.strerror}).", "Name another --log.") from error
