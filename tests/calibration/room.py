"""A teacher and a student over one tiny body, put together in memory."""

from __future__ import annotations

import numpy as np
import torch

from tests.tiny import tiny_model
from tokenadapt.calibration.batches import build
from tokenadapt.calibration.body import Body
from tokenadapt.calibration.examples import Example
from tokenadapt.calibration.group import Group
from tokenadapt.calibration.lesson import Lesson
from tokenadapt.calibration.objectives import asked_by, make_objectives
from tokenadapt.calibration.objectives.terms import parse_terms
from tokenadapt.calibration.spans import Shared
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.calibration.split import SplitTable
from tokenadapt.calibration.view import Common, Starts
from tokenadapt.plan import MemoryTable

OLD, NEW = 20, 24


def speakers(*, tied=True, noise=0.3, dtype=torch.float64, permuted=False, model=None, seed=0):
    """Teacher with 20 tokens, student with 24: 0-15 are the teacher's 4-19, 16-23 are new; or a permutation of all."""
    model = model or tiny_model(OLD, tied=tied, width=16, layers=3, seed=seed)
    model = model.to(dtype)
    rows = {
        "output": model.get_output_embeddings().weight.detach().clone(),
        "input": model.get_input_embeddings().weight.detach().clone(),
    }
    generator = torch.Generator().manual_seed(seed)
    if permuted:
        source = torch.randperm(OLD, generator=generator)
        made = {role: table[source] for role, table in rows.items()}
        new = np.arange(5, 12)
    else:
        source = torch.cat([torch.arange(4, OLD), torch.full((8,), -1)])
        extra = {role: noise * torch.randn(8, 16, generator=generator, dtype=dtype) for role in rows}
        made = {role: torch.cat([table[4:], extra["output" if tied else role]]) for role, table in rows.items()}
        new = np.arange(16, NEW)
    body = Body(model)
    roles = ["output"] if tied else ["input", "output"]
    none = np.zeros(0, np.int64)
    teacher = Speaker(body, {role: SplitTable(MemoryTable(rows[role]), none, dtype) for role in roles})
    student = Speaker(body, {role: SplitTable(MemoryTable(made[role]), new, dtype) for role in roles}).to(dtype)
    teacher.requires_grad_(False)
    return student, teacher.to(dtype), source, new


def lesson(objective: str, given=None, **options) -> Lesson:
    student, teacher, source, new = given or speakers(**options)
    body = student.body
    objectives = make_objectives(parse_terms(objective), body)
    taken = torch.nonzero(source >= 0)[:, 0]
    is_new = torch.zeros(len(source), dtype=torch.bool)
    is_new[torch.from_numpy(new)] = True
    common = Common(student.output.place[taken], teacher.output.place[source[taken]])
    begins = torch.where(source >= 0, source, torch.arange(len(source)) % 4)  # with which old token a new one begins
    starts = Starts(begins[student.output.order], torch.arange(OLD)[teacher.output.order], OLD)
    return Lesson(
        student, teacher, objectives, asked_by(objectives, body), common, is_new, batch_tokens=256, starts=starts
    )


def example(seed: int, tokens: int = 12, prefix: int = 1, old: int = OLD, new: int = NEW) -> Example:
    """A text whose student tokens end where every second of the teacher's does."""
    rng = np.random.default_rng(seed)
    ours, theirs = rng.integers(0, new, tokens + prefix), rng.integers(0, old, 2 * tokens + prefix)
    shared = Shared(np.arange(tokens) + prefix, 2 * np.arange(tokens) + 1 + prefix)
    return Example(ours, theirs, shared, (prefix, prefix), f"example {seed}", 3 * tokens)


def examples(count: int, **options) -> list[Example]:
    return [example(seed, tokens=6 + seed % 5, **options) for seed in range(count)]


def value(made: Lesson, given: list[Example]) -> float:
    """The weighted loss over examples, without gradients."""
    with torch.no_grad():
        total = 0.0
        for one in made.objectives:
            views = [made.view(batch) for batch in made.batches(given)]
            count = sum(one.objective.count(view.batch, view) for view in views)
            total += one.weight * float(sum(one.objective.loss(view) for view in views)) / max(1, count)
    return total


def gradients(made: Lesson, given: list[Example]) -> dict[str, torch.Tensor]:
    tables = made.student.tables()
    for table in tables.values():
        table.trained.grad = None
    made.gradients(given, Group())
    return {role: table.trained.grad for role, table in tables.items()}


__all__ = ["NEW", "OLD", "build", "example", "examples", "gradients", "lesson", "speakers", "value"]
