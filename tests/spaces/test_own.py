from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.spaces.conftest import make_setting
from tokenadapt.errors import RequestError
from tokenadapt.spaces.open import open_space


def test_rows_about_the_mean_and_means_of_pieces():
    table = torch.tensor([[1.0, 2], [5, 2], [3, 5], [3, -1]], dtype=torch.bfloat16)  # mean row (3, 2)
    setting = make_setting([b"a", b"b", b"c", b"d"], [b"a", b"ac", b"bc", b"zz", b"ab"], table)
    space = open_space("self:rows", **vars(setting))
    np.testing.assert_allclose(space.source(np.array([2, 0])), [[0, 1], [-1, 0]], atol=1e-6)
    length = 13**0.5
    expected = [[-2 / length, 3 / length], [2 / length, 3 / length], [0, 0], [0, 0]]
    np.testing.assert_allclose(space.missing(np.arange(4)), expected, atol=1e-6)
    np.testing.assert_allclose(space.encode_texts(["bc", "zz"]), expected[1:3], atol=1e-6)
    ids, cosines = space.neighbours(1)
    assert ids.tolist() == [[2], [2], [-1], [-1]]
    np.testing.assert_allclose(cosines[:2, 0], 3 / length, atol=1e-6)


@pytest.mark.parametrize("spec", ["selfie", "self:rowz", "word2vec", "static:", ""])
def test_unknown_spaces_are_refused_with_the_list(spec):
    with pytest.raises(RequestError) as caught:
        open_space(spec, **vars(make_setting([b"a"], [b"b"])))
    assert "self:rows" in caught.value.hint
