"""Whether another method does less harm for some classes of tokens than the best one for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tokenadapt.methods.classes import CLASSES, joined
from tokenadapt.methods.options import Chosen
from tokenadapt.methods.statistics import spread
from tokenadapt.plan import Problem

Floats = NDArray[np.float64]
GROUPS: Final = {
    "of two pieces": (0, 1),
    "of three pieces": (2, 3),
    "of four pieces or more": (4, 5),
    "that begin with a space": (0, 2, 4),
    "that do not begin with a space": (1, 3, 5),
}
ROUNDS: Final = 3  # changes at most
TRIES: Final = 2  # changes of one round that are tried out: on the input side the model reads its texts for each
FEWEST: Final = 20  # hidden tokens of a group below which it is left alone


@runtime_checkable
class JudgeOfClasses(Protocol):
    """A judge that says which classes of tokens do the harm."""

    @property
    def hidden(self) -> NDArray[np.int64]:
        """How many hidden tokens each class has."""
        ...

    def __call__(self, method: str) -> Floats:
        """The harm of a method, by text."""
        ...

    def shares(self, method: str) -> Floats:
        """The same by class: (texts, classes)."""
        ...


@dataclass(frozen=True)
class Change:
    """Another method for a group of classes, and the gain that the shares promise, by text."""

    group: str
    method: int
    promised: Floats

    def made(self, taken: Sequence[int]) -> tuple[int, ...]:
        """Which method each class has after it."""
        return tuple(self.method if kind in GROUPS[self.group] else old for kind, old in enumerate(taken))


def refine(problem: Problem, named: Sequence[Chosen], best: int, noise: float) -> Chosen:
    """`named[best]`, or `classes` with other methods for those groups of tokens where that does less harm.

    What each class would gain is read off the shares of each method's harm; the most promising changes are then tried
    out as a whole. One is kept if both gains, the promised and the real, exceed `noise` standard errors (paired over
    texts), widened for the number of changes that there were to choose from (Bonferroni).
    """
    judge = problem.score
    if not isinstance(judge, JudgeOfClasses):
        return named[best]
    size = judge.hidden
    groups = [group for group, kinds in GROUPS.items() if FEWEST <= size[list(kinds)].sum() < size.sum()]
    if not groups or len(named) < 2:
        return named[best]
    limit = widened(noise, len(groups) * (len(named) - 1))
    shares = [judge.shares(str(chosen)) for chosen in named]
    taken = (best,) * len(CLASSES)
    for _ in range(ROUNDS):
        now = judge(str(joined([named[method] for method in taken])))
        for change in promising(shares, taken, groups, limit)[:TRIES]:
            after = change.made(taken)
            gain = now - judge(str(joined([named[method] for method in after])))
            kept = gain.sum() > limit * spread(gain)
            problem.progress.note(
                f"auto, {problem.role} rows of tokens {change.group} by {named[change.method]}: {-gain.sum():+.4f} ± "
                f"{spread(gain):.4f} bits per byte beside what stood before{': taken' if kept else ''}"
            )
            if kept:
                taken = after
                break
        else:
            break
    return joined([named[method] for method in taken])


def promising(shares: Sequence[Floats], taken: Sequence[int], groups: Sequence[str], limit: float) -> list[Change]:
    """Changes whose promised gain is beyond noise, the greatest first."""
    found = []
    for group in groups:
        for method in range(len(shares)):
            gain = sum(
                (shares[taken[kind]][:, kind] - shares[method][:, kind] for kind in GROUPS[group]),
                start=np.zeros(len(shares[0])),
            )
            if gain.sum() > max(limit * spread(gain), 0.0):
                found.append(Change(group, method, gain))
    return sorted(found, key=lambda change: -change.promised.sum())


def widened(noise: float, tests: int) -> float:
    """The number of standard errors that chance exceeds in any of so many tests as seldom as `noise` of them in one."""
    from scipy.stats import norm

    return float(norm.isf(norm.sf(noise) / max(1, tests)))
