"""What a user types after --objective: names with weights and one setting each, `hidden@0.5=1,bytes=2`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from tokenadapt.errors import RequestError

NAMES: Final = ("hidden", "logits", "bytes", "attention", "starts", "text")
_TERM: Final = re.compile(r"([a-z]+)(?:@(-?[0-9.]+|new|all))?(?:=([0-9.]+(?:e-?[0-9]+)?))?")


@dataclass(frozen=True)
class Term:
    """One objective of a sum."""

    name: str
    weight: float = 1.0
    setting: str = ""  # after the @: a layer, a share of the layers, a temperature, or which tokens

    def __str__(self) -> str:
        return f"{self.name}{'@' + self.setting if self.setting else ''}={self.weight:g}"


def parse_terms(text: str) -> tuple[Term, ...]:
    """The sum that `text` asks for; raises RequestError for a name that is none, and for weights of nothing."""
    terms = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = _TERM.fullmatch(part)
        if match is None or match[1] not in NAMES:
            raise RequestError(
                f"{part!r} is no objective.", f"Say NAME=WEIGHT, with names among: {', '.join(NAMES)}; hidden=1,text=1."
            )
        term = Term(match[1], float(match[3] or 1), match[2] or "")
        _check(term)
        terms.append(term)
    if not any(term.weight for term in terms):
        raise RequestError(f"The objective {text!r} asks for nothing.", "Say hidden=1,text=1 for example.")
    if len({term.name for term in terms}) < len(terms):
        raise RequestError(f"The objective {text!r} names one objective twice.", "Add their weights up.")
    return tuple(term for term in terms if term.weight)


def _check(term: Term) -> None:
    words = term.setting in ("new", "all")
    if words != (term.name == "text" and bool(term.setting)):
        raise RequestError(f"{term} cannot be.", "Only text takes @new or @all; the others take a number after the @.")
    if term.name in ("bytes", "attention") and term.setting and not float(term.setting) > 0:
        raise RequestError(f"{term} cannot be.", "A temperature or a share of the layers is above 0.")
    if term.name in ("logits", "starts") and term.setting:
        raise RequestError(f"{term} cannot be.", f"{term.name} takes no setting.")
    if not math.isfinite(term.weight):
        raise RequestError(f"{term} has no finite weight.", "Give a number.")
