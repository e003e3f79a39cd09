"""States after pieces: read once, kept, shortened to the directions in which they vary."""

import numpy as np
import pytest
import torch

from tests.methods.problems import TinyModel, make_problem
from tokenadapt.methods import piece_states
from tokenadapt.methods.halves import Runs
from tokenadapt.methods.piece_states import PieceStates

PIECES = np.array([0, 1, 2, 1, 0, 3])
RUNS = Runs(np.array([7, 8, 9, 10]), np.array([0, 2, 2, 3, 6]), PIECES)  # the second run has no pieces


class Counting(TinyModel):
    """How many strings were read."""

    read = 0

    def states_in_parts(self, sequences, layers):
        self.read += len(sequences)
        return super().states_in_parts(sequences, layers)


@pytest.fixture
def posed(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKENADAPT_CACHE", str(tmp_path))
    problem = make_problem()
    return make_problem(model=Counting(problem.table.rows(np.arange(problem.table.shape[0]))))


def test_states_are_what_the_model_gives_about_their_mean_turned(posed):
    states = PieceStates(posed, (0.1, 0.5), RUNS)
    states.prepare(RUNS)
    found = states.rows(RUNS, 0, 4)
    assert found.shape == (4, 16)
    assert not found[1].any()
    raw = posed.model.after[[1, 2, 3]].double().numpy()  # of the last pieces, at either depth
    about = raw - raw.mean(axis=0)
    for part in (found[[0, 2, 3], :8], found[[0, 2, 3], 8:]):  # all directions are kept: lengths and angles stay
        np.testing.assert_allclose(part @ part.T, about @ about.T, atol=2e-2)


def test_only_the_main_directions_are_kept(posed, monkeypatch):
    monkeypatch.setattr(piece_states, "KEPT", 2)
    states = PieceStates(posed, (0.5,), RUNS)
    states.prepare(RUNS)
    found = states.rows(RUNS, 0, 4)[[0, 2, 3]]
    raw = posed.model.after[[1, 2, 3]].double().numpy()
    about = raw - raw.mean(axis=0)
    np.testing.assert_allclose(found @ found.T, about @ about.T, atol=2e-2)  # three points lie in a plane
    assert states.width == 2


def test_a_string_is_read_once_even_by_a_later_run(posed):
    PieceStates(posed, (0.5,), RUNS).prepare(RUNS)
    assert posed.model.read == 3
    again = PieceStates(posed, (0.5,), RUNS)
    again.prepare(RUNS)
    assert posed.model.read == 3
    np.testing.assert_array_equal(again.rows(RUNS, 0, 2), PieceStates(posed, (0.5,), RUNS).rows(RUNS, 0, 4)[:2])
    PieceStates(posed, (0.6,), RUNS).prepare(RUNS)
    assert posed.model.read == 6


def test_another_model_finds_nothing_of_the_first(posed):
    PieceStates(posed, (0.5,), RUNS).prepare(RUNS)
    other = make_problem(model=Counting(posed.model.rows + 1))
    PieceStates(other, (0.5,), RUNS).prepare(RUNS)
    assert other.model.read == 3


def test_without_a_model_or_depths_there_is_no_column(posed):
    for states in (PieceStates(posed, (), RUNS), PieceStates(make_problem(), (0.5,), RUNS)):
        states.prepare(RUNS)
        assert states.rows(RUNS, 0, 4).shape == (4, 0)


def test_entries_too_large_for_the_cache_are_cut(posed):
    posed.model.after = posed.model.after * 1e7
    states = PieceStates(posed, (0.5,), RUNS)
    states.prepare(RUNS)
    assert np.isfinite(states.rows(RUNS, 0, 4)).all()
    assert torch.isfinite(posed.model.after).all()
