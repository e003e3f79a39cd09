"""The methods that a chosen method names in its options, and what all of them need."""

from __future__ import annotations

from tokenadapt.methods.auto import CANDIDATES, candidates
from tokenadapt.methods.classes import NAME, methods_of
from tokenadapt.methods.options import Chosen
from tokenadapt.methods.registry import Need, find


def within(chosen: Chosen) -> tuple[Chosen, ...]:
    """The method itself and all that it may run; RequestError where one is unknown."""
    if chosen.name == "auto":
        inner = candidates(chosen.options.get("of", CANDIDATES))
    else:
        inner = tuple(methods_of(chosen)[0]) if chosen.name == NAME else ()
    return (chosen, *(each for one in inner for each in within(one)))


def needs_of(chosen: Chosen) -> set[Need]:
    """What a method asks for, and what those that it names do."""
    return {need for each in within(chosen) for need in find(each.name).needs}
