"""Run a method, and its fallback for the tokens that it left without a row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tokenadapt.methods.merge_rows import fill
from tokenadapt.methods.options import Chosen
from tokenadapt.methods.registry import Need, find, lacks
from tokenadapt.methods.subset import subset
from tokenadapt.plan import Dense, Plan, Problem
from tokenadapt.vocab.types import Ids

MEAN = Chosen("mean")


def make_rows(
    problem: Problem, chosen: Chosen, fallback: Chosen = MEAN, *, say: Callable[[str], object] | None = None
) -> Plan | Dense:
    """A row for every missing token: by the method, else by the fallback, else the mean of the old rows.

    `say` is told how many tokens the method had nothing for, where there are any, and what made them.
    """
    made, total = run(problem, chosen), len(problem.alignment.missing)
    for reserve in (fallback, MEAN):
        hole = holes(made)
        if len(hole):
            made = fill(problem.table, made, run(subset(problem, hole), reserve), hole)
            filled = len(hole) - len(holes(made))
            if filled and say:
                say(f"{chosen.name} has no row for {filled:,} of {total:,} tokens: the fallback, {reserve}, makes them")
    return made


def run(problem: Problem, chosen: Chosen) -> Plan | Dense:
    """The method alone; tokens may be left empty."""
    method = find(chosen.name)
    given: dict[Need, object] = {
        "space": problem.space, "model": problem.model, "corpus": problem.corpus, "donor": problem.donor, "files": True,
    }  # fmt: skip
    for need in method.needs:
        if given[need] is None:
            raise lacks(method.name, need)
    M = len(problem.alignment.missing)
    if not M:
        return Plan(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    made = method.load()(problem, **chosen.options)
    rows = len(made.rows) if isinstance(made, Dense) else len(made.start) - 1
    if rows != M:
        raise ValueError(f"the method {method.name} made {rows} rows for {M} tokens")
    return made


def holes(made: Plan | Dense) -> Ids:
    """Positions among the missing tokens that have no row yet."""
    if made.empty is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(made.empty)
