"""The road: the stages of a calibration in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokenadapt.atomic import check_destination, staged_folder
from tokenadapt.calibration.batches import Order, Place
from tokenadapt.calibration.data import Data, make_data, read_texts, sides, split
from tokenadapt.calibration.examples import Side, Text
from tokenadapt.calibration.group import Group, join
from tokenadapt.calibration.held_out import HeldOut
from tokenadapt.calibration.lesson import Lesson, common_places, measure_scale
from tokenadapt.calibration.loop import Budget, Ended, Loop, Tools
from tokenadapt.calibration.objectives import asked_by, make_objectives
from tokenadapt.calibration.objectives.terms import parse_terms
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.outcome import Calibrated
from tokenadapt.calibration.own_texts import own_texts
from tokenadapt.calibration.pair import Pair, open_pair
from tokenadapt.calibration.result import Changed, check_result, finish_result, write_result
from tokenadapt.calibration.state import Desk, RunState
from tokenadapt.calibration.students import Class, choose_dtype, open_class
from tokenadapt.progress import SILENT, Progress

DEFAULT_TOKENS = 500_000


def calibrate(options: CalibrationOptions, progress: Progress = SILENT) -> Calibrated:
    """Train the rows of a transplanted checkpoint and write the result; whole and verified, or not at all.

    Ctrl-C saves the state beside the output, and `resume` goes on with it. Raises RequestError, TokenAdaptError and
    VerificationError.
    """
    output = Path(options.output)
    check_destination(output, overwrite=options.overwrite)
    group = join(options.device)
    progress = progress if group.first else SILENT
    pair = open_pair(options, progress)
    check_destination(output, overwrite=options.overwrite, inputs=(pair.folder, pair.source.folder))
    desk = Desk.of(output)
    going_on = desk.check(options.binding(), resume=options.resume, restart=options.restart and group.first)
    bench = set_up(pair, options, group, progress)
    if not going_on and group.first:
        desk.begin(options.binding())
    ended = _train(bench, options, desk, progress, desk.load() if going_on else None)
    told = _told(bench, options, ended)
    if group.first:
        told = _write(bench, options, told, progress)
        desk.clear()
    group.wait()
    return told


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


def set_up(pair: Pair, options: CalibrationOptions, group: Group, progress: Progress = SILENT) -> Bench:
    """Data, teacher and student."""
    dtype, why = choose_dtype(options, pair, group.device)
    progress.note(f"computing in {str(dtype).removeprefix('torch.')} ({why})")
    people = open_class(pair, options, dtype, group.device, progress)
    readers = sides(pair, options, people.body.positions)
    texts: Iterable[Text] = (
        read_texts(options.data, options, progress)
        if options.data
        else own_texts(
            pair, people.teacher, options, options.self_generated or budget(options).tokens or DEFAULT_TOKENS, progress
        )
    )
    apart = read_texts(options.held_out, options, progress) if options.held_out else None
    data = make_data(*split(texts, apart, options), pair, readers, progress)
    progress.note(str(data.coverage))
    held_out = HeldOut(data.held_out, readers[0], options.bos)
    with progress.stage("measure the source model on the held-out text"):
        source = HeldOut(data.held_out, readers[1], options.bos).score(people.teacher, group)
    return Bench(pair, people, data, readers, _lesson(pair, people, data, options), held_out, source, dtype, group)


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
    )
    first, _ = Order(data.examples, options.seed).step(Place(), options.batch_tokens)
    return dataclasses.replace(lesson, scale=measure_scale(lesson, first))


def _train(bench: Bench, options: CalibrationOptions, desk: Desk, progress: Progress, found: RunState | None) -> Ended:
    tools = Tools(
        lesson=bench.lesson,
        trained=bench.people.trained,
        order=Order(bench.data.examples, options.seed),
        score=lambda: bench.held_out.score(bench.people.student, bench.group),
        group=bench.group,
        desk=desk,
        progress=progress,
    )
    return Loop(tools, options, budget(options), bench.source).run(found or RunState())


def budget(options: CalibrationOptions) -> Budget:
    """When the run ends; a number of tokens where nothing is said."""
    given = options.steps is not None or options.tokens is not None or options.minutes is not None
    return Budget(options.steps, options.tokens if given else DEFAULT_TOKENS, options.minutes)


def _told(bench: Bench, options: CalibrationOptions, ended: Ended) -> Calibrated:
    state = ended.state
    assert state.best is not None
    return Calibrated(
        output=options.output,
        train=options.train,
        objective=",".join(map(str, parse_terms(options.objective))),
        options=options.recorded(),
        data=_named(options),
        coverage=bench.data.coverage,
        fingerprint=bench.data.fingerprint,
        held_out_bytes=bench.held_out.bytes,
        source=bench.source,
        before=state.curve[0].bits_per_byte,
        closed=state.closed,
        best=state.best,
        curve=state.curve,
        why=ended.why,
        broken=ended.broken,
        parameters=bench.people.trained.count,
        dtype=str(bench.dtype).removeprefix("torch."),
        processes=bench.group.size,
        rank=bench.group.rank,
    )


def _named(options: CalibrationOptions) -> str:
    """The data by their last names: a manifest names no paths."""
    return ", ".join(Path(spec).name or spec for spec in options.data) or "texts that the source model wrote"


def _write(bench: Bench, options: CalibrationOptions, told: Calibrated, progress: Progress) -> Calibrated:
    pair, student = bench.pair, bench.people.student
    tables = student.tables()
    changed = Changed(tables["output"].ids, {role: table.current() for role, table in tables.items()})
    inputs = (pair.folder, pair.source.folder)
    with staged_folder(Path(options.output), overwrite=options.overwrite, inputs=inputs) as staging:
        manifest = write_result(pair, changed, told, staging, progress)
        report = check_result(
            pair,
            staging,
            options.verify,
            strict=options.strict,
            trust_remote_code=options.trust_remote_code,
            progress=progress,
        )
        finish_result(manifest, report, staging)
    return dataclasses.replace(told, verified=report.summary, warnings=tuple(report.warnings))


def plain(told: Calibrated) -> Mapping[str, Any]:
    """For JSON."""
    return told.as_dict()
