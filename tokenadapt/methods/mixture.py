"""Weights of several rules for output rows, fitted to what the model says next: convex, so that one answer exists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from tokenadapt.methods.likelihood import CHUNK, log_sum, old_ids
from tokenadapt.methods.own_text import Observed, chosen_rows
from tokenadapt.methods.ragged import Floats
from tokenadapt.plan import Dense, Plan, Table, missing_rows, rows_at_once
from tokenadapt.progress import SILENT, Progress
from tokenadapt.threads import CPU, side_by_side
from tokenadapt.vocab.types import Alignment, Ids

RIVALS: Final = 6144  # missing tokens that stand for all of them in the normaliser
POSITIONS: Final = (4096, 10_240)  # at least and at most; between, one for every two missing tokens
PROBED: Final = 1024  # positions that say which missing tokens are likely
RIDGE: Final = 1e-4  # nats per unit of squared distance from the first guess, per position
LARGEST: Final = torch.finfo(torch.float16).max
STEPS: Final = 80


@dataclass(frozen=True)
class Rules:
    """Candidate rows about the mean row, and what each missing token's weights and bias depend on."""

    table: Table
    made: Sequence[Plan | Dense]
    centre: torch.Tensor  # (D,)
    group: Ids  # (M,) which set of weights a token takes
    features: torch.Tensor  # (M, F) of which the bias is a linear function
    direction: torch.Tensor  # (D,) u
    order: Ids  # (M,) the missing tokens in an order that does not depend on ids: rivals are drawn in it
    device: torch.device = CPU  # where large products are computed

    @property
    def groups(self) -> int:
        """Number of sets of weights."""
        return int(self.group.max(initial=0)) + 1

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First and last missing token of each block of rows."""
        step = rows_at_once(self.table.shape[1])
        for first in range(0, len(self.group), step):
            yield first, min(first + step, len(self.group))

    def candidates(self, first: int, last: int) -> list[torch.Tensor]:
        """Rows first..last by each rule, about the centre: each (last - first, D)."""
        return [missing_rows(self.table, made, first, last) - self.centre for made in self.made]


@dataclass(frozen=True)
class Mixture:
    """The fitted weights (groups, rules) and bias coefficients (F,); nats per token before and after, held out."""

    weight: torch.Tensor
    bias: torch.Tensor
    before: float
    after: float

    def rows(self, rules: Rules, progress: Progress = SILENT) -> torch.Tensor:
        """The mixed rows of all missing tokens: (M, D) float32."""
        total = len(rules.group)
        out = torch.empty(total, len(rules.centre))
        share = self.weight.float()[torch.from_numpy(rules.group)]
        bias = rules.features @ self.bias.float()
        with progress.stage("mix rows", total, "tokens") as advance:
            for first, last in rules.blocks():
                row = rules.centre + bias[first:last, None] * rules.direction
                for rule, part in enumerate(rules.candidates(first, last)):
                    row = torch.addcmul(row, share[first:last, rule, None], part)
                out[first:last] = row
                advance(last - first)
        return out


@dataclass(frozen=True)
class Scene:
    """Everything that the loss needs, once, where it is computed: logits of rivals and of labels under each rule."""

    copied: torch.Tensor  # (n,) log-sum-exp over copied tokens
    rival: torch.Tensor  # (rules, n, S) float16: logits of the rivals, each rule about the centre
    offset: torch.Tensor  # (n,) logit of the centre
    correction: torch.Tensor  # (S,) minus the log of how often a rival was to be expected
    rival_group: torch.Tensor
    rival_features: torch.Tensor  # (S, F)
    own: torch.Tensor  # (rules, m) logits of labels that are missing
    own_at: torch.Tensor  # (m,) their positions
    own_group: torch.Tensor
    own_features: torch.Tensor  # (m, F)
    known: float  # sum of the logits of labels that are copied


def fit(rules: Rules, alignment: Alignment, seen: Observed, *, seed: int, progress: Progress = SILENT) -> Mixture:
    """The weights of least cross-entropy over the new vocabulary at the positions seen; every tenth text is held out.

    The first guess is the first rule alone, without bias. Missing tokens are many: a sample of them, drawn by how
    likely the first guess makes them, stands for all in the normaliser (importance sampling, Bengio and Senecal 2008).
    """
    held = seen.judges
    drawn = np.random.default_rng(seed)
    enough = int(np.clip(len(rules.group) // 2, *POSITIONS))
    teach, check = (_some(np.flatnonzero(part), count, drawn) for part, count in ((~held, enough), (held, 2048)))
    with progress.stage("fit the rules to the model's own texts", STEPS, "steps") as advance:
        rivals, expected = _rivals(rules, alignment, seen.take(teach[:PROBED]), drawn)
        scene = _scene(rules, alignment, seen.take(teach), rivals, expected)
        start = np.zeros(rules.groups * len(rules.made) + rules.features.shape[1])
        start[: rules.groups * len(rules.made) : len(rules.made)] = 1.0
        found = _minimise(scene, rules, start, advance)
        other = _scene(rules, alignment, seen.take(check), rivals, expected) if len(check) else scene
    before, after = (_loss(other, rules, point)[0] for point in (start, found))
    weight, bias = _split(found, rules)
    return Mixture(weight, bias, before, after)


def _some(index: Ids, count: int, drawn: np.random.Generator) -> Ids:
    return np.sort(drawn.permutation(index)[:count])


def _minimise(scene: Scene, rules: Rules, start: Floats, advance: object) -> Floats:
    from scipy.optimize import minimize

    def loss(point: Floats) -> tuple[float, Floats]:
        value, slope = _loss(scene, rules, point)
        away = point - start
        return value + RIDGE * float(away @ away), slope + 2 * RIDGE * away

    done = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "ftol": 1e-7},
        callback=lambda _: advance(1),  # type: ignore[operator]
    )  # fmt: skip
    return np.asarray(done.x, dtype=np.float64)


def _split(point: Floats, rules: Rules) -> tuple[torch.Tensor, torch.Tensor]:
    cut = rules.groups * len(rules.made)
    return torch.from_numpy(point[:cut].reshape(rules.groups, -1).copy()), torch.from_numpy(point[cut:].copy())


@torch.inference_mode()
def _rivals(rules: Rules, alignment: Alignment, seen: Observed, drawn: np.random.Generator) -> tuple[Ids, Floats]:
    """Missing tokens drawn by how likely the first guess makes them, and how often each was to be expected: (S,)."""
    copied = log_sum(rules.table, old_ids(alignment), seen.states, device=rules.device)
    mass = torch.zeros(len(rules.group), dtype=torch.float64)
    for first, last in rules.blocks():
        rows = missing_rows(rules.table, rules.made[0], first, last)
        odds = (seen.states @ rows.T - copied[:, None]).clamp(max=0).exp()
        mass[first:last] = odds.double().sum(0)
    return drawn_by_mass(mass, rules.order, RIVALS, drawn)


def drawn_by_mass(mass: torch.Tensor, order: Ids, count: int, drawn: np.random.Generator) -> tuple[Ids, Floats]:
    """Some tokens drawn with replacement, by their mass (M,), its root, and evenly; how often each was to be expected.

    Where no more than `count` are there, each stands for itself. `order` (M,) makes the draw free of ids.
    """
    if len(mass) <= count:
        return np.arange(len(mass)), np.ones(len(mass))
    even, root = torch.full_like(mass, 1 / len(mass)), mass.sqrt()
    chance = 0.3 * mass / mass.sum().clamp(min=1e-300) + 0.4 * root / root.sum().clamp(min=1e-300) + 0.3 * even
    share = (chance / chance.sum()).numpy()
    index = np.sort(order[drawn.choice(len(share), count, p=share[order])])
    return index, count * share[index]


@torch.inference_mode()
def _scene(rules: Rules, alignment: Alignment, seen: Observed, rivals: Ids, expected: Floats) -> Scene:
    label, device = alignment.place[seen.label], rules.device
    at = np.flatnonzero(label >= 0)
    wanted, where = np.unique(np.concatenate([rivals, label[at]]), return_inverse=True)
    chosen = [(chosen_rows(rules.table, made, wanted) - rules.centre).to(device) for made in rules.made]
    states = seen.states.to(device)
    drawn, called = torch.from_numpy(where.reshape(-1)).tensor_split([len(rivals)])
    rival = torch.empty(len(chosen), len(states), len(rivals), dtype=torch.float16, device=device)
    for rule, rows in zip(rival, chosen, strict=True):
        for one in range(0, len(rule), CHUNK):
            part = states[one : one + CHUNK] @ rows[drawn].T
            rule[one : one + CHUNK] = part.clamp(-LARGEST, LARGEST)
    own = torch.stack([(states[at] * rows[called]).sum(1) for rows in chosen])
    old = np.flatnonzero(label < 0)
    rows = rules.table.rows(alignment.source_id[seen.label[old]]).float()
    return Scene(
        copied=log_sum(rules.table, old_ids(alignment), seen.states, device=device).to(device),
        rival=rival,
        offset=states @ rules.centre.to(device),
        correction=-torch.from_numpy(np.log(expected)).float().to(device),
        rival_group=torch.from_numpy(rules.group[rivals]).to(device),
        rival_features=rules.features[rivals].to(device),
        own=own,
        own_at=torch.from_numpy(at).to(device),
        own_group=torch.from_numpy(rules.group[label[at]]).to(device),
        own_features=rules.features[label[at]].to(device),
        known=float((seen.states[old] * rows).sum(1).double().sum()),
    )


@torch.inference_mode()
def _loss(scene: Scene, rules: Rules, point: Floats) -> tuple[float, Floats]:
    """Mean cross-entropy in nats and its gradient."""
    weight, bias = (part.float().to(rules.device) for part in _split(point, rules))
    share, lift = weight[scene.rival_group].T, scene.rival_features @ bias + scene.correction  # (rules, S), (S,)
    n, total = len(scene.offset), 0.0
    slope = torch.zeros(len(rules.made), len(lift), dtype=torch.float64, device=rules.device)
    press = torch.zeros(len(lift), dtype=torch.float64, device=rules.device)

    def of_chunk(at: int) -> tuple[float, torch.Tensor, torch.Tensor]:
        part = slice(at, at + CHUNK)
        logit, rival = lift + scene.offset[part, None], [rule[part].float() for rule in scene.rival]
        for rule, shares in zip(rival, share, strict=True):
            logit.addcmul_(rule, shares)  # seven times as fast as one einsum over the rules
        whole = torch.logaddexp(scene.copied[part], torch.logsumexp(logit, 1))
        chance = logit.sub_(whole[:, None]).exp_()
        return float(whole.double().sum()), chance.sum(0), torch.stack([rule.mul_(chance).sum(0) for rule in rival])

    for nats, pressed, sloped in side_by_side(of_chunk, range(0, n, CHUNK), rules.device):
        total += nats
        press += pressed.double()
        slope += sloped.double()
    own_share = weight[scene.own_group].T
    own = (scene.own * own_share).sum(0) + scene.own_features @ bias + scene.offset[scene.own_at]
    total -= float(own.double().sum()) + scene.known
    by_weight = torch.zeros(rules.groups, len(rules.made), dtype=torch.float64, device=rules.device)
    by_weight.index_add_(0, scene.rival_group, slope.T.contiguous())
    by_weight.index_add_(0, scene.own_group, -scene.own.T.double().contiguous())
    by_bias = scene.rival_features.T.double() @ press - scene.own_features.double().sum(0)
    gradient = torch.cat([by_weight.ravel(), by_bias]).cpu().numpy() / n
    return total / n, gradient
