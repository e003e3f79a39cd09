"""The donor's rows beside the source's: anchors that both models have, and the missing tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tokenadapt.plan import Problem, Table
from tokenadapt.vocab.index import ids_by_bytes
from tokenadapt.vocab.types import ByteVocab, How, Ids, Kind


@dataclass(frozen=True)
class DonorView:
    """Which rows of the donor's table and of the source's speak of the same tokens."""

    table: Table  # the donor's, of the problem's role
    missing: Ids  # (M,) donor id of each missing token, -1 where it has none
    anchor: Ids  # (A,) donor id of each copied token that the donor has
    source: Ids  # (A,) old id of the same tokens

    @property
    def known(self) -> Ids:
        """Positions of the missing tokens that the donor has."""
        return np.flatnonzero(self.missing >= 0)

    def missing_rows(self, index: Ids) -> torch.Tensor:
        """Donor rows of missing tokens `index`, which the donor has: (len(index), d) float32."""
        return self.table.rows(self.missing[index]).float()


def view(problem: Problem) -> DonorView:
    """Match the donor's tokens with the target's by bytes; anchors are the copied tokens, in the order of ids."""
    donor, alignment = problem.donor, problem.alignment
    assert donor is not None
    table = donor.table(problem.role)
    copied = np.flatnonzero(alignment.how == How.COPIED)
    wanted = np.concatenate([alignment.missing, copied])
    found = _donor_ids(problem.target, donor.vocab, wanted, table.shape[0])
    anchor = found[len(alignment.missing) :]
    both = anchor >= 0
    return DonorView(table, found[: len(alignment.missing)], anchor[both], alignment.source_id[copied][both])


def _donor_ids(target: ByteVocab, donor: ByteVocab, ids: Ids, rows: int) -> Ids:
    """The donor's id for each target id: the same id where it has the same bytes, else by bytes, else -1."""
    by_bytes = ids_by_bytes(donor, rows, (Kind.ORDINARY, Kind.BYTE, Kind.ADDED))
    out = np.full(len(ids), -1, dtype=np.int64)
    top = min(rows, len(donor))
    for place, index in enumerate(ids.tolist()):
        data = target.token_bytes[index]
        if data is not None:
            same = index < top and donor.token_bytes[index] == data
            out[place] = index if same else by_bytes.get(data, -1)
    return out
