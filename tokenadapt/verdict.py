"""What other rows for some tokens do to texts, and the tokens of which class do it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.vocab.types import Ids

Floats = NDArray[np.float64]
SAME = 1e-9  # difference of two sums of probabilities that counts as none


@dataclass(frozen=True)
class Verdict:
    """Bits per byte more that each text costs, as its share of the whole, and of which class the cause is."""

    harm: Floats  # (texts,)
    shares: Floats  # (texts, classes); they add up to the harm


def after_input_rows(change: Floats, cause: Ids, kind: Ids, classes: int) -> Floats:
    """A change at each position put to the class of its cause, the place of a token among the changed: (n, classes).

    -1 is no cause: nothing that changed was read before.
    """
    parts = np.zeros((len(change), classes))
    at = np.flatnonzero(cause >= 0)
    parts[at, kind[cause[at]]] = change[at]
    return parts


def last_before(text: Ids, places: Ids) -> Ids:
    """For each position of a text but its last, the changed token that was read last: (len(text) - 1,), -1 for none.

    `places` (V,) says which changed token an id is, or -1.
    """
    read = places[text[:-1]]
    seen = np.maximum.accumulate(np.where(read >= 0, np.arange(len(read)), -1))
    return np.where(seen >= 0, read[seen], -1)


def after_output_rows(
    rest: torch.Tensor, logits: tuple[torch.Tensor, torch.Tensor], own: torch.Tensor, one_hot: torch.Tensor
) -> Floats:
    """The change in nats of each position, by class: (n, classes).

    `rest` (n,) is the log-sum-exp over the tokens that did not change, `logits` those of the others before and after,
    each (n, H), `own` (n,) which of them comes next or -1, `one_hot` (H, classes). The change of the normaliser is
    shared by what each class adds to the sum of exponentials (logarithmic mean), so that the parts add up exactly.
    """
    before, after = (each.double() for each in logits)
    whole = [torch.logaddexp(rest.double(), each.logsumexp(1)) for each in (before, after)]
    top = torch.maximum(*whole)
    mass = ((after - top[:, None]).exp() - (before - top[:, None]).exp()) @ one_hot.double()
    gap = (whole[1] - top).exp() - (whole[0] - top).exp()
    flat = gap.abs() < SAME
    slope = torch.where(flat, (top - whole[0]).exp(), (whole[1] - whole[0]) / torch.where(flat, 1.0, gap))
    parts = mass * slope[:, None]
    at = torch.nonzero(own >= 0)[:, 0]
    gain = after[at, own[at]] - before[at, own[at]]
    parts[at] -= gain[:, None] * one_hot.double()[own[at]]
    found: Floats = parts.numpy()
    return found
