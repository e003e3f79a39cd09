"""Everything that training and measuring need, made ready; and where training begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import torch

from tokenadapt.calibration import closed
from tokenadapt.calibration.batches import Order, Place
from tokenadapt.calibration.cover import Need, snippets, written
from tokenadapt.calibration.data import Data, make_data, read_texts, sides, split
from tokenadapt.calibration.ends import Ends
from tokenadapt.calibration.examples import Side, Text
from tokenadapt.calibration.group import Group
from tokenadapt.calibration.held_out import HeldOut
from tokenadapt.calibration.lesson import Lesson, common_places, measure_scale
from tokenadapt.calibration.loop import Budget
from tokenadapt.calibration.objectives import asked_by, make_objectives
from tokenadapt.calibration.objectives.terms import parse_terms
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.own_texts import own_texts
from tokenadapt.calibration.pair import Pair
from tokenadapt.calibration.starts import make_starts
from tokenadapt.calibration.state import Point, RunState
from tokenadapt.calibration.students import Class, choose_dtype, open_class
from tokenadapt.errors import RequestError
from tokenadapt.progress import SILENT, Progress

DEFAULT_TOKENS: Final = 500_000


@dataclass(frozen=True)
class Bench:
    """Everything that training and measuring need."""

    pair: Pair
    people: Class
    data: Data
    readers: tuple[Side, Side]
    lesson: Lesson
    held_out: HeldOut
    source: float  # bits per byte of the teacher on the held-out text
    dtype: torch.dtype
    group: Group

    @property
    def dtype_name(self) -> str:
        """As options and manifests spell it."""
        return str(self.dtype).removeprefix("torch.")

    def score(self) -> float:
        """Held-out bits per byte of the student as it stands."""
        return self.held_out.score(self.people.student, self.group)


def set_up(pair: Pair, options: CalibrationOptions, group: Group, progress: Progress = SILENT) -> Bench:
    """Data, teacher and student."""
    dtype, why = choose_dtype(options, pair, group.device)
    if options.dtype == "auto":  # all as the first process found
        dtype = torch.bfloat16 if group.agree(group.first and dtype == torch.bfloat16) else torch.float32
    progress.note(f"computing in {str(dtype).removeprefix('torch.')} ({why})")
    if pair.checkpoint.tied:
        progress.note(
            "one table is read and written: a transplant with --untie is calibrated further in the same tokens"
        )
    people = open_class(pair, options, dtype, group.device, progress)
    readers = sides(pair, options, people.body.positions)
    if group.size > 1 and "-" in (*options.data, *options.held_out):
        raise RequestError("Standard input cannot be shared by several processes.", "Write it to a file first.")
    with group.first_goes():  # what the first process writes the others find
        learn, kept = _texts(pair, people, readers[0], options, progress)
    data = make_data(learn, kept, pair, readers, progress)
    progress.note(str(data.coverage))
    held_out = HeldOut(data.held_out, readers[0], options.bos)
    with progress.stage("measure the source model on the held-out text"):
        source = HeldOut(data.held_out, readers[1], options.bos).score(people.teacher, group)
    return Bench(pair, people, data, readers, _lesson(pair, people, data, options), held_out, source, dtype, group)


def _texts(
    pair: Pair, people: Class, reader: Side, options: CalibrationOptions, progress: Progress
) -> tuple[list[Text], list[Text]]:
    """Text to learn from and text held out, with snippets for new tokens that both lack."""
    if options.data:
        texts: Iterable[Text] = read_texts(options.data, options, progress)
    else:
        tokens = options.self_generated or min(budget(options).tokens or DEFAULT_TOKENS, DEFAULT_TOKENS)
        texts = own_texts(pair, people.teacher, options, tokens, progress)
    apart = read_texts(options.held_out, options, progress) if options.held_out else None
    learn, kept = split(texts, apart, options)
    if options.cover:
        need = Need.of(pair, learn, reader, options.cover)
        before = len(need.tokens)
        if options.data and "-" not in options.data:  # standard input cannot be read twice
            held = {text.text for text in kept}
            rest = read_texts(options.data, replace(options, sample_bytes=None), progress)
            learn += snippets((text for text in rest if text.text not in held), need, reader)
        found = before - len(need.tokens)
        more = written(pair, people.teacher, need, options.seed, progress)
        progress.note(f"cover: {before:,} new tokens wanted more text, {found:,} found it in the corpus")
        learn += more
    return learn, kept


def _lesson(pair: Pair, people: Class, data: Data, options: CalibrationOptions) -> Lesson:
    objectives = make_objectives(parse_terms(options.objective), people.body)
    is_new = torch.zeros(pair.checkpoint.rows, dtype=torch.bool)
    is_new[torch.from_numpy(pair.alignment.missing)] = True
    lesson = Lesson(
        student=people.student,
        teacher=people.teacher,
        objectives=objectives,
        asked=asked_by(objectives, people.body),
        common=common_places(pair, people.student, people.teacher),
        is_new=is_new.to(people.student.device),
        batch_tokens=options.batch_tokens,
        starts=make_starts(pair, people.student, people.teacher) if "starts" in options.objective else None,
    )
    first, _ = Order(data.examples, options.seed).step(Place(), options.batch_tokens)
    return replace(lesson, scale=measure_scale(lesson, first))


def start(bench: Bench, options: CalibrationOptions, progress: Progress) -> RunState:
    """Where training begins: after the closed form, where it is wanted and helps on held-out text."""
    trained, before = bench.people.trained, bench.score()
    state = RunState(curve=(Point(0, 0, 0.0, before),), start=before)
    if options.closed_form:
        order = Order(bench.data.examples, options.seed)
        examples, place = order.step(Place(), closed.TOKENS)
        judges, _ = order.step(place, closed.JUDGES)
        came = trained.snapshot()
        steps = closed.fit_closed_form(bench.lesson, Ends(bench.pair), examples, judges, trained, progress)
        after = bench.score()
        if after > before:
            trained.load(came)
        for step in steps:
            taken = f"{step.strength:.0%} taken" if step.strength else "undone"
            progress.note(f"closed form, {step.name}: {step.bits_per_byte:.4f} bits per byte of training text, {taken}")
        told = {**closed.told(steps), "held out": {"bits_per_byte": after, "kept": after <= before}}
        state = replace(state, curve=(Point(0, 0, 0.0, min(before, after)),), closed=told)
    return replace(state, best=state.curve[0], best_values=trained.snapshot())


def budget(options: CalibrationOptions) -> Budget:
    """When the run ends; a number of tokens where nothing is said."""
    given = options.steps is not None or options.tokens is not None or options.minutes is not None
    return Budget(options.steps, options.tokens if given else DEFAULT_TOKENS, options.minutes)
