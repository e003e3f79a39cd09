"""One row for two jobs: how far the rows of a tied table go from what reading wants to what writing wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from tokenadapt.methods.likelihood import cost, cost_of
from tokenadapt.methods.own_text import Retold, observe
from tokenadapt.plan import Dense, Problem

SHARES: Final = (0.25, 0.5)  # of the way from input to output rows


def best_single(problem: Problem, reads: Dense, writes: Dense, told: Sequence[Retold]) -> Dense:
    """The rows of a tied table: `reads`, or part of the way to `writes`, whichever says held-out texts best.

    What one table costs against two is said: in bits per byte of these texts, and in megabytes.
    """
    judged = [text for text in told if text.judges]
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
