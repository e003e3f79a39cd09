"""The road: the stages of a transplant in order. The only file that knows them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tokenadapt.assemble import assemble, finish
from tokenadapt.atomic import check_destination, staged_folder
from tokenadapt.checkpoint.hub import check_push, push_folder
from tokenadapt.checkpoint.manifest import Manifest
from tokenadapt.checkpoint.tables import check_finite
from tokenadapt.checkpoint.verify import VerifyReport, verify
from tokenadapt.choice import choose
from tokenadapt.making import Job, make, source_model
from tokenadapt.needs import check_needs
from tokenadapt.outcome import Clock, Outcome
from tokenadapt.overlap import measure_overlap
from tokenadapt.progress import SILENT, Progress
from tokenadapt.recipe import TransplantOptions
from tokenadapt.setting import prepare


def transplant(options: TransplantOptions, progress: Progress = SILENT) -> Outcome:
    """Give a model another tokenizer and write the checkpoint; whole and verified, or not at all.

    Raises RequestError where the request cannot work, VerificationError where the result fails a check.
    """
    clock = Clock()
    check_needs(choose(options, ("input", "output")), options)  # what cannot work fails before anything is opened
    check_destination(Path(options.output), overwrite=options.overwrite)
    if options.push_to_hub:
        check_push(options.push_to_hub)
    with clock.stage("read and align"):
        job = _job(options, progress)
    return run_job(job, clock, progress)


def share_encoding(options: TransplantOptions) -> None:
    """What every process of a torchrun but the first does: its share of the encoding. Only the first one writes."""
    job = _job(options, SILENT)
    make(job, source_model(job.setting, options, SILENT), SILENT)


def _job(options: TransplantOptions, progress: Progress) -> Job:
    setting = prepare(options, progress)
    return Job(setting, options, choose(options, setting.roles), measure_overlap(setting))


def run_job(job: Job, clock: Clock, progress: Progress = SILENT) -> Outcome:
    """Make the rows, write the result beside its place, check it, put it there, and upload it where asked."""
    options, checkpoint = job.options, job.setting.checkpoint
    output = Path(options.output)
    with staged_folder(output, overwrite=options.overwrite, inputs=job.setting.inputs) as staging:
        with clock.stage("check the source"):
            for role, ref in checkpoint.tables.items():
                check_finite(checkpoint.table(role), ref.name, progress)
        manifest, report = _build(job, staging, clock, progress)
    pushed = None
    if options.push_to_hub:
        with clock.stage("upload"):
            pushed = push_folder(output, options.push_to_hub, private=not options.public, progress=progress)
    return _outcome(job, manifest, report, clock, pushed)


def _build(job: Job, staging: Path, clock: Clock, progress: Progress) -> tuple[Manifest, VerifyReport]:
    with clock.stage("make rows"):
        made = make(job, source_model(job.setting, job.options, progress), progress)
    with clock.stage("write"):
        manifest = assemble(job, made, staging, progress)
    del made
    with clock.stage("verify"):
        report = verify(
            staging,
            level=cast(Any, job.options.verify),
            source=job.setting.checkpoint.folder,
            strict=job.options.strict,
            trust_remote_code=job.options.trust_remote_code,
            progress=progress,
        )
    report.raise_errors()
    return finish(job, manifest, report.as_dict(), clock.stages, staging), report


def _outcome(job: Job, manifest: Manifest, report: VerifyReport, clock: Clock, pushed: str | None) -> Outcome:
    warnings = tuple(str(change) for change in manifest.changes if change.warning)
    return Outcome(
        output=job.options.output,
        overlap=job.overlap,
        template=job.setting.template.reason,
        notes=job.setting.notes,
        changes=tuple(str(change) for change in manifest.changes),
        warnings=(*warnings, *report.warnings),
        verified=report.summary,
        stages=clock.stages,
        seconds=clock.seconds,
        pushed=pushed,
    )
