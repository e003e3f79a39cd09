"""Objectives by name: one small file each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.objectives.attention import Attention
from tokenadapt.calibration.objectives.base import Objective, Weighted
from tokenadapt.calibration.objectives.bytes_ import Bytes
from tokenadapt.calibration.objectives.hidden import Hidden
from tokenadapt.calibration.objectives.logits import Logits
from tokenadapt.calibration.objectives.starts import Starts
from tokenadapt.calibration.objectives.terms import Term
from tokenadapt.calibration.objectives.text import Text

__all__ = ["Objective", "Weighted", "asked_by", "make_objectives"]

_MAKERS: Final[dict[str, Callable[[Term, Body], Objective]]] = {
    "hidden": lambda term, body: Hidden(body.layer(term.setting)),
    "logits": lambda term, body: Logits(),
    "bytes": lambda term, body: Bytes(float(term.setting or 100)),
    "attention": lambda term, body: Attention(float(term.setting or 1 / 3)),
    "starts": lambda term, body: Starts(),
    "text": lambda term, body: Text(new_only=term.setting == "new"),
}


def make_objectives(terms: Sequence[Term], body: Body) -> tuple[Weighted, ...]:
    """The objectives that a user asked for, for one model."""
    return tuple(Weighted(term.name, term.weight, _MAKERS[term.name](term, body)) for term in terms)


def asked_by(objectives: Sequence[Weighted], body: Body) -> Asked:
    """What readings must leave for all of them."""
    each = [one.objective.asked(body) for one in objectives]
    layers = tuple(sorted({layer for asked in each for layer in asked.layers}))
    return Asked(layers, max((asked.attentions for asked in each), default=0))
