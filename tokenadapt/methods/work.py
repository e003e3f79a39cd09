"""How much of the source model methods run: for an estimate before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tokenadapt.methods.learned import DEPTHS, MOST
from tokenadapt.methods.mixture import POSITIONS, RIVALS
from tokenadapt.methods.options import Chosen
from tokenadapt.methods.own_text import LENGTH
from tokenadapt.methods.stacked import texts_of
from tokenadapt.methods.within import within

LEARNING: Final = ("learned", "stacked")  # methods that read old tokens and missing ones by their pieces
STEPS: Final = 1.6  # positions that a run of pieces costs: what begins alike is read once
BLOCKS: Final = 120_000_000  # numbers in the blocks of a regression
READ: Final = 2.1  # positions that are run for each that is written: it is read again, some of it twice
JUDGED: Final = 272 * 128  # positions by which `auto` chooses


@dataclass(frozen=True)
class Sizes:
    """Of one transplant: rows of both tables, missing tokens, width."""

    source_rows: int
    target_rows: int
    missing: int
    width: int


@dataclass(frozen=True)
class Work:
    """What making rows takes, to an order of magnitude."""

    layers: float = 0  # positions that pass all layers of the model
    logits: float = 0  # products of a state and a row
    numbers: float = 0  # float32 numbers that are held at once, besides the model

    def __add__(self, other: Work) -> Work:
        """One after the other."""
        return Work(self.layers + other.layers, self.logits + other.logits, max(self.numbers, other.numbers))


def work_of(methods: Iterable[Chosen], sizes: Sizes) -> Work:
    """That of some methods and of those that they name; a method twice, and states that two read, count once."""
    chosen = {str(one): one for method in methods for one in within(method)}.values()
    depth = max(map(_depth, chosen), default=0.0)
    strings = min(sizes.source_rows, MOST) + sizes.missing
    numbers = 2 * sizes.missing * sizes.width + BLOCKS if depth else 0
    return sum((_besides(one, sizes) for one in chosen), Work(STEPS * strings * depth, 0, numbers))


def _depth(chosen: Chosen) -> float:
    """Share of the layers by which a method reads runs of pieces."""
    learning = max(DEPTHS[chosen.options.get("effort", "full")], default=0.0) if chosen.name in LEARNING else 0.0
    return 1.0 if chosen.name == "chain" else learning


def _besides(chosen: Chosen, sizes: Sizes) -> Work:
    """What a method does besides reading runs of pieces."""
    both = sizes.source_rows + sizes.target_rows
    if chosen.name == "chain":
        return Work(0, STEPS * sizes.missing * sizes.source_rows, 0)
    if chosen.name == "auto":
        return Work(READ * JUDGED, JUDGED * both, 3 * sizes.missing * sizes.width)
    if chosen.name == "stacked":
        texts = chosen.options.get("texts") or texts_of(chosen.options.get("effort", "full"), sizes.missing)
        written = LENGTH * texts
        fit = 2 * min(POSITIONS[1], written) * RIVALS  # four rules in half precision
        return Work(READ * written, written * both, (4 * sizes.missing + 1.5 * written) * sizes.width + fit)
    return Work()
