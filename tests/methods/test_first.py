"""The first methods against plain loops over the published formulas, and against examples worked by hand."""

import math

import numpy as np
import pytest
import torch

from tests.methods.problems import NEW, OLD, TinySpace, align, byte_vocab, make_problem, segment
from tokenadapt.methods import Chosen, parse_method
from tokenadapt.methods.make import run
from tokenadapt.plan import MemoryTable, Problem, missing_rows


def terms(plan, j):
    """{old id: weight} of run j."""
    begin, end = plan.start[j], plan.start[j + 1]
    out = {}
    for i, w in zip(plan.source_id[begin:end].tolist(), plan.weight[begin:end].tolist(), strict=True):
        out[i] = out.get(i, 0.0) + w
    return out


def softmax(values):
    top = max(values)
    grown = [math.exp(v - top) for v in values]
    return [g / sum(grown) for g in grown]


def run_of(problem, token):
    return [NEW[i] for i in problem.alignment.missing].index(token)


# Plain loops, written from the formulas.


def plain_local(problem, j, tau):
    cut, space = problem.segmentation, problem.space
    places = range(cut.start[j], cut.start[j + 1])
    phi = space.missing(np.array([j]))[0]
    places = [n for n in places if space.source(cut.piece[n : n + 1]).any()]
    if not places or not phi.any():
        return {}
    u = softmax([float(phi @ space.source(cut.piece[n : n + 1])[0]) for n in places])
    share = [cut.length[n] / max(1, cut.token_length[j]) for n in places]
    weights = softmax([(a + b) / 2 / tau for a, b in zip(u, share, strict=True)])
    out = {}
    for n, w in zip(places, weights, strict=True):
        out[int(cut.piece[n])] = out.get(int(cut.piece[n]), 0.0) + w
    return out


def plain_global(problem, j, tau, k, theta):
    phi = problem.space.missing(np.array([j]))[0]
    scored = []
    for i in range(problem.table.shape[0]):
        other = problem.space.source(np.array([i]))[0]
        if phi.any() and other.any():
            scored.append((float(phi @ other), i))
    scored = sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:k]
    if not scored:
        return {}
    weights = softmax([s / tau for s, _ in scored])
    survivors = {i: w for (s, i), w in zip(scored, weights, strict=True) if s >= theta}
    total = sum(survivors.values())
    return {i: w / total for i, w in survivors.items()}


def plain_hybrid(problem, j, tau, k, g, theta):
    near, far = plain_local(problem, j, tau), plain_global(problem, j, tau, k, theta)
    if not near or not far:
        return near or far
    return {i: (1 - g) * near.get(i, 0.0) + g * far.get(i, 0.0) for i in near.keys() | far.keys()}


@pytest.mark.parametrize("tau", [0.3, 0.6])
@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("theta", [-1.0, 0.0, 0.6, 1.0])
def test_local_global_and_hybrid_equal_plain_loops(tau, k, theta):
    problem = make_problem()
    local = run(problem, Chosen("local", {"tau": tau}))
    far = run(problem, Chosen("global", {"tau": tau, "k": k, "theta": theta}))
    both = run(problem, Chosen("hybrid", {"tau": tau, "k": k, "theta": theta, "g": 0.2}))
    for j in range(len(problem.alignment.missing)):
        assert terms(local, j) == pytest.approx(plain_local(problem, j, tau), abs=1e-6)
        assert terms(far, j) == pytest.approx(plain_global(problem, j, tau, k, theta), abs=1e-6)
        assert terms(both, j) == pytest.approx(plain_hybrid(problem, j, tau, k, 0.2, theta), abs=1e-6)


@pytest.mark.parametrize(
    ("cosines", "lengths", "tau", "first"),
    [
        ((0.6, 0.8), (5, 5), 0.3, 0.459),
        ((0.6, 0.8), (5, 5), 0.6, 0.479),
        ((0.3, 0.9), (5, 5), 0.3, 0.381),
        ((0.3, 0.9), (5, 5), 0.6, 0.440),
        ((0.6, 0.8), (3, 7), 0.3, 0.303),
        ((0.6, 0.8), (3, 7), 0.6, 0.397),
        ((0.3, 0.9), (8, 2), 0.3, 0.626),
    ],
)
def test_local_as_worked_out_from_the_paper(cosines, lengths, tau, first):
    old = (b"a" * lengths[0], b"b" * lengths[1])
    new = (old[0] + old[1],)
    alignment = align(old, new)
    angle = [math.acos(c) for c in cosines]
    space = TinySpace(
        np.array([[math.cos(a), math.sin(a)] for a in angle], np.float32), np.array([[1.0, 0.0]], np.float32)
    )
    problem = Problem(
        byte_vocab(old), byte_vocab(new), alignment, segment(old, new, alignment), "input",
        MemoryTable(torch.eye(2)), space=space,
    )  # fmt: skip
    weight = run(problem, Chosen("local", {"tau": tau})).weight
    assert weight[0] == pytest.approx(first, abs=6e-4)
    assert weight.sum() == pytest.approx(1)


def test_pieces_length_and_ends_by_hand():
    problem = make_problem()
    assert [OLD[i] for i in problem.segmentation.piece[:2]] == [b"the", b"re"]  # of `there`
    assert terms(run(problem, Chosen("pieces")), 0) == pytest.approx({5: 0.5, 7: 0.5})
    assert terms(run(problem, Chosen("length")), 0) == pytest.approx({5: 0.6, 7: 0.4})
    assert terms(run(problem, Chosen("ends")), 0) == {7: 1.0}
    output = make_problem(role="output")
    assert terms(run(output, Chosen("ends")), 0) == pytest.approx({5: 2 / 3, 7: 1 / 3})
    accent = run_of(problem, "thé".encode())  # t, h, é: three code points, four bytes
    assert terms(run(problem, Chosen("length")), accent) == pytest.approx({1: 1 / 3, 2: 1 / 3, 14: 1 / 3})
    broken = run_of(problem, b"the\xc3")  # the, and half of a letter: bytes
    assert terms(run(problem, Chosen("length")), broken) == pytest.approx({5: 3 / 4, 12: 1 / 4})


def test_ends_decays_as_told():
    problem = make_problem(new=(b"tree",), role="output")  # t, re, e
    assert terms(run(problem, parse_method("ends:decay=0.1")), 0) == pytest.approx(
        {1: 1 / 1.11, 7: 0.1 / 1.11, 3: 0.01 / 1.11}
    )


def test_zero_and_mean():
    problem = make_problem()
    M = len(problem.alignment.missing)
    assert missing_rows(problem.table, run(problem, Chosen("zero")), 0, M).abs().max() == 0
    mean = problem.table.tensor[1:].mean(0)  # id 0 is special: it is not ordinary
    torch.testing.assert_close(missing_rows(problem.table, run(problem, Chosen("mean")), 0, M), mean.expand(M, 8))


def test_asymmetric_calibrates_input_rows_and_weighs_output_rows_by_length():
    problem = make_problem()
    made = run(problem, Chosen("asymmetric"))
    rows = missing_rows(problem.table, made, 0, len(made.start) - 1)
    mean = problem.table.tensor[1:].mean(0)
    copied = problem.alignment.source_id[problem.alignment.source_id >= 0]
    goal = np.median((problem.table.tensor[copied] - mean).norm(dim=1).numpy())
    distance = (rows - mean).norm(dim=1)[~made.empty]
    assert distance.numpy() == pytest.approx(goal)
    output = make_problem(role="output")
    assert np.array_equal(run(output, Chosen("asymmetric")).weight, run(output, Chosen("length")).weight)


def test_normal_draws_have_the_mean_and_covariance_of_the_old_rows():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-1.0, 0.2, 0.1]])
    table = torch.randn(400, 3, generator=generator) @ mixing.T + torch.tensor([1.0, -2.0, 5.0])
    old = tuple(str(i).encode() for i in range(400))
    new = tuple(b"n%d" % i for i in range(20000))
    alignment = align(old, new)
    problem = Problem(
        byte_vocab(old), byte_vocab(new), alignment,
        _no_pieces(len(new)), "input", MemoryTable(table),
    )  # fmt: skip
    rows = run(problem, Chosen("normal")).rows
    torch.testing.assert_close(rows.mean(0), table.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(rows.T.cov(), table.T.cov(), atol=0.15, rtol=0)
    diagonal = run(problem, Chosen("normal", {"covariance": "diagonal"})).rows
    torch.testing.assert_close(diagonal.T.cov(), table.T.cov().diag().diag(), atol=0.15, rtol=0)
    scalar = run(problem, Chosen("normal", {"covariance": "scalar"})).rows
    assert scalar.T.cov().diag().std() < 0.3
    small = run(problem, Chosen("normal", {"scale": 1e-8})).rows
    assert (small - table.mean(0)).abs().max() < 0.01
    other = Problem(problem.source, problem.target, alignment, problem.segmentation, "input", problem.table, seed=1)
    assert not torch.equal(run(other, Chosen("normal")).rows, rows)
    assert len(torch.unique(rows[:, 0])) > 19900


def _no_pieces(count):
    from tokenadapt.vocab.types import Segmentation

    nothing = np.zeros(0, np.int64)
    return Segmentation(np.zeros(count + 1, np.int64), nothing, nothing, np.ones(count, np.int64))


def test_hybrid_where_both_one_or_none_is_there():
    """A token without a vector has neither; one that cannot be spelled has neighbours alone; the rest have both."""
    problem = make_problem()
    space = problem.space
    space.new[run_of(problem, b"there")] = 0
    plan = run(problem, Chosen("hybrid", {"g": 0.25}))
    assert terms(plan, run_of(problem, b"there")) == {}
    alone = run_of(problem, b"\xff")
    assert terms(plan, alone) == pytest.approx(plain_global(problem, alone, 0.3, 3, 0.0), abs=1e-6)
    for j in range(len(problem.alignment.missing)):
        assert terms(plan, j) == pytest.approx(plain_hybrid(problem, j, 0.3, 3, 0.25, 0.0), abs=1e-6)
    assert np.array_equal(run(problem, Chosen("hybrid", {"g": 0.0})).weight, run(problem, Chosen("local")).weight)
    assert np.array_equal(run(problem, Chosen("hybrid", {"g": 1.0})).weight, run(problem, Chosen("global")).weight)
