from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.spaces.conftest import make_setting
from tokenadapt.errors import RequestError
from tokenadapt.plan import MemoryTable
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.own import fingerprint


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


class FakeModel:
    """States are a fixed function of the last two ids, so that they can be worked by hand."""

    tied = True

    def __init__(self, table):
        self._table, self.calls = table, []

    def table(self, role):
        return self._table

    def states(self, sequences, layers):
        self.calls.extend(map(tuple, sequences))
        assert all(0 <= layer <= 1 for layer in layers)
        last = [[s[-1], s[-2] if len(s) > 1 else 0, 1] for s in sequences]
        return np.array(last, dtype=np.float32)[:, None, :].repeat(len(layers), axis=1)


def test_states_are_read_after_the_begin_token_about_their_mean_and_kept(cache_dir):
    setting = make_setting([b"a", b"b", b"c", None], [b"ac", b"zz"])
    setting.source = type(setting.source)(**{**vars(setting.source), "roles": {"bos": 3}})
    model = FakeModel(setting.table)
    space = open_space("self:states=0.5", model=model, **vars(setting))
    lengths = np.linalg.norm([[0, 3, 1], [1, 3, 1], [2, 3, 1], [2, 0, 1]], axis=1)
    old = np.array([[0, 3, 1], [1, 3, 1], [2, 3, 1]]) / lengths[:3, None]
    about = old - old.mean(axis=0)
    np.testing.assert_allclose(
        space.source(np.arange(3)), about / np.linalg.norm(about, axis=1, keepdims=True), atol=3e-3
    )
    new = np.array([2, 0, 1]) / lengths[3] - old.mean(axis=0)
    np.testing.assert_allclose(space.missing(np.arange(2)), [new / np.linalg.norm(new), [0, 0, 0]], atol=3e-3)
    np.testing.assert_allclose(space.encode_texts(["ac"])[0], space.missing(np.arange(1))[0], atol=1e-6)
    assert set(model.calls) == {(3, 0), (3, 1), (3, 2), (3, 0, 2)}
    second = FakeModel(setting.table)
    open_space("self:states=0.5", model=second, **vars(setting)).neighbours(1)
    assert set(second.calls) == {(3, 0)}  # the probe alone: all else came from the cache


def test_states_want_a_model_and_a_depth():
    setting = vars(make_setting([b"a"], [b"b"]))
    with pytest.raises(RequestError, match="needs the source model"):
        open_space("self:states", **setting)
    for wrong in ("self:states=2", "self:states=deep", "self:states=nan"):
        with pytest.raises(RequestError, match="relative depth"):
            open_space(wrong, **setting)


def test_states_of_several_pieces_have_a_mean_of_their_own(cache_dir):
    letters = [bytes([97 + n]) for n in range(20)]
    new = [one + two for one in letters[:10] for two in letters[:8]]
    setting = make_setting(letters, new)
    space = open_space("self:states=0.5", model=FakeModel(setting.table), **vars(setting))
    rows = space.missing(np.arange(80))
    states = np.array([[ord(t[1:]) - 97, ord(t[:1]) - 97, 1] for t in new], dtype=float)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    about = states - states.mean(axis=0)
    np.testing.assert_allclose(rows, about / np.linalg.norm(about, axis=1, keepdims=True), atol=0.02)


class Still:
    """A model of given rows whose states on any text are given too."""

    def __init__(self, rows, states):
        self.rows, self.given = rows, states

    def table(self, role):
        return MemoryTable(self.rows)

    def states(self, sequences, layers):
        return self.given[None]


def test_a_fingerprint_is_that_of_rows_and_layers_and_not_of_rounding():
    drawn = np.random.default_rng(0)
    rows, states = torch.randn(50, 64), drawn.normal(size=(3, 64)).astype(np.float32)
    print_of = fingerprint(Still(rows, states), [0])
    for _ in range(20):
        noise = 1 + 1e-6 * drawn.normal(size=states.shape)
        assert fingerprint(Still(rows, (states * noise).astype(np.float32)), [0]) == print_of
    moved = rows.clone()
    moved[7, 3] += 1e-3
    assert fingerprint(Still(moved, states), [0]) != print_of
    assert fingerprint(Still(rows, drawn.normal(size=(3, 64)).astype(np.float32)), [0]) != print_of
