"""A saved plan, applied to another checkpoint with the same source vocabulary: ids and weights, no method is run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tokenadapt.checkpoint.saved_plan import SavedPlan, load_plan, vocabulary_hash
from tokenadapt.choice import Choice, choose
from tokenadapt.errors import RequestError
from tokenadapt.explain import calibrations
from tokenadapt.finishing import calibrate_norms
from tokenadapt.making import Job
from tokenadapt.methods.statistics import mean_row
from tokenadapt.outcome import Clock, Outcome
from tokenadapt.overlap import measure_overlap
from tokenadapt.plan import MEAN, Plan, Problem, Role
from tokenadapt.progress import SILENT, Progress
from tokenadapt.recipe import TransplantOptions
from tokenadapt.setting import Setting, prepare
from tokenadapt.transplant import run_job
from tokenadapt.vocab import segment


def apply_plan(plan: Path, options: TransplantOptions, progress: Progress = SILENT) -> Outcome:
    """Make the rows that `plan` describes from the tables of another model.

    `options.tokenizer` is the target tokenizer, in most cases the folder that holds the plan. Norm calibration and
    biases that followed the sums are made again from the new model. Raises RequestError where the vocabularies are not
    those of the plan, and where rows of the plan are no mix of old rows.
    """
    clock = Clock()
    saved = load_plan(plan)
    saved.plans()  # rows that are no mix are refused before anything else is read
    if calibrations(plan if plan.is_dir() else plan.parent):
        progress.note(
            "the result that this plan lies in was calibrated, which a plan does not hold: calibrate the new result too"
        )
    options = dataclasses.replace(options, **_settings(saved))
    with clock.stage("read and align"):
        setting = _setting(saved, prepare(options, progress), options)
    choice = choose(options, setting.roles)
    job = Job(setting, options, choice, measure_overlap(setting), rows=lambda problem: _rows(problem, saved, choice))
    return run_job(job, clock, progress)


def _settings(saved: SavedPlan) -> dict[str, Any]:
    """The options that made the plan."""
    made: dict[str, Any] = {
        "method": saved.methods.get("input", saved.methods["output"]),
        "fallback": saved.options.get("fallback", "mean"),
    }
    if "input" in saved.methods:
        made["output_method"] = saved.methods["output"]
        made["untie"] = True
    for part in filter(None, saved.calibration.split(",")):
        name, _, value = part.partition("=")
        made["calibrate_norm" if name == "norm" else "bias_per_piece"] = float(value) if value else True
    return made


def _setting(saved: SavedPlan, fresh: Setting, options: TransplantOptions) -> Setting:
    """The setting of the new model with the plan's own alignment."""
    sides = (
        ("source", vocabulary_hash(fresh.source), saved.source_hash, options.model),
        ("target", vocabulary_hash(fresh.target), saved.target_hash, options.tokenizer),
    )
    for side, now, then, spec in sides:
        if now != then:
            raise RequestError(
                f"The {side} vocabulary of {spec} is not the one that the plan was made for.",
                "A plan serves checkpoints whose ids mean the same; run tokenadapt transplant for this one.",
            )
    alignment = saved.alignment
    if int(alignment.source_id.max(initial=-1)) >= fresh.checkpoint.rows:
        raise RequestError(
            f"The plan copies rows that {options.model} lacks: it has {fresh.checkpoint.rows}.",
            "Run tokenadapt transplant for this checkpoint.",
        )
    cut = segment(fresh.source, fresh.target, alignment)
    tied = fresh.checkpoint.tied and "input" not in saved.made
    return dataclasses.replace(fresh, alignment=alignment, segmentation=cut, tied=tied)


def _rows(problem: Problem, saved: SavedPlan, choice: Choice) -> Plan:
    plans = saved.plans()
    role: Role = problem.role if problem.role in plans else "output"
    made = plans[role]
    if (made.source_id == MEAN).any():
        made = dataclasses.replace(made, mean=mean_row(problem.table, problem.ordinary).astype(np.float32))
    top = int(made.source_id.max(initial=-1))
    if top >= problem.table.shape[0]:
        raise RequestError(
            f"The plan mixes old row {top}, but the model has {problem.table.shape[0]} rows.",
            "Run tokenadapt transplant for this checkpoint.",
        )
    if role in saved.scaled and not choice.calibrate_norm:  # the method itself calibrates norms
        calibrated = calibrate_norms(problem, made)
        assert isinstance(calibrated, Plan)
        assert calibrated.scale is not None
        scale = calibrated.scale.copy()
        scale[~saved.scaled[role]] = 1
        return dataclasses.replace(calibrated, scale=scale)
    return made
