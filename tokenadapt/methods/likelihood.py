"""What texts cost under new tables: nats over the whole new vocabulary, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch

from tokenadapt.methods.own_text import Observed, Retold, new_rows, observe
from tokenadapt.methods.ragged import Floats
from tokenadapt.methods.statistics import spread
from tokenadapt.plan import Dense, Plan, Problem, Table, missing_rows, rows_at_once
from tokenadapt.progress import SILENT, Progress
from tokenadapt.threads import CPU, gather, side_by_side
from tokenadapt.vocab.types import Alignment, Ids

CHUNK: Final = 512  # positions whose logits of a block of rows one thread holds at once
NOISE: Final = 2.0  # standard errors, paired over texts, by which one table must be better than another


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
    old = log_sum(table, old_ids(alignment), states, device=problem.device)
    norm = torch.logaddexp(old, log_sum_of(blocks, states, device=problem.device))
    labels, where = np.unique(seen.label, return_inverse=True)
    rows = new_rows(table, alignment, outputs, labels)
    own = (states * rows[torch.from_numpy(where.reshape(-1))]).sum(1)
    return np.asarray((norm - own).double().numpy())


def old_ids(alignment: Alignment) -> Ids:
    """The old row of each target token that has one."""
    return alignment.source_id[alignment.source_id >= 0]


@torch.inference_mode()
def log_sum(
    table: Table, ids: Ids, states: torch.Tensor, progress: Progress = SILENT, device: torch.device = CPU
) -> torch.Tensor:
    """Log of the summed exponentials of the logits of old tokens `ids`, computed on `device`: (n,) on the CPU."""
    step = rows_at_once(table.shape[1])
    starts = range(0, len(ids), step)
    with progress.stage("weigh old tokens", len(starts) * len(states), "positions") as advance:
        blocks = (table.rows(ids[first : first + step]).float() for first in starts)
        return log_sum_of(blocks, states, advance, device)


@torch.inference_mode()
def log_sum_of(
    blocks: Iterable[torch.Tensor],
    states: torch.Tensor,
    advance: Callable[[float], object] = lambda _: None,
    device: torch.device = CPU,
) -> torch.Tensor:
    """The same of rows that come in blocks; `advance` is told of positions that are done with a block."""
    total, here = torch.full((len(states),), -torch.inf), torch.empty(len(states))
    for rows in blocks:
        parts = side_by_side(partial(_log_sum_of_block, rows.to(device)), torch.split(states, CHUNK), device)
        total = torch.logaddexp(total, gather(parts, here, advance))
    return total


def _log_sum_of_block(rows: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(states.to(rows.device) @ rows.T, 1)
