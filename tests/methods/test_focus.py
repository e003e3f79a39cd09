"""`focus`: sparsemax against a sort, weights against plain loops, vectors from a tiny corpus."""

import numpy as np
import pytest
import torch

from tests.methods.problems import make_problem
from tests.methods.test_first import terms
from tokenadapt.errors import MissingExtraError, RequestError
from tokenadapt.methods import Chosen
from tokenadapt.methods.focus import weigh
from tokenadapt.methods.make import run
from tokenadapt.methods.sparsemax import sparsemax
from tokenadapt.methods.token_vectors import Training, fasttext_vectors


def plain_sparsemax(z):
    """Projection on the simplex by a sort (Martins and Astudillo 2016, algorithm 1)."""
    ordered = np.sort(z)[::-1]
    k = max(i + 1 for i in range(len(z)) if 1 + (i + 1) * ordered[i] > ordered[: i + 1].sum())
    return np.clip(z - (ordered[:k].sum() - 1) / k, 0, None)


@pytest.mark.parametrize("first", [1, 3, 256])
@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0])
def test_sparsemax_equals_the_plain_projection(first, spread):
    scores = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) * spread
    place, weight = sparsemax(scores, first)
    whole = torch.zeros(20, 50).scatter(1, place, weight)
    for got, row in zip(whole, scores, strict=True):
        np.testing.assert_allclose(got.numpy(), plain_sparsemax(row.double().numpy()), atol=1e-5)


def test_sparsemax_by_hand():
    place, weight = sparsemax(torch.tensor([[0.1, 0.9, 0.7]]))  # 0.9 and 0.7 are left: (1.6 - 1) / 2 is taken off
    assert dict(zip(place[0].tolist(), weight[0].tolist(), strict=True)) == pytest.approx({1: 0.6, 2: 0.4, 0: 0.0})


def test_weights_are_the_sparsemax_of_cosines(monkeypatch):
    monkeypatch.setattr("tokenadapt.methods.focus.BLOCK", 2)
    problem = make_problem()
    rng = np.random.default_rng(0)
    new, anchors = rng.normal(size=(7, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    new[3] = 0
    source = np.array([5, 9, 1, 2, 3])
    plan = weigh(problem, new, anchors, source)
    for j in range(7):
        cosine = [float(new[j] @ a / (np.linalg.norm(new[j]) * np.linalg.norm(a) + 1e-30)) for a in anchors]
        want = dict(zip(source.tolist(), plain_sparsemax(np.array(cosine)), strict=True)) if j != 3 else {}
        assert terms(plan, j) == pytest.approx({i: w for i, w in want.items() if w > 1e-6}, abs=1e-5)


def test_tokens_that_the_corpus_has_get_vectors_and_rare_ones_are_left():
    pytest.importorskip("gensim")
    problem = make_problem(
        old=(b" ", b"the", b"in", b"ing", b"re"), new=(b" ", b"the", b"in", b"there", b"rein", b"never"),
        corpus=lambda: iter(("there the in rein", "in rein the there") * 8 + ("never",) * 3),
    )  # fmt: skip
    vectors = fasttext_vectors(problem, Training(dim=8, epochs=2, min_count=10, texts=100))
    assert vectors.shape == (6, 8)
    assert vectors.any(axis=1).tolist() == [True] * 5 + [False]
    plan = run(problem, Chosen("focus", {"dim": 8}))
    assert plan.empty.tolist() == [False, False, True]
    assert set(plan.source_id.tolist()) <= {0, 1, 2}  # copied tokens with a vector: not `ing`, not `re`
    assert np.bincount(np.repeat(np.arange(3), np.diff(plan.start)), weights=plan.weight, minlength=3)[:2] == (
        pytest.approx([1, 1])
    )
    again = fasttext_vectors(problem, Training(dim=8, epochs=2, min_count=10, texts=100))
    assert np.array_equal(vectors, again)


def test_an_absent_library_and_an_absent_corpus_are_said_plainly(monkeypatch):
    with pytest.raises(RequestError, match="focus needs text"):
        run(make_problem(), Chosen("focus"))
    monkeypatch.setitem(__import__("sys").modules, "gensim.models", None)
    with pytest.raises(MissingExtraError, match="needs the package gensim"):
        run(make_problem(corpus=lambda: iter(("there",))), Chosen("focus"))
