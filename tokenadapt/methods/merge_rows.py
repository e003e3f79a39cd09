"""Rows from two methods as one value: a plan where both are plans, rows otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.plan import BLOCK_ROWS, Dense, Plan, Table, missing_rows
from tokenadapt.vocab.types import Ids


def fill(table: Table, made: Plan | Dense, more: Plan | Dense, hole: Ids) -> Plan | Dense:
    """`made` with its empty rows `hole` (ascending) taken from `more`, whose row i is for hole[i]."""
    if isinstance(made, Plan) and isinstance(more, Plan) and _fit(made, more):
        total = len(made.start) - 1
        which = np.zeros(total, np.int64)
        which[hole] = 1
        return _select_plan([made, _spread_out(more, hole, total)], which)
    rows = as_rows(table, made)
    for first in range(0, len(hole), BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, len(hole))
        rows[torch.from_numpy(hole[first:last])] = missing_rows(table, more, first, last)
    empty = np.zeros(len(rows), dtype=bool)
    if more.empty is not None:
        empty[hole] = more.empty
    return Dense(rows, empty, _primitives((made, more)))


def select(table: Table, made: Sequence[Plan | Dense], which: Ids) -> Plan | Dense:
    """Row j from `made[which[j]]`; all are of the same tokens."""
    plans = [one for one in made if isinstance(one, Plan)]
    if len(plans) == len(made) and all(_fit(one, other) for one, other in combinations(plans, 2)):
        return _select_plan(plans, which)
    rows, empty = torch.zeros(len(which), table.shape[1]), np.zeros(len(which), dtype=bool)
    for first in range(0, len(which), BLOCK_ROWS):
        part = which[first : first + BLOCK_ROWS]
        for number in np.unique(part).tolist():
            here = np.flatnonzero(part == number)
            found = missing_rows(table, made[number], first, first + len(part))
            rows[torch.from_numpy(first + here)] = found[torch.from_numpy(here)]
    for number, one in enumerate(made):
        if one.empty is not None:
            empty |= (which == number) & one.empty
    return Dense(rows, empty, _primitives(made))


def _primitives(made: Sequence[Plan | Dense]) -> torch.Tensor | None:
    return next((one.primitives for one in made if isinstance(one, Dense) and one.primitives is not None), None)


def _select_plan(plans: Sequence[Plan], which: Ids) -> Plan:
    counts = np.stack([np.diff(plan.start) for plan in plans])[which, np.arange(len(which))]
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    source, weight = np.empty(start[-1], np.int64), np.empty(start[-1], np.float32)
    for number, plan in enumerate(plans):
        size = np.diff(plan.start)
        taken = np.repeat(which == number, size)
        moved = np.repeat(start[:-1] - plan.start[:-1], size) + np.arange(len(plan.source_id))
        source[moved[taken]], weight[moved[taken]] = plan.source_id[taken], plan.weight[taken]

    def per_row(name: Literal["scale", "bias"], neutral: float) -> NDArray[np.float32] | None:
        given = [getattr(plan, name) for plan in plans]
        if all(one is None for one in given):
            return None
        filled = [np.full(len(which), neutral, np.float32) if one is None else one for one in given]
        return np.stack(filled)[which, np.arange(len(which))]

    def shared(name: Literal["shift", "direction", "mean"]) -> NDArray[np.float32] | None:
        return next((found for plan in plans if (found := getattr(plan, name)) is not None), None)

    return Plan(
        start,
        source,
        weight,
        scale=per_row("scale", 1.0),
        shift=shared("shift"),
        bias=per_row("bias", 0.0),
        direction=shared("direction"),
        mean=shared("mean"),
    )


def as_rows(table: Table, made: Plan | Dense) -> torch.Tensor:
    """All rows in float32, writable: (M, D)."""
    if isinstance(made, Dense):
        return made.rows.clone()
    M = len(made.start) - 1
    rows = torch.empty(M, table.shape[1])
    for first in range(0, M, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, M)
        rows[first:last] = missing_rows(table, made, first, last)
    return rows


def _fit(made: Plan, more: Plan) -> bool:
    """Whether one shift, one direction and one mean serve both plans."""
    return all(_same(getattr(made, name), getattr(more, name)) for name in ("shift", "direction", "mean"))


def _same(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> bool:
    return a is None or b is None or np.array_equal(a, b)


def _spread_out(plan: Plan, hole: Ids, total: int) -> Plan:
    """A plan whose row i is for hole[i] (ascending), as one of `total` rows: the others are empty."""
    counts = np.zeros(total, np.int64)
    counts[hole] = np.diff(plan.start)

    def per_row(given: NDArray[np.float32] | None, neutral: float) -> NDArray[np.float32] | None:
        if given is None:
            return None
        whole = np.full(total, neutral, np.float32)
        whole[hole] = given
        return whole

    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return replace(plan, start=start, scale=per_row(plan.scale, 1.0), bias=per_row(plan.bias, 0.0))
