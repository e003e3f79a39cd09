"""Output rows mixed from several rules, with weights that the source model's own texts decide."""

from __future__ import annotations

import logging
from typing import Annotated, Final, Literal

import numpy as np
import torch
from scipy.stats import rankdata

from tokenadapt.errors import TokenAdaptError
from tokenadapt.finishing import bias_direction
from tokenadapt.methods import ragged
from tokenadapt.methods.correction import correct
from tokenadapt.methods.learned import learned, unfinished
from tokenadapt.methods.likelihood import log_sum
from tokenadapt.methods.merge import merges_of
from tokenadapt.methods.mixture import Rules, fit
from tokenadapt.methods.options import Bound, Share
from tokenadapt.methods.own_text import FEWEST, Observed, canonical, observe, of_inputs, retell, with_repeats
from tokenadapt.methods.pieces import end_piece, pieces, readable
from tokenadapt.methods.single_row import best_single
from tokenadapt.methods.statistics import mean_row
from tokenadapt.plan import Dense, Plan, Problem, Table, rows_at_once
from tokenadapt.threads import CPU, alone
from tokenadapt.vocab.types import ByteVocab, Segmentation

log = logging.getLogger(__name__)

TEXTS: Final = {"low": 384, "full": 3072}  # how many the source model writes at most
FOR_EACH: Final = 36  # missing tokens a text, where that is fewer, but no fewer than a low effort writes
GROUPS: Final = 6  # one piece, two, ... and this many or more: each with weights of its own
COMMON: Final = 2048  # positions over which an old token's mean probability is taken


def stacked(
    problem: Problem,
    *,
    effort: Literal["low", "full"] = "full",
    texts: Annotated[int, Bound(0)] = 0,
    share: Share = 1.0,
) -> Plan | Dense:
    """Input rows as `learned`; output rows a mix of the mean, first and last piece and `learned`, plus a bias.

    The source model writes texts, prompted by missing tokens; with its new input rows and the target tokenizer it reads
    them again, some of them twice over, so that the output rows are fitted to the states that they will meet. The
    weights of the rules (a set for each number of pieces) and the coefficients of the bias are those under which the
    new output table says best what came next: a convex problem of some 40 unknowns (stacking, Wolpert 1992). The bias
    goes along the direction in which all states agree; it is linear in the number of pieces and of bytes, the token's
    rank in the target's merges or scores, and the mean log-probability of its pieces. A bilinear form and a bias by
    counts then correct what no weights can say (`correction.correct`). In a tied table one row serves both sides: that
    of `learned`, or part of the way to the fitted one where held-out texts say so. `share` is that of `learned`.
    `texts` 0 is what `effort` says.
    """
    corrected = learned(problem, effort=effort, share=share)
    if problem.role == "input":  # of two tables; the one table of a tied result has the role output
        return corrected
    try:
        told = retell(problem, texts or texts_of(effort, len(problem.alignment.missing)))
        inputs = problem.inputs or _to_read(problem, corrected, effort, share)
        seen = observe(problem, inputs, with_repeats(problem, told))
    except TokenAdaptError as error:
        log.warning("stacked: output rows are those of learned, for the source model wrote no texts. %s", error)
        return corrected
    if len(seen.label) < FEWEST:
        log.warning("stacked: the model's own texts give only %d positions, too few to fit to", len(seen.label))
        return corrected
    fitted = _fitted(problem, corrected, seen)
    if fitted is None or not problem.tied:
        return fitted or corrected
    return best_single(problem, corrected, fitted, told)


def _to_read(problem: Problem, corrected: Dense, effort: Literal["low", "full"], share: float) -> Dense:
    """Input rows, where none were made before."""
    if problem.tied:
        return corrected
    if problem.model is not None and problem.model.tied:
        return unfinished(problem, corrected)
    return learned(of_inputs(problem), effort=effort, share=share)


def texts_of(effort: str, missing: int) -> int:
    """How many texts the source model writes for so many missing tokens."""
    return max(TEXTS["low"], min(TEXTS[effort], missing // FOR_EACH))


@alone()
def _fitted(problem: Problem, corrected: Dense, seen: Observed) -> Dense | None:
    """Output rows fitted to what comes next; None where held-out texts are said no better."""
    rules = Rules(
        table=problem.table,
        made=(pieces(problem), end_piece(problem, 0), end_piece(problem, -1), corrected),
        centre=torch.from_numpy(mean_row(problem.table, problem.ordinary)).float(),
        group=np.clip(problem.segmentation.counts - 1, 0, GROUPS - 1),
        features=features(problem, seen),
        order=canonical(problem),
        direction=bias_direction(seen.states),
        device=problem.device,
    )
    mixture = fit(rules, problem.alignment, seen, seed=problem.seed, progress=problem.progress)
    problem.progress.note(
        f"stacked: {mixture.before:.3f} nats a token with the mean of the pieces, {mixture.after:.3f} with the mix "
        f"(held-out texts of the model's own)"
    )
    if mixture.after >= mixture.before:
        log.warning("stacked: the mix is no better on held-out texts; the learned rows stay")
        return None
    rows = correct(problem, rules, mixture.rows(rules, problem.progress), seen)  # not kept here: they are large
    return Dense(rows, np.asarray(readable(problem).counts == 0))


def features(problem: Problem, seen: Observed) -> torch.Tensor:
    """What the bias of a missing token may depend on: (M, GROUPS + 8), each column of mean square near 1 or less."""
    cut, missing = readable(problem), problem.alignment.missing
    count = np.clip(cut.counts, 1, GROUPS)
    texts = [problem.target.token_bytes[index] or b"" for index in missing.tolist()]
    rank = frequency_rank(problem.target)[missing]
    some = seen.states[:: max(1, len(seen.states) // COMMON)]
    common = mean_log_probability(problem.table, some, problem.device)
    columns = [
        *(count == size for size in range(1, GROUPS + 1)),
        np.log(np.maximum(1, [len(text) for text in texts])) - 1.5,
        rank,
        rank**2 / 2,
        *_of_pieces(common, cut),
        [text[:1] == b" " for text in texts],
        [text.isascii() for text in texts],
    ]
    return torch.from_numpy(np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1))


def _of_pieces(value: np.ndarray, cut: Segmentation) -> list[np.ndarray]:
    """A value per old token at each run's first and last piece, and its mean over the run; 0 for an empty run."""
    full = np.flatnonzero(cut.counts)
    found = [np.zeros(len(cut.counts)) for _ in range(3)]
    found[0][full] = value[cut.piece[cut.start[:-1][full]]]
    found[1][full] = value[cut.piece[cut.start[1:][full] - 1]]
    found[2][full] = ragged.sums(value[cut.piece].astype(np.float64), cut.start)[full] / cut.counts[full]
    return found


def frequency_rank(vocab: ByteVocab) -> np.ndarray:
    """Log of each token's rank by expected frequency over the number of tokens: (V,), near 0 for the rarest.

    The order of the merges where there are merges (tokens without one stand first), that of the scores where there are
    scores, else all alike. Ids play no part.
    """
    rank = np.zeros(len(vocab))
    if vocab.merges is not None:
        made = merges_of(vocab)[2][::-1]
        rank[made] = np.arange(len(made), 0, -1)  # the first merge of a token is written last
    elif vocab.scores is not None:
        rank = rankdata(-vocab.scores, method="min")
    return np.asarray(np.log((rank + 100) / (len(vocab) + 100)))


@torch.inference_mode()
def mean_log_probability(table: Table, states: torch.Tensor, device: torch.device = CPU) -> np.ndarray:
    """Log of every old token's mean probability over some states, brought near 0: (V_old,)."""
    ids = np.arange(table.shape[0])
    norm, step = log_sum(table, ids, states, device=device).to(device), rows_at_once(table.shape[1])
    states = states.to(device)
    blocks = (table.rows(ids[first : first + step]).float().to(device) for first in range(0, len(ids), step))
    mean = [(states @ rows.T - norm[:, None]).exp().mean(0).cpu() for rows in blocks]
    found: np.ndarray = torch.log(torch.cat(mean) + 1e-7).numpy() / 4 + 2
    return found
