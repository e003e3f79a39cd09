"""Rows for ids that no text reaches: a head must never choose them, whatever the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenadapt.errors import TokenAdaptError
from tokenadapt.finishing import bias_direction
from tokenadapt.methods.statistics import blocks, mean_row
from tokenadapt.plan import Problem, Table, rows_at_once
from tokenadapt.spaces.undertrained import undertrained
from tokenadapt.vocab.types import Ids

LOWEST: Final = 16  # old rows whose mean is the start
SHARE: Final = 0.02  # without states, the share of the vocabulary whose mean is the start: many rows err less
STATES: Final = 512  # states on which probabilities are compared
STEPS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0)  # nats by which the row may be lowered
ENOUGH: Final = -23.0  # log-probability of one id, e^-23 = 1e-10, that leaves room for ten thousand of them


def unused_rows(problem: Problem, *, tied: bool = False, readings: Sequence[Sequence[int]] = ()) -> Tensor:
    """The row of every unused id: (D,) float32.

    Output, and tied: the mean of the old rows of lowest mean logit over the model's own states, under-trained ones
    where there are any, lowered along the direction in which all states agree. Zero would not do (its logit is 0,
    which often wins), nor a random row. Untied input, which nothing reads: the mean row.

    States are those of the model's own texts where it has written them for another reason, else those after each of
    `readings` (ids of old tokens). Where there are none, the table alone must tell (see `_unlikely`): running a model
    for this would cost more than a transplant.
    """
    table, vocab = problem.table, problem.source
    ids = problem.ordinary
    ids = ids if len(ids) else np.arange(min(table.shape[0], len(vocab)))
    if problem.role == "input" and not tied:
        return torch.from_numpy(mean_row(table, ids)).float()
    states = _states(problem, readings)
    if states is None:
        return torch.from_numpy(_unlikely(table, ids)).float()
    glitches = undertrained(table, vocab)
    pool = glitches if len(glitches) else ids
    likely = _along(table, pool, states.double().mean(0).numpy())
    lowest = pool[np.argsort(likely, kind="stable")[:LOWEST]]
    return _lowered(table, torch.from_numpy(mean_row(table, lowest)).float(), states)


def unused_bias(bias: Tensor) -> float:
    """The head bias of an unused id: as far below the least old one as makes an id improbable by itself."""
    return float(bias.float().min()) + ENOUGH


def _states(problem: Problem, readings: Sequence[Sequence[int]]) -> Tensor | None:
    """What the head reads: over the model's own texts where they are written already, else after each reading."""
    model = problem.model
    if model is None:
        return None
    ready = getattr(model, "ready", True)
    if not ready and (not readings or getattr(model, "kind", "causal") != "causal"):
        return None
    try:
        return model.final_states() if ready else torch.from_numpy(model.states(readings, [1.0])[:, 0])
    except TokenAdaptError:
        return None


def _unlikely(table: Table, ids: Ids) -> NDArray[np.float64]:
    """The mean of the rows farthest along the mean row, twice as far from the middle of the table: (D,).

    Training pushes the rows of all tokens that do not come next away from every state, so that they share a direction,
    and the farther a row lies along it, the less likely its token. At 1,200 states of Llamas of 15M and 135M
    parameters the result had at most 1e-7 of the probability, where zero had 1e-2. Under-trained rows do not serve here
    (0.05 at a state of the larger one), nor does the direction itself pushed farther.
    """
    middle = mean_row(table, ids)
    far = ids[np.argsort(-_along(table, ids, middle), kind="stable")]
    lowest = mean_row(table, far[: max(LOWEST, int(SHARE * len(ids)))])
    return lowest + (lowest - middle)


def _along(table: Table, ids: Ids, direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of each row `ids` with a direction: (len(ids),)."""
    return np.concatenate([rows @ direction for rows in blocks(table, ids)])


def _lowered(table: Table, row: Tensor, states: Tensor) -> Tensor:
    """The row less the multiple of the bias direction that makes it least probable at states that did not fit it.

    The ridge is strong: with few states a weak one fits them and is wrong elsewhere, so that the row may win there.
    """
    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(0))
    fit, held = states[order[::2]], states[order[1::2][:STATES]]
    u = bias_direction(fit, eps=1.0)
    slope = held @ u
    offset = held @ row - _log_totals(table, held)
    u, slope = u / slope.mean().clamp_min(1e-6), slope / slope.mean().clamp_min(1e-6)
    step = min(STEPS, key=lambda step: float((offset - step * slope).max()))
    return row - step * u


def _log_totals(table: Table, states: Tensor) -> Tensor:
    """Log of the sum of exponentiated logits over all old rows, per state: (n,)."""
    total = torch.full((len(states),), -torch.inf)
    step = rows_at_once(table.shape[1])
    for first in range(0, table.shape[0], step):
        rows = table.rows(np.arange(first, min(first + step, table.shape[0]))).float()
        total = torch.logaddexp(total, (states @ rows.T).logsumexp(1))
    return total
