"""Groups of tokens that stand for one another where a token begins: what both vocabularies can be asked about.

A new token is grouped with the source's token that it begins with, and a token that the student lacks with the one of
the student's that it begins with; groups that share a token are one. "▁bird.", "▁bird!" and "▁bird" are then a group of
both sides: however a side goes on, it gives the group about the same probability.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tokenadapt.calibration.pair import Pair
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.calibration.view import Starts
from tokenadapt.vocab import align, segment
from tokenadapt.vocab.types import Alignment, ByteVocab, Ids


def make_starts(pair: Pair, student: Speaker, teacher: Speaker) -> Starts:
    """The groups of a pair."""
    ours, theirs = groups(pair)
    found = [
        torch.from_numpy(labels).to(speaker.device)[speaker.output.order]
        for labels, speaker in ((ours, student), (theirs, teacher))
    ]
    return Starts(found[0], found[1], int(max(ours.max(), theirs.max())) + 1)


def groups(pair: Pair) -> tuple[Ids, Ids]:
    """Group numbers by id: of the student (V,), and of the teacher (W,)."""
    size, other = pair.checkpoint.rows, pair.source.rows
    back = align(pair.student, pair.teacher, source_rows=size, target_rows=other)
    fresh, start = _begun(pair.teacher, pair.student, pair.alignment)
    gone, begun = _begun(pair.student, pair.teacher, back)
    ours = np.concatenate([pair.common, fresh, begun])
    theirs = np.concatenate([pair.alignment.source_id[pair.common], start, gone])
    edges = coo_matrix((np.ones(len(ours), bool), (ours, theirs + size)), shape=(size + other, size + other))
    labels = connected_components(edges, directed=False)[1].astype(np.int64)
    return labels[:size], labels[size:]


def _begun(source: ByteVocab, target: ByteVocab, alignment: Alignment) -> tuple[Ids, Ids]:
    """Missing tokens of the target that have pieces, and the first of them."""
    cut = segment(source, target, alignment)
    having = cut.counts > 0
    return alignment.missing[having], cut.piece[cut.start[:-1][having]]
