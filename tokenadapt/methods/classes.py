"""Rows of several methods: how many pieces a token has, and how it begins, says which makes its row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from tokenadapt.methods.make import run
from tokenadapt.methods.merge_rows import select
from tokenadapt.methods.options import Chosen, parse_method
from tokenadapt.plan import Dense, Plan, Problem
from tokenadapt.vocab.types import Ids

NAME: Final = "classes"
REST: Final = "rest"
SIZES: Final = ("two", "three", "more")
CLASSES: Final = tuple(f"{size}{place}" for size in SIZES for place in ("", "_inside"))


def classes(
    problem: Problem,
    *,
    rest: str = "pieces",
    two: str = "",
    two_inside: str = "",
    three: str = "",
    three_inside: str = "",
    more: str = "",
    more_inside: str = "",
) -> Plan | Dense:
    """Each token's row by the method that is named for its class, or else by `rest`.

    A class is a number of pieces, and whether the token begins with a space: `two` (or fewer), `three` and `more` do,
    `two_inside`, `three_inside` and `more_inside` do not. Every method makes all rows, so that it sees the whole
    vocabulary, and each token takes its own. A method may have an option of its own: three=learned:share=0.5.
    """
    by_class = (two, two_inside, three, three_inside, more, more_inside)
    methods, which = spread_over(tuple(text or rest for text in by_class))
    made = [run(problem, method) for method in methods]
    return select(problem.table, made, which[class_of(problem)])


def spread_over(texts: Sequence[str]) -> tuple[list[Chosen], Ids]:
    """The different methods that are named for the classes, and which of them each class takes: (classes,)."""
    known: dict[str, Chosen] = {}
    named = []
    for text in texts:
        chosen = parse_method(text)
        known.setdefault(str(chosen), chosen)
        named.append(str(chosen))
    order = list(known)
    return list(known.values()), np.array([order.index(name) for name in named], dtype=np.int64)


def methods_of(chosen: Chosen) -> tuple[list[Chosen], Ids]:
    """The same of `classes` with its options."""
    rest = chosen.options.get(REST, "pieces")
    return spread_over([chosen.options.get(name) or rest for name in CLASSES])


def joined(by_class: Sequence[Chosen]) -> Chosen:
    """One method that gives each class its own: the plain one where all are the same."""
    names = [str(chosen) for chosen in by_class]
    rest = max(names, key=lambda name: (names.count(name), -names.index(name)))
    others = {kind: name for kind, name in zip(CLASSES, names, strict=True) if name != rest}
    return Chosen(NAME, {REST: rest, **others}) if others else by_class[0]


def class_of(problem: Problem) -> Ids:
    """The class of each missing token, as a place in CLASSES: (M,)."""
    size = np.clip(problem.segmentation.counts, 2, 4) - 2
    texts = [problem.target.token_bytes[index] or b"" for index in problem.alignment.missing.tolist()]
    inside = np.array([not text.startswith(b" ") for text in texts], dtype=np.int64)
    return 2 * size + inside
