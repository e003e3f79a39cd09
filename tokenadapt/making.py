"""From a setting to rows: a Problem per role, the chosen method, what follows it, and rows for unused ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from tokenadapt.anchors import Anchors, Judge, RowModel
from tokenadapt.checkpoint.source import SourceCheckpoint
from tokenadapt.checkpoint.tokenizer_files import SAMPLES
from tokenadapt.checkpoint.verify.running import bytes_in_memory, free_memory
from tokenadapt.choice import Choice
from tokenadapt.donor import open_donor
from tokenadapt.finishing import add_bias, calibrate_norms
from tokenadapt.forward import Sampling
from tokenadapt.methods.auto import settled
from tokenadapt.methods.make import make_rows
from tokenadapt.methods.statistics import mean_row
from tokenadapt.model import SourceModel, device_of
from tokenadapt.overlap import Overlap
from tokenadapt.plan import (
    Dense,
    Donor,
    MemoryTable,
    Model,
    Plan,
    Problem,
    Role,
    Space,
    Table,
    build_table,
    ordinary_ids,
)
from tokenadapt.progress import SILENT, Progress
from tokenadapt.recipe import TransplantOptions
from tokenadapt.setting import Setting
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.options import SpaceOptions
from tokenadapt.unused import unused_bias, unused_rows
from tokenadapt.vocab.types import Alignment, ByteVocab, Segmentation


@dataclass(frozen=True)
class MadeRole:
    """All that a new table of one role is built from."""

    role: Role
    old: Table
    made: Plan | Dense
    unused: torch.Tensor  # (D,)
    alignment: Alignment = field(repr=False)
    dtype: torch.dtype = torch.float32
    method: str = ""  # that made them: where the choice is auto, the one it took

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width of the new table."""
        return len(self.alignment.how), self.old.shape[1]

    def blocks(self) -> Iterator[torch.Tensor]:
        """The new table's rows, anew at each call."""
        return build_table(self.old, self.alignment, self.made, self.unused, dtype=self.dtype)


@dataclass(frozen=True)
class Job:
    """One transplant: its inputs, what was asked for, and by which rule rows are made."""

    setting: Setting
    options: TransplantOptions
    choice: Choice
    overlap: Overlap
    rows: Callable[[Problem], Plan | Dense] | None = None  # instead of the methods: a saved plan


@dataclass(frozen=True)
class Helpers:
    """What methods may ask besides the problem's own values: opened once, for all roles."""

    model: Model
    space: Space | None
    donor: Donor | None


def source_model(setting: Setting, options: TransplantOptions, progress: Progress = SILENT) -> SourceModel:
    """The source model, loaded when a method first runs it."""
    checkpoint = setting.checkpoint
    roles: tuple[Role, ...] = ("input", "output")
    generation = checkpoint.generation_config or {}
    ends = generation.get("eos_token_id", setting.source.roles.get("eos"))
    stop = ends if isinstance(ends, list) else [ends]
    return SourceModel(
        checkpoint.folder,
        tables={role: checkpoint.table(role) for role in roles},
        tied=checkpoint.tied,
        kind=checkpoint.kind,
        start=setting.source.roles.get("bos", setting.source.roles.get("eos")),
        stop=[end for end in stop if end is not None],
        sampling=Sampling(seed=options.seed),
        device=options.device or "auto",
        trust_remote_code=options.trust_remote_code,
        barrier=_too_large(checkpoint, options.device or "auto"),
        progress=progress,
    )


def _too_large(checkpoint: SourceCheckpoint, device: str) -> str:
    """Why the model is not loaded, said in a clause; "" where it fits. An accelerator's own memory is not looked at."""
    if device_of(device).type != "cpu":
        return ""
    needed, free = bytes_in_memory(checkpoint, torch.float32), free_memory()
    return f"it takes {needed / 1e9:.1f} GB in float32, and {free / 1e9:.1f} GB are free" if needed > free else ""


def make(job: Job, model: RowModel, progress: Progress = SILENT) -> tuple[MadeRole, ...]:
    """New rows for every role of the output."""
    problems = pose(job, model, progress)
    judge = anchors_of(job, problems[0], model, progress)
    made: list[MadeRole] = []
    for problem in problems:
        known = replace(problem, score=Judge(judge, problem), inputs=made[0].made if made else None)
        made.append(_make_role(job, known, progress))
    return tuple(made)


def pose(job: Job, model: Model, progress: Progress = SILENT) -> list[Problem]:
    """What methods are asked, for every role of the output."""
    space = open_job_space(job, model, progress) if job.rows is None and job.choice.needs_space else None
    helpers = Helpers(model, space, open_donor(job.options, progress))
    return [_problem(job, helpers, role, progress) for role in job.setting.roles]


def anchors_of(job: Job, problem: Problem, model: RowModel, progress: Progress = SILENT) -> Anchors:
    """The judge of methods by old tokens that are hidden; it draws nothing before it is asked."""
    opener = partial(_open_space, job, model, progress)
    return Anchors(problem, model, tied=job.setting.tied, open_space=opener, progress=progress)


def open_job_space(job: Job, model: Model, progress: Progress) -> Space:
    """The space of a job, over its own tokens."""
    setting = job.setting
    return _open_space(job, model, progress, setting.source, setting.target, setting.alignment, setting.segmentation)


def _open_space(
    job: Job,
    model: Model,
    progress: Progress,
    source: ByteVocab,
    target: ByteVocab,
    alignment: Alignment,
    segmentation: Segmentation,
) -> Space:
    """The space that was asked for, over any tokens of the source model."""
    options = job.options
    return open_space(
        options.space,
        source=source,
        target=target,
        alignment=alignment,
        segmentation=segmentation,
        table=job.setting.checkpoint.table("input"),
        model=model,
        options=SpaceOptions(device=options.device, trust_remote_code=options.trust_remote_code),
        progress=progress,
    )


def _problem(job: Job, helpers: Helpers, role: Role, progress: Progress) -> Problem:
    setting, options = job.setting, job.options
    return Problem(
        source=setting.source,
        target=setting.target,
        alignment=setting.alignment,
        segmentation=setting.segmentation,
        role=role,
        table=setting.checkpoint.table(role),
        model=helpers.model,
        space=helpers.space,
        corpus=_corpus(options),
        donor=helpers.donor,
        seed=options.seed,
        tied=setting.tied,
        progress=progress,
    )


def _make_role(job: Job, problem: Problem, progress: Progress) -> MadeRole:
    setting, options, choice = job.setting, job.options, job.choice
    role, old = problem.role, problem.table
    named, chosen = "tied" if setting.tied else role, choice.methods[role]
    with progress.stage(f"make {named} rows by {chosen}"):
        if job.rows is None:
            chosen = settled(problem, chosen)
            made = make_rows(problem, chosen, choice.fallback, say=progress.note)
        else:
            made = job.rows(problem)
        made = finished(problem, made, choice)
    unused = unused_rows(problem, tied=setting.tied, readings=_readings(problem) if _will_run(job) else ())
    dtype = getattr(torch, options.dtype) if options.dtype else old.dtype
    return MadeRole(role, old, made, unused, setting.alignment, dtype, str(chosen))


def finished(problem: Problem, made: Plan | Dense, choice: Choice) -> Plan | Dense:
    """Rows after what is to follow them: norms that fit, a bias per piece."""
    if choice.calibrate_norm:
        made = calibrate_norms(problem, made)
    if choice.bias_per_piece and problem.role == "output":
        made = add_bias(problem, made, choice.bias_per_piece)
    return made


def _will_run(job: Job) -> bool:
    """Whether the checks will run the source model in any case, so that its states cost little more."""
    if job.options.verify not in ("auto", "full") or not len(job.setting.alignment.unused):
        return False
    return bytes_in_memory(job.setting.checkpoint, torch.float32) <= free_memory() // 2


def _readings(problem: Problem) -> list[list[int]]:
    """Beginnings of sample texts and short runs of random tokens: states of many kinds for a small forward pass."""
    start = [problem.source.roles["bos"]] if "bos" in problem.source.roles else []
    texts = [start + ids for ids in problem.source.encode(SAMPLES)]
    read = [text[max(0, end - 16) : end] for text in texts for end in range(1, len(text) + 1, 3)]
    drawn = np.random.default_rng(problem.seed).choice(problem.ordinary, (len(read), 6))
    return [*read, *(row[: 1 + number % 6].tolist() for number, row in enumerate(drawn))]


def _corpus(options: TransplantOptions) -> Callable[[], Iterator[str]] | None:
    """The texts of the corpus, something of every file early on: methods read so many lines and no more."""
    if not options.corpus:
        return None

    def texts() -> Iterator[str]:
        from tokenadapt.corpus import CorpusOptions, read_in_turn

        for document in read_in_turn(options.corpus, CorpusOptions(seed=options.seed)):
            yield document.text

    return texts


def make_bias(setting: Setting, made: MadeRole, bias: torch.Tensor) -> torch.Tensor:
    """A head bias for the new vocabulary, in its own shape and type: copied, mixed like the rows, lowest if unused."""
    column = MemoryTable(bias.reshape(-1, 1))
    plan = made.made
    if not isinstance(plan, Plan):
        counts = setting.segmentation.counts
        weight = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
        plan = Plan(setting.segmentation.start, setting.segmentation.piece, weight)
    usual = mean_row(column, ordinary_ids(setting.source, column.shape[0])).astype(np.float32)
    mixed = Plan(plan.start, plan.source_id, plan.weight, mean=usual)
    unused = torch.tensor([unused_bias(bias)])
    rows = torch.cat(list(build_table(column, setting.alignment, mixed, unused)))
    return rows.reshape(*bias.shape[:-1], -1)
