"""`auto` with all new rows in place: texts of the model's own decide where hidden tokens cannot."""

from dataclasses import replace

import pytest
import torch

from tests.methods.test_auto import Notes
from tests.methods.test_stacked import Absent, bigram_problem
from tokenadapt.errors import RequestError
from tokenadapt.methods import in_place, parse_method
from tokenadapt.methods.in_place import best_in_place
from tokenadapt.methods.likelihood import cost
from tokenadapt.methods.make import make_rows
from tokenadapt.methods.own_text import retell

NAMED = [parse_method("zero"), parse_method("pieces"), parse_method("ends")]


def costs(problem, inputs=None):
    """Of each method, by the reference road."""
    told = retell(problem, in_place.TEXTS)
    found = []
    for chosen in NAMED:
        made = make_rows(problem, chosen)
        found.append(cost(problem, inputs or made, made, told).bits_per_byte)
    return found


@pytest.mark.parametrize("tied", [False, True])
def test_the_least_cost_of_all_new_rows_is_taken_and_each_is_said(tied):
    problem = bigram_problem(progress=Notes(), tied=tied)
    inputs = None if tied else make_rows(replace(problem, role="input"), NAMED[1])
    by_hand = costs(problem, inputs)
    assert min(by_hand) < by_hand[0] - 0.2
    problem = replace(problem, inputs=inputs)
    assert best_in_place(problem, NAMED, NAMED[0]) == NAMED[by_hand.index(min(by_hand))]
    said = [line for line in problem.progress.lines if "in place" in line]
    assert [float(line.split(": ")[1].split()[0]) for line in said] == pytest.approx(by_hand, abs=6e-4)
    assert sum(line.endswith(": taken") for line in said) == 1


def test_what_is_no_clear_gain_over_the_first_is_not_taken():
    problem = bigram_problem()
    assert best_in_place(problem, [NAMED[1], NAMED[0]], NAMED[0]) == NAMED[1]  # worse than the first: back to it
    assert best_in_place(problem, [NAMED[1], NAMED[2]], NAMED[2]) == NAMED[1]  # as good as the first: back to it
    assert best_in_place(problem, [NAMED[0]], NAMED[0]) == NAMED[0]


def test_too_little_text_or_none_leaves_the_choice(monkeypatch, caplog, tmp_path):
    problem = bigram_problem()
    monkeypatch.setattr(in_place, "TEXTS", 2)
    assert best_in_place(problem, NAMED, NAMED[2]) == NAMED[2]
    monkeypatch.setenv("TOKENADAPT_CACHE", str(tmp_path))
    absent = replace(problem, model=Absent(problem.table.tensor))
    with pytest.raises(RequestError):
        retell(absent, 2)
    assert best_in_place(absent, NAMED, NAMED[2]) == NAMED[2]
    assert "the whole swap is not tried" in caplog.text


def test_rows_that_leave_tokens_out_are_filled_before_they_are_judged():
    problem = bigram_problem()
    hole = make_rows(problem, parse_method("pieces"))
    assert hole.empty is None or not hole.empty.any()
    assert torch.isfinite(torch.tensor(costs(problem, hole))).all()
