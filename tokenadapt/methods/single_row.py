"""One row for two jobs: how far the rows of a tied table go from what reading wants to what writing wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from tokenadapt.methods.mixture import log_sum, log_sum_of, old_ids
from tokenadapt.methods.own_text import HELD_OUT, Observed, Retold, new_rows, observe
from tokenadapt.methods.ragged import Floats
from tokenadapt.methods.statistics import spread
from tokenadapt.plan import Dense, Plan, Problem, missing_rows, rows_at_once
from tokenadapt.vocab.types import Ids

SHARES: Final = (0.25, 0.5)  # of the way from input to output rows
NOISE: Final = 2.0  # standard errors, paired over texts, by which a share must be better than none


@dataclass(frozen=True)
class Cost:
    """What some texts cost: nats of each token, the text that it is of, and the bytes of all."""

    nats: Floats  # (n,)
    text: Ids  # (n,)
    nbytes: int

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte over all tokens."""
        return float(self.nats.sum() / np.log(2)) / max(1, self.nbytes)

    def clearly_below(self, other: Cost) -> bool:
        """Whether these texts cost less than in another count by more than the noise between texts."""
        numbers, place = np.unique(self.text, return_inverse=True)
        less = np.bincount(place.reshape(-1), other.nats - self.nats).astype(np.float64)
        return len(numbers) > 1 and bool(less.sum() > NOISE * spread(less))


def best_single(problem: Problem, reads: Dense, writes: Dense, told: Sequence[Retold]) -> Dense:
    """The rows of a tied table: `reads`, or part of the way to `writes`, whichever says held-out texts best.

    What one table costs against two is said: in bits per byte of these texts, and in megabytes.
    """
    judged = [text for text in told if text.number % HELD_OUT == 0]
    seen = observe(problem, reads, judged)
    two = cost_of(problem, writes, seen)
    best, least, chosen = reads, cost_of(problem, reads, seen), 0.0
    for share in SHARES:
        rows = Dense(torch.lerp(reads.rows, writes.rows, share), reads.empty)
        found = cost(problem, rows, rows, judged)
        if found.clearly_below(least):
            best, least, chosen = rows, found, share
    more = len(problem.alignment.how) * problem.width * problem.table.dtype.itemsize / 1e6
    what = f"{chosen:g} of the way from learned to fitted output rows" if chosen else "those of learned"
    problem.progress.note(
        f"stacked: one table serves input and output, its rows are {what}: {least.bits_per_byte:.3f} bits per byte of "
        f"the model's own texts; with --untie {two.bits_per_byte:.3f}, in {more:,.1f} MB more"
    )
    return best


def cost(problem: Problem, inputs: Plan | Dense, outputs: Plan | Dense, told: Sequence[Retold]) -> Cost:
    """What texts cost under new tables."""
    return cost_of(problem, outputs, observe(problem, inputs, told))


def cost_of(problem: Problem, outputs: Plan | Dense, seen: Observed) -> Cost:
    """The same, where the texts have been read."""
    nbytes = int(problem.target.byte_lengths(seen.label).sum())
    return Cost(cross_entropy(problem, outputs, seen), seen.text, nbytes)


@torch.inference_mode()
def cross_entropy(problem: Problem, outputs: Plan | Dense, seen: Observed) -> Floats:
    """Nats of each label over the whole new vocabulary but unused ids: (n,)."""
    table, alignment, states = problem.table, problem.alignment, seen.states
    total, step = len(alignment.missing), rows_at_once(table.shape[1])
    blocks = (missing_rows(table, outputs, first, min(first + step, total)) for first in range(0, total, step))
    norm = torch.logaddexp(log_sum(table, old_ids(alignment), states), log_sum_of(blocks, states))
    labels, where = np.unique(seen.label, return_inverse=True)
    rows = new_rows(table, alignment, outputs, labels)
    own = (states * rows[torch.from_numpy(where.reshape(-1))]).sum(1)
    return np.asarray((norm - own).double().numpy())
