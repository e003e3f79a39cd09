"""`chain`: the bias is what the source model says of the further pieces."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.command import tokenadapt
from tests.methods.problems import TinyModel, make_problem
from tokenadapt.methods import piece_odds
from tokenadapt.methods.chain import chain
from tokenadapt.methods.piece_odds import log_rest
from tokenadapt.methods.pieces import pieces
from tokenadapt.plan import missing_rows

OLD = (None, b"a", b"b", b"c")
NEW = (b"abc", b"a", b"cb", b"b", b"c")


def problem_of(role="output"):
    problem = make_problem(OLD, NEW, role=role, width=6)
    return replace(problem, model=TinyModel(problem.table.tensor))


def test_the_rest_of_a_token_by_hand():
    problem = problem_of()
    model = problem.model
    logs = torch.log_softmax(model.after @ model.rows.T, 1)
    assert log_rest(problem) == pytest.approx([float(logs[1, 2] + logs[2, 3]), float(logs[3, 2])], rel=1e-5)


def test_a_logit_is_the_first_pieces_and_the_means_plus_a_share_of_the_rest():
    problem = problem_of()
    rows = missing_rows(problem.table, chain(problem, rest=0.6, spread=0.25), 0, 2)
    old, states = problem.table.tensor, problem.model.final_states()
    first = old[[1, 3]]
    mean = torch.stack([old[1:4].mean(0), old[[2, 3]].mean(0)])
    wanted = states @ (0.75 * first + 0.25 * mean).T + 0.6 * torch.from_numpy(log_rest(problem)).float()
    got = states @ rows.T  # the states of this model agree to 1e-3 in one direction
    assert (got - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_input_rows_are_the_mean_of_the_pieces():
    problem = problem_of("input")
    made, mean = chain(problem), pieces(problem)
    assert np.array_equal(made.weight, mean.weight)
    assert np.array_equal(made.source_id, mean.source_id)


def test_without_the_rest_and_all_spread_it_is_the_mean_of_the_pieces():
    problem = problem_of()
    got = missing_rows(problem.table, chain(problem, rest=0, spread=1), 0, 2)
    torch.testing.assert_close(got, missing_rows(problem.table, pieces(problem), 0, 2))


class Counting(TinyModel):
    """Which strings were read."""

    def log_probs(self, sequences):
        self.asked = [*getattr(self, "asked", ()), *sequences]
        return super().log_probs(sequences)


def test_a_later_run_reads_the_rest_from_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKENADAPT_CACHE", str(tmp_path))
    monkeypatch.setattr(piece_odds, "FLUSH", 1)
    problem = problem_of()
    model = Counting(problem.table.tensor)
    first = log_rest(replace(problem, model=model))
    assert model.asked == [(1, 2, 3), (3, 2)]  # `a` alone has no rest
    again = Counting(problem.table.tensor)
    assert np.array_equal(log_rest(replace(problem, model=again)), first)
    assert not hasattr(again, "asked")
    other = Counting(problem.table.tensor + 1)
    log_rest(replace(problem, model=other))
    assert len(other.asked) == 2
    shown = tokenadapt("cache")
    assert shown.code == 0
    assert shown.out.count(piece_odds.TITLE) == 4  # two models, by space and by what made it


def test_numbers_of_the_cache_are_as_good_as_float32():
    values = [-0.0001234567, -12.345678, -1234.5678, -1e9]
    stored = piece_odds._in_two(values).astype(np.float16).astype(np.float64).sum(axis=1)
    np.testing.assert_allclose(stored[:3], values[:3], rtol=1e-5, atol=1e-7)
    assert stored[3] == -6e4
