"""Output rows corrected by what the mix of rules cannot say: a bilinear form, and how often each token came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.linalg
import torch

from tokenadapt.methods.likelihood import Cost, cost_of, log_sum, old_ids
from tokenadapt.methods.mixture import Rules, drawn_by_mass
from tokenadapt.methods.own_text import Observed, chosen_rows
from tokenadapt.methods.ragged import Floats
from tokenadapt.plan import Dense, Problem
from tokenadapt.progress import Progress
from tokenadapt.threads import CPU, side_by_side
from tokenadapt.vocab.types import Ids

AXES: Final = 256  # directions in which the rules' rows vary most
SAMPLED: Final = 4096  # missing tokens that say which these are
RIVALS: Final = 4096  # missing tokens that stand for all of them in a step
BATCH: Final = 1024  # positions of a step
BLOCK: Final = 8192  # positions whose states are held in float64
RATE: Final = 2e-4  # of Adam, falling to nothing over the one pass
RIDGE: Final = 1e4  # nats in all positions together, per unit of the form's squares
COUNTED: Final = 8192  # positions over which each token is expected
WARM: Final = 10  # steps until the rate is reached
LOGITS: Final = 2**24  # that one thread holds at once
CHECKED: Final = 4096  # positions that judge each step
PRIOR: Final = 2.0  # times that each token is taken to have come, and to have been expected, beforehand


def correct(problem: Problem, rules: Rules, rows: torch.Tensor, seen: Observed) -> torch.Tensor:
    """The rows (M, D), corrected in two steps, each kept where it clearly says held-out texts better.

    First a bilinear form: z(h) A g(s) is added to the logit of token s at state h, g being the token's rows by all
    rules in their main directions. It is linear in the state, so that it is a change of rows. One cautious pass of
    Adam over all positions fits A, for it has as many unknowns as there are labels. Then a bias of each token along the
    direction u: the log of how often it came over how often it was expected, both with a prior.
    """
    judges = seen.judges
    held = seen.take(np.sort(np.random.default_rng(problem.seed).permutation(np.flatnonzero(judges))[:CHECKED]))
    known = _known(problem, seen, np.flatnonzero(~judges))
    if not len(held.label) or not len(known.index):
        return rows
    least = before = cost_of(problem, Dense(rows), held)
    for step in (_by_form, _by_count):
        better = step(problem, rules, rows, known)
        found = cost_of(problem, Dense(better), held)
        if found.clearly_below(least):
            rows, least = better, found
    problem.progress.note(f"stacked: {_nats(before):.3f} nats a token, {_nats(least):.3f} after the correction")
    return rows


def _nats(cost: Cost) -> float:
    return float(cost.nats.mean())


@dataclass(frozen=True)
class Known:
    """Positions, and which of them to learn from: their states are much of the memory, and stay where they are."""

    states: torch.Tensor  # (n, D)
    slot: Ids  # (n,) which missing token comes next; -1 for a copied one
    copied: torch.Tensor  # (n,) log-sum-exp over copied tokens
    index: Ids  # (t,) the positions to learn from
    device: torch.device = CPU  # where products are computed; all else stays on the CPU

    def drawn(self, by: np.random.Generator) -> torch.Tensor:
        """The positions to learn from, in an order drawn at random."""
        return torch.from_numpy(self.index[by.permutation(len(self.index))])


def _known(problem: Problem, seen: Observed, index: Ids) -> Known:
    copied = log_sum(problem.table, old_ids(problem.alignment), seen.states, problem.progress, problem.device)
    return Known(seen.states, problem.alignment.place[seen.label], copied, index, problem.device)


@dataclass(frozen=True)
class Axes:
    """Coordinates of states: z(h) = (h - mean) @ turn, of mean variance 1."""

    mean: torch.Tensor  # (D,)
    turn: torch.Tensor  # (D, D)

    @classmethod
    def of(cls, known: Known) -> Axes:
        """Those of the states to learn from, turned so that coordinates are uncorrelated; sums are float64."""
        width, index = known.states.shape[1], torch.from_numpy(known.index)
        total = torch.zeros(width, dtype=torch.float64, device=known.device)
        second = torch.zeros(width, width, dtype=torch.float64, device=known.device)
        for part in _parts(index, BLOCK):
            states = known.states[part].to(known.device).double()
            total += states.sum(0)
            second.addmm_(states.T, states)
        mean, second = total.cpu() / len(index), second.cpu()
        spread = (second - len(index) * torch.outer(mean, mean)) / max(1, len(index) - 1)
        value, vector = torch.linalg.eigh(spread.float())
        size = value.clamp(min=0).sqrt().mean().clamp(min=1e-12)
        return cls(mean.float(), vector / size)

    def of_states(self, states: torch.Tensor) -> torch.Tensor:
        """z(h): (n, D)."""
        return (states - self.mean) @ self.turn


@dataclass(frozen=True)
class Loss:
    """What the loss of a form needs."""

    known: Known
    axes: Axes
    rows: torch.Tensor  # (M, D) before the correction
    about: torch.Tensor  # (M, K + 1) g: the coordinates of each missing token, and a one

    def slope(self, form: torch.Tensor, batch: torch.Tensor, rivals: Ids, expected: Floats) -> torch.Tensor:
        """Gradient of the mean cross-entropy of some positions by the form: (D + 1, K + 1)."""
        device, other = self.known.device, torch.from_numpy(rivals)
        slot = torch.from_numpy(self.known.slot)[batch]
        fresh = slot >= 0
        place = torch.cat([self.axes.of_states(self.known.states[batch]), torch.ones(len(batch), 1)], dim=1).to(device)
        states, beside = self.known.states[batch].to(device), self.about[other].to(device)
        logits = states @ self.rows[other].to(device).T - torch.from_numpy(np.log(expected)).float().to(device)
        logits.addmm_(place @ form, beside.T)
        whole = torch.logaddexp(logits.logsumexp(1), self.known.copied[batch].to(device))
        press = logits.sub_(whole[:, None]).exp_() @ beside
        press[fresh] -= self.about[slot[fresh]].to(device)
        return place.T @ press / len(batch)


@torch.no_grad()
def _by_form(problem: Problem, rules: Rules, rows: torch.Tensor, known: Known) -> torch.Tensor:
    """Rows plus what a bilinear form adds to them."""
    loss = Loss(known, Axes.of(known), rows, _coordinates(rules))
    form = _fitted(loss, problem, rules)
    turn = loss.axes.turn @ form[:-1]
    level = form[-1] - loss.axes.mean @ turn
    out = torch.empty_like(rows)
    for first, last in rules.blocks():
        part = loss.about[first:last]
        out[first:last] = rows[first:last] + part @ turn.T + (part @ level)[:, None] * rules.direction
    return out


def _fitted(loss: Loss, problem: Problem, rules: Rules) -> torch.Tensor:
    drawn, total = np.random.default_rng(problem.seed), len(loss.known.index)
    width, device = len(loss.axes.mean), loss.known.device
    form = torch.zeros(width + 1, loss.about.shape[1], device=device)  # its last line: what no state changes
    ridge = torch.full((len(form), 1), 2 * RIDGE / total, device=device)
    ridge[-1] /= 10
    adam = torch.optim.Adam([form], lr=RATE)
    batches = _parts(loss.known.drawn(drawn), BATCH)
    mass = _expected(loss.rows, loss.known, batches[0], problem.progress)
    with problem.progress.stage("correct output rows", len(batches), "steps") as advance:
        for number, batch in enumerate(batches):
            form.grad = loss.slope(form, batch, *drawn_by_mass(mass, rules.order, RIVALS, drawn)) + ridge * form
            falling = (1 + np.cos(np.pi * number / len(batches))) / 2
            adam.param_groups[0]["lr"] = RATE * min(1, (number + 1) / WARM) * falling
            adam.step()
            advance(1)
    return form.cpu()


def _coordinates(rules: Rules) -> torch.Tensor:
    """Each missing token's rows by all rules in the directions in which they vary most, and a one: (M, K + 1)."""
    total = len(rules.group)
    shown = np.sort(rules.order[:: -(-total // SAMPLED)])
    rows = torch.cat([chosen_rows(rules.table, made, shown) - rules.centre for made in rules.made], dim=1)
    turn = _main_directions(rows)
    out = torch.ones(total, turn.shape[1] + 1)
    for first, last in rules.blocks():
        out[first:last, :-1] = torch.cat(rules.candidates(first, last), dim=1) @ turn
    return out


def _main_directions(rows: torch.Tensor) -> torch.Tensor:
    """Columns (F, K) that turn rows (n, F) to their main directions, of mean variance 1; at most AXES."""
    wide = rows.shape[1] > len(rows)  # the products of the shorter side have the same eigenvalues
    square = (rows @ rows.T if wide else rows.T @ rows).double().numpy() / len(rows)
    most = len(square)
    value, vector = scipy.linalg.eigh(square, subset_by_index=[max(0, most - AXES), most - 1])
    some = value > 1e-6 * value[-1]
    value, turn = value[some], torch.from_numpy(vector[:, some]).float()
    if wide:
        turn = rows.T @ turn / torch.from_numpy(np.sqrt(value * len(rows))).float()
    return turn / float(np.sqrt(value).mean())


def _by_count(problem: Problem, rules: Rules, rows: torch.Tensor, known: Known) -> torch.Tensor:
    """Rows plus a bias by how often their tokens came, against how often they were expected."""
    some = known.drawn(np.random.default_rng(problem.seed))[:COUNTED]
    expected = _expected(rows, known, some, problem.progress) * (len(known.index) / len(some))
    slot = known.slot[known.index]
    came = np.bincount(slot[slot >= 0], minlength=len(rows))
    bias = torch.from_numpy(np.log((came + PRIOR) / (expected.numpy() + PRIOR))).float()
    return torch.addcmul(rows, bias[:, None], rules.direction)


@torch.inference_mode()
def _expected(rows: torch.Tensor, known: Known, some: torch.Tensor, progress: Progress) -> torch.Tensor:
    """Probability of each missing token, summed over some positions: (M,) float64."""
    rows = rows.to(known.device)

    def of_part(part: torch.Tensor) -> torch.Tensor:
        logits = known.states[part].to(rows.device) @ rows.T
        whole = torch.logaddexp(logits.logsumexp(1), known.copied[part].to(rows.device))
        return logits.sub_(whole[:, None]).exp_().sum(0)

    found = torch.zeros(len(rows), dtype=torch.float64)
    parts = _parts(some, max(1, LOGITS // max(1, len(rows))))
    with progress.stage("expect new tokens", len(some), "positions") as advance:
        for part, expected in zip(parts, side_by_side(of_part, parts, known.device), strict=True):
            found += expected.cpu().double()
            advance(len(part))
    return found


def _parts(index: torch.Tensor, size: int) -> list[torch.Tensor]:
    return [index[first : first + size] for first in range(0, len(index), size)]
