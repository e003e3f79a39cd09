"""The rule that does least harm when the source model's own tokens are hidden and made again by it."""

from __future__ import annotations

import numpy as np

from tokenadapt.errors import RequestError
from tokenadapt.methods.in_place import best_in_place
from tokenadapt.methods.make import run
from tokenadapt.methods.options import Chosen, NonNegative, parse_method
from tokenadapt.methods.refine import refine
from tokenadapt.methods.registry import find
from tokenadapt.methods.statistics import spread
from tokenadapt.plan import Dense, Plan, Problem

CANDIDATES = "pieces+length+ends+learned+hybrid"
BASE = "pieces"


def auto(
    problem: Problem,
    *,
    of: str = CANDIDATES,
    noise: NonNegative = 2.0,
    by_class: bool = True,
    in_place: bool = True,
) -> Plan | Dense:
    """The rows of the best of several methods, chosen for each role by what it does to old tokens.

    Some of the old tokens that occur in texts of the source model's own are hidden, each candidate makes their rows as
    if they were missing, and the change in bits per byte that the model then gives these texts is the candidate's
    harm. `of` names the candidates, joined by +; `pieces` is always among them, and is taken unless the best of the
    others does less harm by more than `noise` standard errors (paired over texts). `by_class` then tries others for
    tokens of two pieces, of three, of more, and for those that begin with a space or do not: the result is `classes`
    where one of them does less harm there. `in_place` then makes whole output (or tied) tables by the candidates, and
    takes another one where texts of the model's own clearly cost less under it.
    """
    return run(problem, pick(problem, of, noise, by_class, in_place))


def settled(problem: Problem, chosen: Chosen) -> Chosen:
    """The method itself; for `auto` the one that it takes, so that a result can say by what it was made."""
    return pick(problem, **chosen.options) if chosen.name == "auto" else chosen


def pick(
    problem: Problem, of: str = CANDIDATES, noise: float = 2.0, by_class: bool = True, in_place: bool = True
) -> Chosen:
    """The candidate of least harm, or several by class; says each one's figure."""
    if problem.score is None:
        raise RequestError(
            "The method auto needs a judge of old tokens that are hidden, and was given none.",
            "Run it by `tokenadapt transplant`, or choose a method by its name.",
        )
    named = candidates(of)
    if of == CANDIDATES and problem.space is None:
        named = tuple(chosen for chosen in named if "space" not in find(chosen.name).needs)
    with problem.progress.stage("try methods on hidden old tokens", len(named), "methods") as advance:
        harm = []
        for chosen in named:
            harm.append(problem.score(str(chosen)))
            advance(1)
    gain = [harm[0] - each for each in harm]
    best = int(np.argmax([each.sum() for each in gain]))  # the first of equals
    if gain[best].sum() <= noise * spread(gain[best]):
        best = 0
    for place, chosen in enumerate(named):
        beside = f", {-gain[place].sum():+.4f} ± {spread(gain[place]):.4f} beside {BASE}" if place else ""
        problem.progress.note(
            f"auto, {problem.role} rows by {chosen}: {harm[place].sum():+.4f} bits per byte where old tokens are hidden"
            f"{beside}{': taken' if place == best else ''}"
        )
    taken = refine(problem, named, best, noise) if by_class else named[best]
    able = in_place and problem.role == "output" and problem.model is not None
    return best_in_place(problem, named, taken) if able else taken


def candidates(of: str) -> tuple[Chosen, ...]:
    """The methods named in `of`, `pieces` first; RequestError where one is unknown."""
    named = {BASE: Chosen(BASE)}
    for text in filter(None, (part.strip() for part in of.split("+"))):
        chosen = parse_method(text)
        if chosen.name == "auto":
            raise RequestError("The method auto cannot choose itself.", f"Name other methods: of={CANDIDATES}.")
        named[str(chosen)] = chosen
    return tuple(named.values())
