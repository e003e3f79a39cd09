"""Whether a choice of output rows holds where the whole new vocabulary is in place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from tokenadapt.errors import TokenAdaptError
from tokenadapt.methods.likelihood import Cost, cost, cost_of
from tokenadapt.methods.make import make_rows
from tokenadapt.methods.options import Chosen
from tokenadapt.methods.own_text import FEWEST, Retold, observe, of_inputs, retell
from tokenadapt.methods.pieces import pieces
from tokenadapt.plan import Problem

log = logging.getLogger(__name__)

TEXTS: Final = 128  # that the source model writes


def best_in_place(problem: Problem, named: Sequence[Chosen], taken: Chosen) -> Chosen:
    """`taken`, or another method under whose whole table texts of the source model's own clearly cost less.

    Hidden old tokens are some hundred, and common; a new vocabulary has a hundred times as many new tokens, most of
    them rare, and what they take from each other and from copied ones shows only when all stand side by side. The texts
    are those of `stacked`, read in target tokens by the model with its new input rows. `named[0]` is what any other
    must clearly beat.
    """
    try:
        told = retell(problem, TEXTS)
        if sum(int(text.chosen.sum()) for text in told) < FEWEST:
            return taken
        every = [*named, *([] if taken in named else [taken])]
        costs = _costs(problem, every, told)
    except TokenAdaptError as error:
        log.warning("auto: the whole swap is not tried, for the source model wrote no texts. %s", error)
        return taken
    best = min(range(len(every)), key=lambda place: costs[place].bits_per_byte)
    for other in (every.index(taken), 0):
        if not costs[best].clearly_below(costs[other]):
            best = other
    for chosen, found in zip(every, costs, strict=True):
        problem.progress.note(
            f"auto, {problem.role} rows by {chosen}: {found.bits_per_byte:.3f} bits per byte of the model's own texts, "
            f"all new rows in place{': taken' if chosen is every[best] else ''}"
        )
    return every[best]


def _costs(problem: Problem, named: Sequence[Chosen], told: Sequence[Retold]) -> list[Cost]:
    """What the texts cost under each method's table; a tied table is read as well as written."""
    found = []
    seen = None if problem.tied else observe(problem, problem.inputs or pieces(of_inputs(problem)), told)
    with problem.progress.stage("try methods with all new rows in place", len(named), "methods") as advance:
        for chosen in named:
            made = make_rows(problem, chosen)
            found.append(cost(problem, made, made, told) if seen is None else cost_of(problem, made, seen))
            advance(1)
    return found
