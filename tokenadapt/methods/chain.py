"""Output rows by the chain rule: a token is as likely as its first piece, times the rest given the first."""

from __future__ import annotations

import numpy as np

from tokenadapt.finishing import bias_direction
from tokenadapt.methods import ragged
from tokenadapt.methods.options import NonNegative, Share
from tokenadapt.methods.piece_odds import log_rest
from tokenadapt.methods.pieces import pieces, readable
from tokenadapt.plan import Dense, Plan, Problem, missing_rows


def chain(problem: Problem, *, rest: NonNegative = 0.6, spread: Share = 0.5) -> Plan | Dense:
    """Output row: (1 - `spread`) first piece + `spread` mean of pieces, biased by `rest` times log P(rest | first).

    P(s | h) = P(p1 | h) P(p2 | p1, h) ...: the first factor is the first piece's own logit. The others are taken from
    the source model without h, after the token that begins a text (and kept in the cache), and so are too harsh: a
    word that fits is likelier in context, which `rest` below 1 allows for. The bias goes along the direction in which
    all states agree. Input rows, to which the rule does not speak, are the mean of the pieces.
    """
    mean = pieces(problem)
    if problem.role == "input":  # of two tables; the one table of a tied result has the role output
        return mean
    assert problem.model is not None
    cut = readable(problem)
    order = np.arange(len(cut.piece)) - cut.start[:-1][ragged.owners(cut.start)]
    weight = spread * mean.weight + (1 - spread) * (order == 0)
    mixed = Plan(
        cut.start, cut.piece, weight.astype(np.float32),
        bias=(rest * log_rest(problem)).astype(np.float32),
        direction=bias_direction(problem.model.final_states()).numpy(),
    )  # fmt: skip
    rows = missing_rows(problem.table, mixed, 0, len(cut.counts))
    return Dense(rows, mixed.empty)  # a bias that the model's own states made is nothing that a saved plan could repeat
