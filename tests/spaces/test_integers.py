from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.spaces.test_neighbours import nearest, oracle
from tokenadapt.errors import RequestError
from tokenadapt.spaces import integers, neighbours, search
from tokenadapt.spaces.integers import IntegerSearch, integers_are_exact, integers_pay
from tokenadapt.spaces.options import unit

needs_integers = pytest.mark.skipif(not integers_are_exact(), reason="no exact 8-bit products on this processor")


def vectors(rows, width, seed, outlier=0.0):
    drawn = np.random.default_rng(seed).normal(size=(rows, width))
    drawn[:, 0] += outlier
    return unit(drawn)


@needs_integers
@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 300),
    width=st.integers(1, 40),
    k=st.integers(1, 5),
    extra=st.integers(0, 8),
    seed=st.integers(0, 9),
    outlier=st.sampled_from([0.0, 3.0, 50.0]),
)
@example(rows=4, width=1, k=2, extra=0, seed=1, outlier=0.0)
def test_no_row_outside_the_shortlist_exceeds_what_is_promised(rows, width, k, extra, seed, outlier):
    candidates, asked = vectors(rows, width, seed, outlier), vectors(20, width, seed + 1, outlier)
    fetch = min(k + extra, rows)
    short = IntegerSearch(np.arange(rows), lambda ids: candidates[ids]).top(asked, k, fetch)
    exact = asked.astype(np.float64) @ candidates.astype(np.float64).T
    for query in range(len(asked)):
        kept = short.rows[query][short.rows[query] >= 0]
        assert len(set(kept)) == len(kept)
        others = np.setdiff1d(np.arange(rows), kept)
        allowed = max(short.bound[query], np.sort(exact[query])[-min(k, rows)])
        assert (exact[query, others] <= allowed).all()


@needs_integers
def test_queries_left_open_are_answered_by_floats(monkeypatch):
    """One huge coordinate that all share leaves two or three levels to the others: nothing can be certain."""
    candidates, asked = vectors(600, 24, 0, outlier=300), vectors(50, 24, 1, outlier=300)
    names, barred = np.arange(600), np.full(50, -1)
    searched = []
    floats = neighbours._by_floats

    def watched(sides, near, left, *rest):
        searched.append(left)
        floats(sides, near, left, *rest)

    monkeypatch.setattr(neighbours, "_by_floats", watched)
    ids, _ = nearest(names, candidates, asked, barred, 3, backend="int8")
    assert len(searched[0]) == 50
    assert np.array_equal(ids, oracle(candidates, names, asked, barred, 3))


@needs_integers
def test_the_answer_is_that_of_floats_on_clustered_vectors():
    centre = vectors(40, 64, 0)
    drawn = np.random.default_rng(1).normal(size=(4000, 64)) * 0.05
    rows = unit(centre[np.arange(4000) % 40] + drawn)
    names, asked, barred = np.arange(3000), rows[3000:], np.full(1000, -1)
    whole = nearest(names, rows, asked, barred, 3, backend="int8")
    floats = nearest(names, rows, asked, barred, 3, backend="torch")
    assert all(map(np.array_equal, whole, floats))
    assert np.array_equal(whole[0], oracle(rows[:3000], names, asked, barred, 3))


def test_integers_are_used_where_they_pay_and_the_work_is_worth_it(monkeypatch):
    monkeypatch.setattr(search, "choose_backend", lambda wanted="auto": "faiss")
    monkeypatch.setattr(search, "integers_pay", lambda width: True)
    assert search.uses_integers("auto", 64, 1 << 30)
    assert not search.uses_integers("auto", 64, 1000)
    assert not search.uses_integers("faiss", 64, 1 << 30)
    monkeypatch.setattr(search, "integers_pay", lambda width: False)
    assert not search.uses_integers("auto", 64, 1 << 30)
    monkeypatch.setattr(search, "integers_pay", lambda width: True)
    monkeypatch.setattr(search, "choose_backend", lambda wanted="auto": "torch-cuda")
    assert not search.uses_integers("auto", 64, 1 << 30)


def test_a_processor_that_overflows_is_found_out(monkeypatch):
    def saturating(left, right, out=None):
        return (left.float() @ right.float()).clamp(-32768, 32767).to(torch.int32)

    monkeypatch.setattr(torch, "_int_mm", saturating)
    for cached in (integers_are_exact, integers_pay):
        cached.cache_clear()
    try:
        assert not integers_are_exact()
        assert not integers_pay(64)
        with pytest.raises(RequestError, match="8-bit"):
            search.uses_integers("int8", 64, 1)
    finally:
        for cached in (integers_are_exact, integers_pay):
            cached.cache_clear()


@needs_integers
def test_integers_pay_only_where_they_are_much_faster(monkeypatch):
    for fast, slow, pays in ((1.0, 2.0, True), (1.0, 1.2, False)):
        integers_pay.cache_clear()
        took = iter([fast, slow])
        monkeypatch.setattr(integers, "_seconds", lambda work, took=took: (work(), next(took))[1])
        assert integers_pay(32) is pays
    integers_pay.cache_clear()
