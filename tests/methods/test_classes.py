"""`classes`: every token's row by the method that is named for its number of pieces and its beginning."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.methods.problems import TinyModel, make_problem
from tokenadapt.errors import RequestError
from tokenadapt.finishing import calibrate_norms
from tokenadapt.methods import parse_method
from tokenadapt.methods.classes import CLASSES, class_of, joined, methods_of
from tokenadapt.methods.make import make_rows, run
from tokenadapt.methods.merge_rows import select
from tokenadapt.methods.within import needs_of, within
from tokenadapt.plan import Dense, Plan, missing_rows

OLD = (b" ", b"a", b"b", b"c", b"d", b"e")
NEW = (b"a", b"ab", b" a", b"abc", b" ab", b"abcd", b" abcde", b"\xff", b"b")
# the classes of the missing ones, by hand
BY_HAND = ["two_inside", "two", "three_inside", "three", "more_inside", "more", "two_inside"]


def rows_of(problem, text):
    return missing_rows(problem.table, make_rows(problem, parse_method(text)), 0, len(problem.alignment.missing))


def test_classes_by_hand():
    problem = make_problem(OLD, NEW)
    assert [CLASSES[kind] for kind in class_of(problem)] == BY_HAND


def test_each_row_is_that_of_the_method_named_for_its_class():
    problem = make_problem(OLD, NEW)
    rows = rows_of(problem, "classes:rest=length,two=ends,three_inside=mean,more=ends")
    parts = {name: rows_of(problem, name) for name in ("length", "ends", "mean")}
    for place, kind in enumerate(BY_HAND):
        wanted = {"two": "ends", "more": "ends", "three_inside": "mean"}.get(kind, "length")
        assert torch.equal(rows[place], parts[wanted][place])
    assert torch.equal(rows_of(problem, "classes"), rows_of(problem, "pieces"))


def test_plans_stay_a_plan_and_a_dense_method_makes_it_dense():
    problem = make_problem(OLD, NEW)
    assert isinstance(run(problem, parse_method("classes:two=ends,more=length")), Plan)
    made = run(problem, parse_method("classes:two=zero,more=normal"))
    assert isinstance(made, Dense)
    assert made.empty.tolist() == [False] * 6 + [True]  # no old token spells the last: left to the fallback


def test_scales_biases_and_means_are_kept_by_row():
    problem = make_problem(OLD, NEW)
    plain, scaled = run(problem, parse_method("pieces")), calibrate_norms(problem, run(problem, parse_method("ends")))
    moved = replace(plain, bias=np.arange(7, dtype=np.float32), direction=np.ones(8, np.float32))
    which = np.array([0, 1, 2, 0, 1, 2, 1])
    made = select(problem.table, [plain, scaled, moved], which)
    assert isinstance(made, Plan)
    every = [missing_rows(problem.table, one, 0, 7) for one in (plain, scaled, moved)]
    torch.testing.assert_close(
        missing_rows(problem.table, made, 0, 7), torch.stack([every[k][j] for j, k in enumerate(which)])
    )
    other = replace(moved, direction=np.full(8, 2, np.float32))  # two directions: no one plan holds them
    both = select(problem.table, [moved, other], np.array([0, 1, 0, 1, 0, 1, 0]))
    assert isinstance(both, Dense)
    torch.testing.assert_close(both.rows[1], missing_rows(problem.table, other, 1, 2)[0])


def test_methods_of_classes_are_known_by_their_names():
    chosen = parse_method("classes:rest=ends,two=learned:share=0.5,three=ends")
    methods, which = methods_of(chosen)
    assert [str(one) for one in methods] == ["learned:share=0.5", "ends"]
    assert which.tolist() == [0, 1, 1, 1, 1, 1]
    assert [str(one) for one in within(chosen)] == [str(chosen), "learned:share=0.5", "ends"]
    assert needs_of(parse_method("classes:two=omp,more=hybrid")) == {"donor", "space"}
    assert [one.name for one in within(parse_method("auto:of=ends+classes:two=length"))][-3:] == [
        "classes", "length", "pieces",
    ]  # fmt: skip


def test_a_choice_by_class_is_spelled_as_it_is_read():
    ends, learned = parse_method("ends"), parse_method("learned:share=0.5")
    assert str(joined([ends] * 6)) == "ends"
    mixed = joined([learned, ends, ends, ends, learned, ends])
    assert str(mixed) == "classes:rest=ends,two=learned:share=0.5,more=learned:share=0.5"
    assert parse_method(str(mixed)) == mixed
    assert methods_of(mixed)[1].tolist() == [0, 1, 1, 1, 0, 1]


def test_what_a_class_needs_is_asked_for():
    problem = replace(make_problem(OLD, NEW), space=None)
    with pytest.raises(RequestError, match="The method hybrid needs vectors"):
        run(problem, parse_method("classes:two=hybrid"))
    with pytest.raises(RequestError, match="no method 'endz'"):
        run(problem, parse_method("classes:two=endz"))


def test_rows_that_see_the_whole_vocabulary_do_so(monkeypatch):
    problem = make_problem(OLD, NEW, role="output")
    problem = replace(problem, model=TinyModel(problem.table.tensor))
    seen = []
    monkeypatch.setattr("tokenadapt.methods.chain.log_rest", lambda asked: seen.append(asked) or np.zeros(7))
    run(problem, parse_method("classes:two=chain"))
    assert seen[0].alignment.missing.tolist() == problem.alignment.missing.tolist()
