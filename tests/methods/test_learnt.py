"""`tokalign` and `cw2v`: counts, steps and matches against plain loops; what they learn on planted texts."""

import math

import numpy as np
import pytest
import torch

from tests.methods.problems import make_problem
from tests.methods.test_first import terms
from tokenadapt.errors import RequestError
from tokenadapt.methods import Chosen
from tokenadapt.methods.cw2v import Hull
from tokenadapt.methods.glove import GloveOptions, Together, cooccurrences, train
from tokenadapt.methods.make import run
from tokenadapt.methods.skipgram import Pairs, loss_of
from tokenadapt.methods.tokalign import match


def test_cooccurrences_equal_plain_loops(monkeypatch):
    monkeypatch.setattr("tokenadapt.methods.glove.PAIRS", 10)
    texts = [np.array(text) for text in ([0, 1, 2, 1, 0, 3], [2, 2, 1], [4], [1, 0, 0, 2])]
    got = cooccurrences(texts, 5, GloveOptions(window=3, min_count=2))
    want = {}
    for text in texts:
        for a in range(len(text)):
            for b in range(len(text)):
                if a != b and abs(a - b) <= 3 and not {3, 4} & {text[a], text[b]}:  # 3 and 4 are rare
                    key = (int(text[a]), int(text[b]))
                    want[key] = want.get(key, 0) + 1 / abs(a - b)
    assert dict(zip(zip(got.row.tolist(), got.column.tolist(), strict=True), got.value, strict=True)) == pytest.approx(
        want
    )


def test_one_pass_of_glove_equals_plain_adagrad():
    """All pairs in one batch: gradients of 0.5 f (w.c + b + b' - log x)^2, added per row, then AdaGrad from 1."""
    counts = Together(np.array([0, 1, 0]), np.array([1, 0, 2]), np.array([4.0, 20.0, 1.0]))
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 4))
    got = train(counts, noise, GloveOptions(dim=2, epochs=1), order=np.arange(3))
    word, context = noise[:, :2] / 2, noise[:, 2:] / 2
    slope_w, slope_c = np.zeros((3, 2)), np.zeros((3, 2))
    for i, j, x in zip(counts.row, counts.column, counts.value, strict=True):
        error = min(1, (x / 10) ** 0.75) * (word[i] @ context[j] - math.log(x))
        slope_w[i] += error * context[j]
        slope_c[j] += error * word[i]
    word = word - 0.05 * slope_w / np.sqrt(1 + slope_w**2)
    context = context - 0.05 * slope_c / np.sqrt(1 + slope_c**2)
    np.testing.assert_allclose(got[:2], (word + context)[:2], atol=1e-5)
    assert not got[2].any()  # never a row of its own


def test_the_match_equals_plain_loops():
    rng = np.random.default_rng(1)
    problem = make_problem()
    old, new = rng.normal(size=(16, 5)).astype(np.float32), rng.normal(size=(13, 4)).astype(np.float32)
    old[4], new[3] = 0, 0
    plan = match(problem, old, new, pivots=300)
    alignment = problem.alignment
    pivots = [
        i for i in range(13) if alignment.source_id[i] >= 0 and new[i].any() and old[alignment.source_id[i]].any()
    ]

    def cosine(a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    best = []
    for index in alignment.missing:
        if not new[index].any():
            continue
        mine = np.array([cosine(new[index], new[p]) for p in pivots])
        scores = {
            i: cosine(mine, np.array([cosine(old[i], old[alignment.source_id[p]]) for p in pivots]))
            for i in range(16) if old[i].any()
        }  # fmt: skip
        best.append(max(scores, key=scores.get))
    assert plan.source_id.tolist() == best
    assert (plan.weight == 1).all()
    assert plan.empty.tolist() == [not new[i].any() for i in alignment.missing]


WORDS = [b"sun", b"moon", b"tea", b"cup", b"sky", b"pot"]
PLANTED = tuple(f"{a} {b} {a}" for a, b in (("sun", "sky"), ("moon", "sky"), ("tea", "cup"), ("pot", "cup"))) * 12


def planted(**more):
    """Old `sol` and `te` are rows for what the target calls sun and tea, if only the texts tell."""
    old = (b" ", *b"s u n t e a m o p k y c".split(), b"moon", b"sky", b"cup", b"pot", b"sun"[:2])
    new = (b" ", b"moon", b"sky", b"cup", b"pot", b"sun", b"tea", b"rare")
    return make_problem(old=old, new=new, corpus=lambda: iter((*PLANTED, "rare")), **more)


def test_tokalign_takes_one_row_whole_and_leaves_rare_tokens():
    problem = planted()
    plan = run(problem, Chosen("tokalign", {"dim": 8, "epochs": 5}))
    assert plan.empty.tolist() == [False, False, True]
    assert np.diff(plan.start).tolist() == [1, 1, 0]
    assert plan.weight.tolist() == [1, 1]


def test_cw2v_learns_which_old_row_a_token_is_used_like():
    """The table's rows are such that `sky` goes with `moon` and `cup` with `pot`: sun must lean to moon, tea to pot."""
    names = planted().source.token_bytes
    table = torch.zeros(len(names), 4)
    for token, row in {b"sky": [3, 0, 0, 0], b"moon": [3, 0, 1, 0], b"cup": [0, 3, 0, 0], b"pot": [0, 3, 0, 1]}.items():
        table[names.index(token)] = torch.tensor(row, dtype=torch.float32)
    problem = planted(table=table)
    plan = run(problem, Chosen("cw2v", {"steps": 300, "rank": 8, "batch": 64, "window": 2}))
    rows = [plan.weight[a:b] for a, b in zip(plan.start, plan.start[1:], strict=False)]
    assert [float(weight.sum()) if len(weight) else 0 for weight in rows] == pytest.approx([1, 1, 0])
    assert (plan.weight >= 0).all()
    sun, tea = (terms(plan, j) for j in (0, 1))
    sky, cup = ([names.index(t) for t in pair] for pair in ((b"sky", b"moon"), (b"cup", b"pot")))
    assert sum(sun.get(i, 0) for i in sky) > 2 * sum(sun.get(i, 0) for i in cup)
    assert sum(tea.get(i, 0) for i in cup) > 2 * sum(tea.get(i, 0) for i in sky)


def test_cw2v_rows_and_loss_equal_numpy():
    problem = planted()
    learnt, vertices = np.array([0, 1]), np.array([0, 3, 5, 14])
    model = Hull(problem, learnt, vertices, rank=3)
    logits = model.left.detach().numpy() @ model.right.detach().numpy().T
    weight = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = problem.table.tensor.numpy()
    mean = rows[vertices].mean(0)
    scale = np.linalg.norm(rows[vertices] - mean, axis=1).mean()
    sun, moon = int(problem.alignment.missing[0]), 1
    got = model.rows(np.array([sun, moon, sun])).detach().numpy()
    np.testing.assert_allclose(got[0], (weight[0] @ rows[vertices] - mean) / scale, atol=1e-5)
    np.testing.assert_allclose(got[1], (rows[problem.alignment.source_id[moon]] - mean) / scale, atol=1e-5)
    assert np.array_equal(got[0], got[2])
    centre, context, noise = np.array([sun]), np.array([moon]), np.array([[2, 3]])
    a, b, c, d = (model.rows(np.array([i])).detach().double().numpy()[0] for i in (sun, moon, 2, 3))
    want = -sum(math.log(1 / (1 + math.exp(-x))) for x in (a @ b, -(a @ c), -(a @ d)))
    assert loss_of(model.rows, centre, context, noise).item() == pytest.approx(want, rel=1e-5)


def test_pairs_stay_within_a_text_and_noise_follows_frequency():
    stream = np.array([-1, 0, 1, 0, -1, 2, 3, -1])
    pairs = Pairs(stream, np.cumsum(stream < 0), np.array([3, 1, 0, 2]), np.array([16, 1, 1, 0]), window=2, negative=3)
    centre, context, noise = pairs.draw(np.random.default_rng(0), 4000)
    assert len(centre) == len(context) == len(noise) > 500
    seen = set(zip(centre.tolist(), context.tolist(), strict=True))
    assert seen == {(0, 1), (1, 0), (0, 0), (2, 3), (3, 2)}
    share = np.bincount(noise.reshape(-1), minlength=4) / noise.size
    assert share == pytest.approx([0.8, 0.1, 0.1, 0.0], abs=0.03)  # 16^0.75 = 8


@pytest.mark.parametrize("name", ["tokalign", "cw2v"])
def test_without_text_nothing_is_learnt(name):
    with pytest.raises(RequestError, match=f"{name} needs text"):
        run(make_problem(), Chosen(name))
    assert run(make_problem(corpus=lambda: iter(())), Chosen(name)).empty.all()
