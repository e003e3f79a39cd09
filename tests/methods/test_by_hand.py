"""Examples small enough to be worked by hand, for methods whose other tests are loops."""

import math

import numpy as np
import pytest
import torch

from tests.methods.problems import TinyDonor, TinySpace, byte_vocab, make_problem
from tests.methods.test_first import terms
from tokenadapt.methods import Chosen, focus
from tokenadapt.methods.make import run
from tokenadapt.methods.tokalign import match
from tokenadapt.plan import missing_rows

ABC = (b"a", b"b", b"c")
ROWS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])


def rows_of(problem, name, **options):
    return missing_rows(problem.table, run(problem, Chosen(name, options)), 0, len(problem.alignment.missing))


def softmax(*values):
    grown = [math.exp(value) for value in values]
    return [one / sum(grown) for one in grown]


def spaced():
    """`ab` has cosine 0.8 with `a`, 0.6 with `b` and -1 with `c`."""
    space = TinySpace(np.array([[0.8, 0.6], [0.6, -0.8], [-1, 0]], np.float32), np.array([[1.0, 0.0]], np.float32))
    return make_problem(old=ABC, new=(*ABC, b"ab"), table=ROWS, space=space)


def test_global_and_hybrid():
    problem = spaced()
    near = softmax(0.8 / 0.5, 0.6 / 0.5)
    assert terms(run(problem, Chosen("global", {"tau": 0.5, "k": 2})), 0) == pytest.approx(dict(enumerate(near)))
    assert terms(run(problem, Chosen("global", {"tau": 0.5, "theta": 0.7})), 0) == {0: 1.0}
    c = [(u + 0.5) / 2 for u in softmax(0.8, 0.6)]  # each piece is half of the length
    local = softmax(c[0] / 0.5, c[1] / 0.5)
    both = {i: 0.75 * local[i] + 0.25 * near[i] for i in (0, 1)}
    assert terms(run(problem, Chosen("hybrid", {"tau": 0.5, "k": 2, "g": 0.25})), 0) == pytest.approx(both)


def test_wechsel_turns_the_source_onto_the_target(tmp_path):
    """A quarter turn: a = (1, 0) goes to (0, 1), b = (0, 1) to (-1, 0). `x` = (0.6, 0.8): cosines 0.8 and -0.6."""
    (tmp_path / "old.vec").write_text("a 1 0\nb 0 1\n")
    (tmp_path / "new.vec").write_text("p 0 1\nq -1 0\nx 0.6 0.8\n")
    (tmp_path / "pairs.txt").write_text("a p\nb q\n")
    problem = make_problem(old=(b"a", b"b", b" "), new=(b"x", b" "), table=ROWS)
    files = {"source": tmp_path / "old.vec", "target": tmp_path / "new.vec", "dictionary": tmp_path / "pairs.txt"}
    plan = run(problem, Chosen("wechsel", {**files, "tau": 1.0, "k": 2}))
    # the space lies in both words: (a + b / 2) / 1.5, turned, is (-1, 2) / sqrt 5, whose cosine is 1 / sqrt 5
    weight = softmax(0.8, 1 / 5**0.5)
    assert terms(plan, 0) == pytest.approx({0: weight[0], 2: weight[1]})


def test_ofa_takes_the_nearest_and_what_a_lower_rank_leaves(tmp_path):
    """`x` is nearer to `a`. The table's main direction is the diagonal: of a's row (1, 0) it leaves (0.5, 0.5)."""
    (tmp_path / "all.vec").write_text("a 1 0\nb 0 1\nx 0.6 0.4\n")
    problem = make_problem(old=(b"a", b"b", b"c"), new=(b"x",), table=ROWS)
    options = {"vectors": tmp_path / "all.vec", "k": 1}
    assert rows_of(problem, "ofa", **options).tolist() == [[1.0, 0.0]]
    assert rows_of(problem, "ofa", **options, keep_dim=1)[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


def test_sava_turns_and_moves():
    """The source's space is the donor's, a quarter turn to the left and one to the right."""
    donor = TinyDonor(byte_vocab((*ABC, b"x")), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [2.0, 3.0]]))
    table = torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, -1.0]])  # (-y + 1, x)
    problem = make_problem(old=ABC, new=(*ABC, b"x"), table=table, donor=donor)
    for options in ({"map": "orthogonal", "standardise": False}, {"standardise": False}, {}):
        assert rows_of(problem, "sava", **options)[0].tolist() == pytest.approx([-2.0, 2.0], abs=1e-4)


def test_focus_weighs_copied_tokens_by_sparsemax(monkeypatch):
    """Cosines 0.9, 0.5 and -1: the two best, less the 0.2 that makes them one."""
    angle = [math.acos(0.9), -math.acos(0.5), math.pi, 0]
    vectors = np.array([[math.cos(one), math.sin(one)] for one in angle], np.float32)
    monkeypatch.setattr(focus, "fasttext_vectors", lambda problem, training: vectors)
    problem = make_problem(old=ABC, new=(*ABC, b"x"), table=ROWS, corpus=lambda: iter(()))
    plan = run(problem, Chosen("focus"))
    assert terms(plan, 0) == pytest.approx({0: 0.7, 1: 0.3}, abs=1e-6)


def test_tokalign_takes_the_row_that_stands_alike_to_the_pivots():
    """Two pivots. `x` has cosines 0.8 and 0.6 to them; of the old tokens `d` is at 0.6 and 0.8, `e` at 0.9 and 0.44."""
    old, new = (b"a", b"b", b"d", b"e"), (b"a", b"b", b"x")
    problem = make_problem(old=old, new=new, table=torch.eye(4))
    here = np.array([[0, 1], [-1, 0], [-0.6, 0.8]], np.float32)  # its own space: turned
    there = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.9, 0.44]], np.float32)
    plan = match(problem, there, here, 300)
    # x.e = 0.8 * 0.9 + 0.6 * 0.44 = 0.984, x.d = 0.96, x.a = 0.8
    assert (plan.source_id.tolist(), plan.weight.tolist()) == ([3], [1.0])


def test_cw2v_inside_a_hull_of_one_or_two_rows():
    """A hull of one row is that row. With as many steps as it likes a token stays between two."""
    problem = make_problem(
        old=(b"a", b"b", b" "), new=(b"a", b"b", b" ", b"x"), table=ROWS, corpus=lambda: iter(["a x a b x a"] * 5)
    )
    one = run(problem, Chosen("cw2v", {"hull": 1, "steps": 3, "batch": 8}))
    assert terms(one, 0) == {2: 1.0}  # the space: five of eleven tokens
    two = run(problem, Chosen("cw2v", {"hull": 2, "steps": 3, "batch": 8}))
    assert sorted(terms(two, 0)) == [0, 2]
    assert sum(terms(two, 0).values()) == pytest.approx(1)


def test_asymmetric_moves_the_mean_of_the_pieces_to_the_usual_distance():
    """Mean row (0, 0); copied `a`, `b` at distances 1 and 3, median 2; the pieces' mean (0, 1) goes to (0, 2)."""
    table = torch.tensor([[0.0, 1.0], [0.0, -3.0], [0.0, 2.0], [0.0, 0.0]])
    old = (b"a", b"b", b"c", b"d")
    problem = make_problem(old=old, new=(b"a", b"b", b"cd"), table=table)
    assert rows_of(problem, "pieces")[0].tolist() == [0.0, 1.0]
    assert rows_of(problem, "asymmetric")[0].tolist() == pytest.approx([0.0, 2.0])
    output = make_problem(old=(b"a", b"bcd"), new=(b"abcd",), table=torch.tensor([[4.0, 0], [0, 4]]), role="output")
    assert rows_of(output, "asymmetric")[0].tolist() == pytest.approx([1.0, 3.0])


def test_normal_keeps_what_never_varies():
    """Two rows (0, 5) and (2, 5): mean (1, 5), variance 2 in the first column and none in the second."""
    problem = make_problem(old=(b"a", b"b"), new=(b"x", b"y", b"z"), table=torch.tensor([[0.0, 5.0], [2.0, 5.0]]))
    for shape in ("full", "diagonal"):
        rows = rows_of(problem, "normal", covariance=shape)
        assert rows[:, 1].tolist() == pytest.approx([5.0] * 3)
        assert len(set(rows[:, 0].tolist())) == 3
        half = rows_of(problem, "normal", covariance=shape, scale=0.25)
        torch.testing.assert_close(2 * (half - torch.tensor([1.0, 5.0])), rows - torch.tensor([1.0, 5.0]))
        assert rows_of(problem, "normal", covariance=shape, scale=0.0).tolist() == [[1.0, 5.0]] * 3
