"""Shared positions against a brute-force search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import FAMILIES, LINES
from tokenadapt.calibration.spans import Shared, cut, shared_positions
from tokenadapt.evaluation.encode import TextEncoder
from tokenadapt.vocab.load import LoadedTokenizer

SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=30)


def brute_force(ours, theirs):
    """Every pair of places, looked at one by one; the last token that ends at a byte stands for it."""
    ends = {sum(ours[: i + 1]): i for i in range(len(ours))}
    others = {sum(theirs[: j + 1]): j for j in range(len(theirs))}
    return [(ends[byte], others[byte]) for byte in sorted(ends) if byte in others and byte > 0]


@settings(max_examples=50)
@given(ours=SIZES, theirs=SIZES)
def test_shared_positions_are_those_of_a_search(ours, theirs):
    found = shared_positions(np.array(ours), np.array(theirs))
    assert list(zip(found.ours.tolist(), found.theirs.tolist(), strict=True)) == brute_force(ours, theirs)


@pytest.mark.parametrize("first", FAMILIES)
@pytest.mark.parametrize("second", FAMILIES)
def test_real_tokenizers_share_what_a_search_finds(tokenizers, tmp_path, first, second):
    sides = [TextEncoder.of(LoadedTokenizer(name, tmp_path, tokenizers[name])) for name in (first, second)]
    for line in LINES[:3]:
        ours, theirs = (side.encode([line]).nbytes for side in sides)
        found = shared_positions(ours, theirs)
        assert list(zip(found.ours.tolist(), found.theirs.tolist(), strict=True)) == brute_force(
            ours.tolist(), theirs.tolist()
        )
        assert found.ours[-1] == len(ours) - 1  # both end where the text ends


@settings(max_examples=50)
@given(ours=SIZES, theirs=SIZES, room=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_a_cut_holds_the_same_bytes_on_both_sides(ours, theirs, room):
    ours, theirs = np.array(ours), np.array(theirs)
    shared = shared_positions(ours, theirs)
    last = (0, 0)
    for part in cut(shared, room):
        mine, other = ours[slice(*part.ours)], theirs[slice(*part.theirs)]
        assert mine.sum() == other.sum() > 0
        assert len(mine) <= room[0]
        assert len(other) <= room[1]
        assert part.ours[0] >= last[0]
        assert part.theirs[0] >= last[1]
        last = part.ours[1], part.theirs[1]
        for k, (i, j) in enumerate(zip(part.shared.ours, part.shared.theirs, strict=True)):
            assert mine[: i + 1].sum() == other[: j + 1].sum()
            assert k == 0 or i > part.shared.ours[k - 1]
        assert part.shared.ours[-1] == len(mine) - 1


def test_a_text_that_fits_is_cut_once_and_a_span_that_never_fits_is_left_out():
    shared = Shared(np.array([0, 1, 5, 6]), np.array([0, 2, 3, 4]))
    (whole,) = cut(shared, (10, 10))
    assert (whole.ours, whole.theirs) == ((0, 7), (0, 5))
    parts = list(cut(shared, (3, 3)))  # the student's tokens 2 to 5 are one span of four
    assert [(part.ours, part.theirs) for part in parts] == [((0, 2), (0, 3)), ((6, 7), (4, 5))]
