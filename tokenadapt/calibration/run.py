"""The road: the stages of a calibration in order."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from tokenadapt.atomic import check_destination, staged_folder
from tokenadapt.calibration.batches import Order
from tokenadapt.calibration.bench import Bench, budget, set_up, start
from tokenadapt.calibration.group import Group, join
from tokenadapt.calibration.lesson import memory_named
from tokenadapt.calibration.loop import Ended, Loop, Tools
from tokenadapt.calibration.objectives.terms import parse_terms
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.outcome import Calibrated
from tokenadapt.calibration.pair import Pair, open_pair, refuse_other_layers
from tokenadapt.calibration.result import changed_by, check_result, finish_result, write_result
from tokenadapt.calibration.state import Desk, RunState
from tokenadapt.errors import RequestError
from tokenadapt.progress import SILENT, Progress


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
    refuse_other_layers(pair)
    check_destination(output, overwrite=options.overwrite, inputs=(pair.folder, pair.source.folder))
    desk = Desk.of(output)
    with desk.held() if group.first else nullcontext():
        told = _run(pair, options, desk, group, progress)
    group.leave()
    return told


def _run(pair: Pair, options: CalibrationOptions, desk: Desk, group: Group, progress: Progress) -> Calibrated:
    """Begin or go on, train, write."""
    binding = options.binding()
    going_on = group.agree(group.first and desk.check(binding, resume=options.resume, restart=options.restart))
    facts = desk.facts() if going_on else {}
    if facts:  # what was measured then may be measured otherwise now
        options = replace(options, dtype=facts["dtype"])
    with memory_named(options.batch_tokens):
        bench = set_up(pair, options, group, progress)
        if facts and facts["data"] != bench.data.fingerprint:
            raise RequestError(
                "The data are not those that the unfinished run has read.", "Give the same texts, or say --restart."
            )
        if not going_on and group.first:
            desk.begin(binding, {"dtype": bench.dtype_name, "data": bench.data.fingerprint})
        ended = _train(bench, options, desk, progress, desk.load() if going_on else None)
    told = _told(bench, options, ended)
    if group.first:
        told = _write(bench, options, told, progress)
        desk.clear()
    group.wait()
    return told


def _train(bench: Bench, options: CalibrationOptions, desk: Desk, progress: Progress, found: RunState | None) -> Ended:
    tools = Tools(
        lesson=bench.lesson,
        trained=bench.people.trained,
        order=Order(bench.data.examples, options.seed),
        score=bench.score,
        group=bench.group,
        desk=desk,
        progress=progress,
    )
    state = found or start(bench, options, progress)
    return Loop(tools, options, budget(options), bench.source).run(state)


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
        before=state.start,
        closed=state.closed,
        best=state.best,
        curve=state.curve,
        why=ended.why,
        broken=ended.broken,
        parameters=bench.people.trained.count,
        dtype=bench.dtype_name,
        processes=bench.group.size,
        rank=bench.group.rank,
    )


def _named(options: CalibrationOptions) -> str:
    """The data by their last names: a manifest names no paths."""
    return ", ".join(Path(spec).name or spec for spec in options.data) or "texts that the source model wrote"


def _write(bench: Bench, options: CalibrationOptions, told: Calibrated, progress: Progress) -> Calibrated:
    pair = bench.pair
    changed = changed_by(pair, bench.people, options)
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
    return replace(told, verified=report.summary, warnings=tuple(report.warnings))
