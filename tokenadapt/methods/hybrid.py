"""TokenAdapt's hybrid: own pieces and nearest tokens together."""

from __future__ import annotations

import numpy as np

from tokenadapt.methods import ragged
from tokenadapt.methods.global_ import Cosine, global_
from tokenadapt.methods.local import local
from tokenadapt.methods.options import Count, Positive, Share
from tokenadapt.plan import Plan, Problem


def hybrid(problem: Problem, *, tau: Positive = 0.3, k: Count = 3, g: Share = 0.3, theta: Cosine = 0.0) -> Plan:
    """(1 - `g`) local + `g` global; one alone at full weight where the other gives nothing (arXiv:2505.09738).

    `tau` is of both, `k` and `theta` are of `global`. g = 0 is `local` and g = 1 is `global`, each without the other
    as a reserve, as in the published code.
    """
    if g == 0:
        return local(problem, tau=tau)
    if g == 1:
        return global_(problem, tau=tau, k=k, theta=theta)
    near, far = local(problem, tau=tau), global_(problem, tau=tau, k=k, theta=theta)
    return ragged.combine(
        [(near, np.where(far.empty, 1.0, 1 - g)), (far, np.where(near.empty, 1.0, g))], len(near.start) - 1
    )
