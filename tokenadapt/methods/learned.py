"""Rows by what the source vocabulary itself teaches: how a token's row follows from the rows of its pieces."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

import numpy as np
import torch

from tokenadapt.errors import TokenAdaptError
from tokenadapt.methods.halves import Runs, spell_by_halves
from tokenadapt.methods.options import Bound, Share
from tokenadapt.methods.piece_features import Block, Features
from tokenadapt.methods.piece_states import PieceStates
from tokenadapt.methods.pieces import readable
from tokenadapt.methods.ragged import Floats
from tokenadapt.plan import Dense, Problem
from tokenadapt.threads import alone, gather, side_by_side
from tokenadapt.vocab.types import ByteVocab

log = logging.getLogger(__name__)

DEPTHS: Final = {"none": (), "low": (1 / 15, 1 / 5), "full": (1 / 15, 1 / 5, 2 / 5)}  # relative, of the states
STRENGTHS: Final = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # ridge, in units of a feature's mean square
HELD_OUT: Final = 10  # every tenth old token chooses the strength
MOST: Final = 60_000  # old tokens that teach
FEWEST: Final = 200  # old tokens of several pieces below which nothing can be learned
UNFINISHED: Final = 0.6  # of the way to the last piece's row, for tokens that end inside a character


def learned(
    problem: Problem,
    *,
    effort: Literal["none", "low", "full"] = "full",
    most: Annotated[int, Bound(1000)] = MOST,
    share: Share = 1.0,
) -> Dense:
    """The mean of the pieces, corrected by a ridge regression that old tokens taught.

    Every old token is spelled with pieces of its own: the two halves of its merge, or one to three levels deeper at
    random. Its row less the mean of its pieces' rows is the target; the features are the rows of the mean, the first
    and the last piece, the number of pieces, the number of bytes, and the source model's states after the last piece at
    the depths that `effort` says (`none`: the model is not run). Rows to read of tokens that end inside a character go
    on towards the last piece's. The strength of the ridge is the best of six on
    held-out old tokens; where fewer than 200 old tokens teach, the mean of the pieces stays as it is. `most` bounds the
    old tokens that teach, `share` scales the correction. Sums are float64.
    """
    taught = spell_by_halves(problem.source, problem.ordinary, seed=problem.seed)
    if len(taught.tokens) < FEWEST:
        log.warning("only %d old tokens consist of two others: too few to learn from", len(taught.tokens))
        share = 0.0
    if len(taught.tokens) > most:
        drawn = np.random.default_rng(problem.seed).permutation(len(taught.tokens))[:most]
        taught = taught.take(np.sort(drawn))
    cut = readable(problem)
    runs = Runs(problem.alignment.missing, cut.start, cut.piece)
    seen = Features(problem.table, _states(problem, DEPTHS[effort] if share else (), taught, runs))
    weights = _fit(seen, problem.source, taught) if share else np.zeros((seen.width, problem.width))
    rows = torch.zeros(len(cut.token_length), problem.width)
    sizes = problem.target.byte_lengths(problem.alignment.missing)

    def corrected(block: Block) -> torch.Tensor:
        return torch.from_numpy(block.mean + share * (block.features @ weights)).float()

    with problem.progress.stage("correct the mean of the pieces", len(rows), "tokens") as advance:
        gather(side_by_side(corrected, seen.blocks(runs, sizes)), rows, advance)
    made = Dense(rows, np.asarray(cut.counts == 0))
    return unfinished(problem, made) if problem.role == "input" or problem.tied else made


def unfinished(problem: Problem, made: Dense) -> Dense:
    """Rows to read, of tokens that end inside a character brought towards that of their last piece.

    What must come next is the rest of the character, and only its beginning says which. A ridge over all old tokens,
    few of which end so, does not learn it: of the excess of Hindi in Qwen 3's tokens it cost more than a quarter.
    """
    cut = readable(problem)
    full = np.flatnonzero(cut.counts)
    last = cut.piece[cut.start[1:][full] - 1]
    begun = [index for index in np.unique(last) if _ends_inside(problem.source.token_bytes[index])]
    open_ = np.isin(last, begun)
    if not open_.any():
        return made
    rows, at = made.rows.clone(), torch.from_numpy(full[open_])
    ids, where = np.unique(last[open_], return_inverse=True)
    ends = problem.table.rows(ids).float()[torch.from_numpy(where.reshape(-1))]
    rows[at] = torch.lerp(rows[at], ends, UNFINISHED)
    return replace(made, rows=rows)


def _ends_inside(text: bytes | None) -> bool:
    """Whether these bytes begin a character that they do not finish."""
    try:
        (text or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _states(problem: Problem, depths: tuple[float, ...], taught: Runs, runs: Runs) -> PieceStates:
    """States after the pieces of both; none, and it is said why, where the model cannot be run here."""
    try:
        states = PieceStates(problem, depths, taught)
        states.prepare(taught)
        states.prepare(runs)
    except TokenAdaptError as error:
        log.warning("learned: done without the source model's states. %s", error)
        return PieceStates(problem, (), taught)
    return states


@dataclass(frozen=True)
class Moments:
    """All that a ridge regression, and what it leaves unexplained, depend on."""

    gram: Floats  # X^T X
    cross: Floats  # X^T Y
    energy: float  # sum of squares of Y

    def unexplained(self, weights: Floats) -> float:
        """Share of the energy that the weights leave."""
        explained = 2 * float((weights * self.cross).sum()) - float((weights * (self.gram @ weights)).sum())
        return (self.energy - explained) / max(self.energy, 1e-300)


@alone()
def _fit(seen: Features, vocab: ByteVocab, taught: Runs) -> Floats:
    """Coefficients (features, D) of the strength that predicts held-out old tokens best."""
    held = np.arange(len(taught.tokens)) % HELD_OUT == 0
    known, hidden = (_moments(seen, vocab, taught.take(np.flatnonzero(part))) for part in (~held, held))
    scale = np.maximum(known.gram.diagonal(), 1e-12)
    best: tuple[float, Floats] | None = None
    for strength in STRENGTHS:
        weights: Floats = np.linalg.solve(known.gram + np.diag(strength * scale), known.cross).astype(np.float64)
        left = hidden.unexplained(weights)
        log.info("learned: strength %g leaves %.3f of what the mean of the pieces leaves", strength, left)
        if best is None or left < best[0]:
            best = (left, weights)
    assert best is not None
    return best[1]


def _moments(seen: Features, vocab: ByteVocab, taught: Runs) -> Moments:
    """Sums over some old tokens; Y is a token's row less the mean of its pieces' rows."""

    def of_block(block: Block) -> Moments:
        goal = seen.table.rows(taught.tokens[block.first : block.last]).double().numpy() - block.mean
        turned = block.features.T
        return Moments(turned @ block.features, turned @ goal, float((goal**2).sum()))

    found = Moments(np.zeros((seen.width, seen.width)), np.zeros((seen.width, seen.table.shape[1])), 0.0)
    for part in side_by_side(of_block, seen.blocks(taught, vocab.byte_lengths(taught.tokens))):
        found = Moments(found.gram + part.gram, found.cross + part.cross, found.energy + part.energy)
    return found
