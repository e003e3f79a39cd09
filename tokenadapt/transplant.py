"""The road: the stages of a transplant in order. The only file that knows them all."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenadapt.assemble import Job, assemble, finish
from tokenadapt.atomic import staged_folder
from tokenadapt.checkpoint.manifest import Manifest
from tokenadapt.checkpoint.tables import check_finite
from tokenadapt.checkpoint.verify import VerifyReport, verify
from tokenadapt.making import Choice, MadeRole, choose, make, source_model
from tokenadapt.overlap import Overlap, measure_overlap
from tokenadapt.progress import SILENT, Progress
from tokenadapt.recipe import TransplantOptions
from tokenadapt.setting import Setting, prepare


@dataclass(frozen=True)
class Outcome:
    """What a transplant did."""

    output: str
    overlap: Overlap
    template: str
    notes: tuple[str, ...]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    verified: str
    stages: dict[str, float]  # seconds
    seconds: float
    pushed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.perf_counter()
        yield
        self.stages[name] = round(time.perf_counter() - began, 3)

    @property
    def seconds(self) -> float:
        """Since the clock was made."""
        return time.perf_counter() - self.began


def transplant(options: TransplantOptions, progress: Progress = SILENT) -> Outcome:
    """Give a model another tokenizer and write the checkpoint; whole and verified, or not at all.

    Raises RequestError where the request cannot work, VerificationError where the result fails a check.
    """
    clock = Clock()
    choose(options, ("input", "output"))  # a wrong name fails before anything is opened
    with clock.stage("read and align"):
        setting = prepare(options, progress)
        overlap = measure_overlap(setting)
    choice = choose(options, setting.roles)
    with staged_folder(Path(options.output), overwrite=options.overwrite, inputs=_inputs(setting)) as staging:
        with clock.stage("check the source"):
            for role, ref in setting.checkpoint.tables.items():
                check_finite(setting.checkpoint.table(role), ref.name, progress)
        manifest, report = _build(Job(setting, options, choice, overlap), staging, clock, progress)
    pushed = None
    if options.push_to_hub:
        from tokenadapt.checkpoint.hub import push_folder

        with clock.stage("upload"):
            pushed = push_folder(
                Path(options.output), options.push_to_hub, private=not options.public, progress=progress
            )
    return _outcome(options, setting, overlap, manifest, report, clock, pushed)


def _build(job: Job, staging: Path, clock: Clock, progress: Progress) -> tuple[Manifest, VerifyReport]:
    made = _make(job.setting, job.choice, job.options, clock, progress)
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


def _make(
    setting: Setting, choice: Choice, options: TransplantOptions, clock: Clock, progress: Progress
) -> tuple[MadeRole, ...]:
    model = source_model(setting, options, progress)
    with clock.stage("make rows"):
        return make(setting, choice, options, model, progress)


def _inputs(setting: Setting) -> tuple[Path, ...]:
    tokenizer = setting.target_tokenizer.path
    return (setting.checkpoint.folder, tokenizer if tokenizer.is_dir() else tokenizer.parent)


def _outcome(
    options: TransplantOptions,
    setting: Setting,
    overlap: Overlap,
    manifest: Manifest,
    report: VerifyReport,
    clock: Clock,
    pushed: str | None,
) -> Outcome:
    warnings = tuple(str(change) for change in manifest.changes if change.warning)
    return Outcome(
        output=options.output,
        overlap=overlap,
        template=setting.template.reason,
        notes=setting.notes,
        changes=tuple(str(change) for change in manifest.changes),
        warnings=(*warnings, *report.warnings),
        verified=report.summary,
        stages=clock.stages,
        seconds=clock.seconds,
        pushed=pushed,
    )
