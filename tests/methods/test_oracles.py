"""Whole methods against independent computations in numpy, where no other test has one."""

import math

import numpy as np
import pytest

from tests.methods.problems import NEW, OLD, cut, make_donor, make_problem
from tests.methods.test_first import terms
from tests.methods.test_learned import ruled_problem
from tests.methods.test_learnt import planted
from tests.methods.test_omp import plain as plain_omp
from tests.methods.test_trans import NEW as GERMAN
from tests.methods.test_trans import OLD as ENGLISH
from tokenadapt.methods import Chosen, cw2v
from tokenadapt.methods.cw2v import Hull
from tokenadapt.methods.donor import view
from tokenadapt.methods.learned import STRENGTHS, learned
from tokenadapt.methods.make import run
from tokenadapt.methods.skipgram import loss_of
from tokenadapt.plan import missing_rows

WIDE = (*NEW, b"t", b"h", b"e", b"r")


def rows_of(problem, name, **options):
    made = run(problem, Chosen(name, options))
    return missing_rows(problem.table, made, 0, len(problem.alignment.missing)).double().numpy()


def sizes(token, pieces):
    """Code points of each piece, bytes where one is no text."""
    try:
        return [len(piece.decode()) for piece in pieces]
    except UnicodeDecodeError:
        return [len(piece) for piece in pieces]


@pytest.mark.parametrize("role", ["input", "output"])
@pytest.mark.parametrize("name", ["pieces", "length", "ends"])
def test_rules_of_pieces(name, role):
    problem = make_problem(role=role)
    table = problem.table.tensor.double().numpy()
    for index, row in zip(problem.alignment.missing, rows_of(problem, name), strict=True):
        ids = cut(NEW[index], OLD)
        if not ids:
            continue
        weight = {
            "pieces": np.ones(len(ids)),
            "length": np.array(sizes(NEW[index], [OLD[i] for i in ids]), float),
            "ends": np.eye(len(ids))[-1] if role == "input" else 0.5 ** np.arange(len(ids)),
        }[name]
        np.testing.assert_allclose(row, weight @ table[ids] / weight.sum(), atol=1e-6)


def test_asymmetric():
    problem = make_problem()
    table, source = problem.table.tensor.double().numpy(), problem.alignment.source_id
    centre = table[1:].mean(0)  # id 0 is special
    goal = np.median([np.linalg.norm(table[i] - centre) for i in source[source >= 0]])
    away = rows_of(problem, "pieces") - centre
    want = centre + goal * away / np.linalg.norm(away, axis=1, keepdims=True)
    known = ~run(problem, Chosen("pieces")).empty
    np.testing.assert_allclose(rows_of(problem, "asymmetric")[known], want[known], atol=1e-5)


def test_normal():
    """The draws behind the three shapes are one and the same; taken out, they leave numpy's own moments."""
    new = tuple(b"n%d" % i for i in range(64))
    problem = make_problem(new=new)
    table = problem.table.tensor.double().numpy()[1:]
    diagonal, scalar, full = (rows_of(problem, "normal", covariance=c) for c in ("diagonal", "scalar", "full"))
    mean = table.mean(0)
    drawn = (diagonal - mean) / table.std(0, ddof=1)
    spread = np.sqrt(((table - mean.mean()) ** 2).sum(0).mean() / (len(table) - 1))
    np.testing.assert_allclose(scalar, mean + spread * drawn, atol=1e-5)
    factor = np.linalg.lstsq(drawn, full - mean, rcond=None)[0].T
    np.testing.assert_allclose(mean + drawn @ factor.T, full, atol=1e-5)
    np.testing.assert_allclose(factor @ factor.T, np.cov(table.T), atol=1e-4)
    assert abs(drawn).max() < 6


@pytest.mark.parametrize("k", [2, 64])
@pytest.mark.parametrize("atoms", ["unit", "raw", "centred"])
def test_omp(atoms, k):
    """The plain loop in the donor's space, its coefficients on the old rows."""
    problem = make_problem(new=WIDE, donor=make_donor(WIDE, width=4))
    shared, table = view(problem), problem.table.tensor.double().numpy()
    donor = problem.donor.table("input").tensor.double().numpy()
    here, there = donor[shared.anchor], table[shared.source]
    a, b = (here.mean(0), there.mean(0)) if atoms == "centred" else (0.0, 0.0)
    scale = 1.0 if atoms == "raw" else np.linalg.norm(here - a, axis=1, keepdims=True)
    for row, index in zip(rows_of(problem, "omp", atoms=atoms, k=k), shared.missing, strict=True):
        found = plain_omp((here - a) / scale, donor[index] - a, k)
        want = b + sum(w * (there[i] - b) / (scale[i] if atoms != "raw" else 1.0) for i, w in found.items())
        np.testing.assert_allclose(row, want, rtol=1e-3, atol=1e-3)


def grid_shares(old, new):
    """{(old place, new place): share} on a grid fine enough for both."""
    both = [(c // new, c // old) for c in range(old * new)]
    return {(i, j): 0.5 / old + 0.5 * both.count((i, j)) / old for i in range(old) for j in range(new)}


def plain_inside(token, known):
    """Longest first, then from the left; none inside another."""
    spans = [(a, b) for a in range(len(token)) for b in range(a + 1, len(token) + 1)]
    within = []
    for a, b in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if token[a:b] in known and not any(token[a:b] in other for other in within):
            within.append(token[a:b])
    return within


def plain_trans(problem, words):
    counts = {}

    def add(new, old, weight):
        counts.setdefault(new, {})
        counts[new][old] = counts[new].get(old, 0) + weight

    for old, new, weight in words:
        for before in ("", " "):
            left, right = cut((before + old).encode(), ENGLISH), cut((before + new).encode(), GERMAN)
            for (i, j), share in grid_shares(len(left), len(right)).items() if left and right else ():
                add(right[j], left[i], weight * share)
    for index, token in enumerate(GERMAN):
        if token in ENGLISH:
            add(index, ENGLISH.index(token), 1)
        elif token.isdigit():
            add(index, cut(token, ENGLISH)[0], 1)
    known = {GERMAN[index]: index for index in counts}
    for token in set(GERMAN) - set(known) - set(ENGLISH):
        for other in [*(other for other in known if other.startswith(token)), *plain_inside(token, known)]:
            part = counts[known[other]]
            for old, weight in part.items():
                double = 2 if ENGLISH[old].startswith(b" ") else 1
                add(GERMAN.index(token), old, double * weight / sum(part.values()))
    return counts


def test_trans(tmp_path):
    words = [("dog", "hund", 3), ("house", "hunde", 2), ("use", "haus", 4), ("12", "ha", 0.5), ("catdog", "katze", 1)]
    (tmp_path / "t.tsv").write_text("".join(f"{a}\t{b}\t{w}\n" for a, b, w in words), encoding="utf-8")
    problem = make_problem(old=ENGLISH, new=GERMAN)
    plan = run(problem, Chosen("trans", {"table": tmp_path / "t.tsv"}))
    want = plain_trans(problem, words)
    assert len(want) > 8
    for j, index in enumerate(problem.alignment.missing.tolist()):
        total = sum(want.get(index, {}).values())
        assert terms(plan, j) == pytest.approx({old: w / total for old, w in want.get(index, {}).items()})


def test_learned_is_a_ridge_on_the_pieces_rows():
    """With pairs of letters: mean, first and last row, a constant for two pieces, bytes and one; by least squares."""
    problem, _ = ruled_problem()
    table = problem.table.tensor.double().numpy()
    index = {token: i for i, token in enumerate(problem.source.token_bytes)}

    def features(token):
        first, last = table[index[token[:1]]], table[index[token[1:]]]
        return np.concatenate([(first + last) / 2, first, last, [1, 0, 0, 0, 0], [math.log1p(2), 1]])

    taught = [token for token in problem.source.token_bytes if len(token) == 2]
    X = np.stack([features(token) for token in taught])
    Y = np.stack([table[index[token]] for token in taught]) - X[:, :6]
    held = np.arange(len(taught)) % 10 == 0
    size = np.sqrt(np.maximum((X[~held] ** 2).sum(0), 1e-12))

    def fit(strength):
        more = np.diag(np.sqrt(strength) * size)
        return np.linalg.lstsq(np.vstack([X[~held], more]), np.vstack([Y[~held], 0 * more[:, :6]]), rcond=None)[0]

    best = min(map(fit, STRENGTHS), key=lambda W: ((Y[held] - X[held] @ W) ** 2).sum())
    asked = np.stack([features(problem.target.token_bytes[i]) for i in problem.alignment.missing])
    got = learned(problem, effort="none").rows.double().numpy()
    np.testing.assert_allclose(got, asked[:, :6] + asked @ best, atol=1e-4)


def test_a_step_of_cw2v_goes_down_the_slope(monkeypatch):
    """Adam's first step is `rate` against the sign of the slope, which is taken here by differences of a plain loss."""
    problem, seen = planted(), {}
    monkeypatch.setattr(cw2v, "Hull", lambda *given: seen.setdefault("hull", Hull(*given)))
    monkeypatch.setattr(cw2v, "loss_of", lambda rows, *drawn: seen.update(drawn=drawn) or loss_of(rows, *drawn))
    run(problem, Chosen("cw2v", {"rank": 2, "steps": 1, "batch": 256, "rate": 0.01}))
    after, (centre, context, noise) = seen["hull"], seen["drawn"]
    start = Hull(problem, after.learnt, after.vertices, 2)
    corner = problem.table.tensor.double().numpy()[after.vertices]
    table = (problem.table.tensor.double().numpy() - corner.mean(0)) / np.linalg.norm(
        corner - corner.mean(0), axis=1
    ).mean()
    learnt = {int(problem.alignment.missing[j]): place for place, j in enumerate(after.learnt)}

    def loss(left, right):
        weight = np.exp(left @ right.T)
        weight /= weight.sum(1, keepdims=True)

        def row(index):
            if index in learnt:
                return weight[learnt[index]] @ table[after.vertices]
            return table[problem.alignment.source_id[index]]

        total = 0.0
        for c, o, false in zip(centre.tolist(), context.tolist(), noise.tolist(), strict=True):
            signs = [row(c) @ row(o), *(-(row(c) @ row(n)) for n in false)]
            total += sum(math.log1p(math.exp(-one)) for one in signs)
        return total / len(centre)

    assert len(centre) > 50
    before = [start.left.detach().double().numpy(), start.right.detach().double().numpy()]
    later = [after.left.detach().double().numpy(), after.right.detach().double().numpy()]
    for side in (0, 1):
        for at in np.ndindex(before[side].shape):
            moved = [[one.copy() for one in before] for _ in range(2)]
            moved[0][side][at] += 1e-5
            moved[1][side][at] -= 1e-5
            slope = (loss(*moved[0]) - loss(*moved[1])) / 2e-5
            if abs(slope) > 1e-5:
                assert later[side][at] - before[side][at] == pytest.approx(-0.01 * np.sign(slope), rel=1e-2)
