"""The correction of fitted output rows: slopes, a known form, counts by hand, and when nothing changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.methods.test_auto import Notes
from tests.methods.test_stacked import bigram_problem, brute_loss, looked, some_rules
from tokenadapt.methods import correction
from tokenadapt.methods.correction import Axes, Known, Loss, correct
from tokenadapt.methods.mixture import drawn_by_mass
from tokenadapt.methods.own_text import Observed
from tokenadapt.plan import missing_rows

NEW_ROWS = 4  # missing tokens of the problem


def varied_states(count, width, seed=0):
    drawn = np.random.default_rng(seed)
    states = torch.from_numpy(drawn.normal(size=(count, width))).float()
    states[:, -1] = 1  # so that the last direction is a bias
    return states


def observed_under(problem, rows, states, seed=1):
    """Labels drawn from the new vocabulary whose missing tokens have `rows`."""
    table = torch.zeros(len(problem.alignment.how), problem.width)
    source = problem.alignment.source_id
    table[source >= 0] = problem.table.tensor[source[source >= 0]]
    table[problem.alignment.missing] = rows
    chance = torch.softmax(states @ table.T, 1)
    label = torch.multinomial(chance, 1, generator=torch.Generator().manual_seed(seed))[:, 0].numpy()
    return Observed(states, label, np.arange(len(label)) // 20)


def scene_of(problem, seen, rules, rows):
    known = correction._known(problem, seen, np.arange(len(seen.label)))
    return Loss(known, Axes.of(known), rows, correction._coordinates(rules))


def rules_of(problem):
    return some_rules(problem, looked(problem, 30))


def test_the_slope_is_that_of_the_cross_entropy_of_the_changed_rows():
    problem = bigram_problem()
    rules = rules_of(problem)
    rows = missing_rows(problem.table, rules.made[0], 0, NEW_ROWS)
    seen = observed_under(problem, rows, varied_states(60, problem.width))
    scene = scene_of(problem, seen, rules, rows)
    drawn = np.random.default_rng(2)
    form = torch.from_numpy(drawn.normal(size=(problem.width + 1, scene.about.shape[1]))).float() / 10

    def loss(form):
        """The form's logits added to those of the rows themselves, in float64."""
        table = np.zeros((len(problem.alignment.how), problem.width))
        source = problem.alignment.source_id
        table[source >= 0] = problem.table.tensor.numpy()[source[source >= 0]]
        table[problem.alignment.missing] = rows
        logits = seen.states.numpy().astype(float) @ table.T
        states = (seen.states.numpy().astype(float) - scene.axes.mean.numpy()) @ scene.axes.turn.numpy()
        place = np.c_[states, np.ones(len(states))]
        logits[:, problem.alignment.missing] += place @ form.numpy().astype(float) @ scene.about.numpy().T
        whole = np.log(np.exp(logits).sum(1))
        return float((whole - logits[np.arange(len(logits)), seen.label]).mean())

    slope = scene.slope(form, torch.arange(60), np.arange(NEW_ROWS), np.ones(NEW_ROWS))
    for at in [(0, 0), (3, 1), (problem.width, 0), (problem.width, slope.shape[1] - 1), (2, slope.shape[1] - 1)]:
        step = torch.zeros_like(form)
        step[at] = 1e-3
        assert float(slope[at]) == pytest.approx((loss(form + step) - loss(form - step)) / 2e-3, abs=2e-4)


def test_a_form_is_a_change_of_rows(monkeypatch):
    problem = bigram_problem()
    rules = rules_of(problem)
    rows = missing_rows(problem.table, rules.made[0], 0, NEW_ROWS)
    states = varied_states(200, problem.width)
    seen = observed_under(problem, rows, states)
    scene = scene_of(problem, seen, rules, rows)
    form = torch.from_numpy(np.random.default_rng(3).normal(size=(problem.width + 1, scene.about.shape[1]))).float()
    monkeypatch.setattr(correction, "_fitted", lambda *_: form)
    changed = correction._by_form(problem, rules, rows, scene.known)
    place = torch.cat([scene.axes.of_states(states), torch.ones(200, 1)], dim=1)
    torch.testing.assert_close(states @ changed.T, states @ rows.T + place @ form @ scene.about.T, atol=1e-3, rtol=1e-4)


def test_what_the_rules_cannot_say_is_learned_from_what_came(monkeypatch):
    """Labels drawn under rows turned by a matrix that no weights of rules express."""
    monkeypatch.setattr(correction, "RATE", 0.03)
    monkeypatch.setattr(correction, "BATCH", 128)
    monkeypatch.setattr(correction, "RIDGE", 1.0)
    told = Notes()
    problem = bigram_problem(progress=told)
    rules = rules_of(problem)
    rows = missing_rows(problem.table, rules.made[0], 0, NEW_ROWS)
    turn = torch.from_numpy(np.random.default_rng(4).normal(size=(problem.width, problem.width))).float()
    truth = rows + (rows - rules.centre) @ turn
    seen = observed_under(problem, truth, varied_states(12_000, problem.width))
    fresh = observed_under(problem, truth, varied_states(4000, problem.width, seed=8), seed=9)
    found = correct(problem, rules, rows, seen)
    best, start, reached = (brute_loss(problem, one.numpy(), fresh) for one in (truth, rows, found))
    assert start - best > 0.2
    assert reached - best < 0.2 * (start - best)
    assert told.lines[-1].startswith("stacked: ")
    assert "after the correction" in told.lines[-1]


def test_texts_that_the_rows_already_say_change_nothing():
    problem = bigram_problem()
    rules = rules_of(problem)
    rows = missing_rows(problem.table, rules.made[1], 0, NEW_ROWS)
    seen = observed_under(problem, rows, varied_states(400, problem.width))
    assert torch.equal(correct(problem, rules, rows, seen), rows)
    assert torch.equal(correct(problem, rules, rows, replace(seen, text=np.zeros(400, int))), rows)  # all held out


def test_a_bias_by_counts_by_hand(monkeypatch):
    """Four missing tokens and copied ones of equal logits: each is expected at a quarter of its share of positions."""
    problem = bigram_problem()
    rules = rules_of(problem)
    rows = torch.zeros(NEW_ROWS, problem.width)
    copied = float(np.log(4))  # as much as the four together: an eighth each
    slot = np.array([2] * 3 + [0] * 10 + [1] * 6 + [-1] * 8)
    index = np.arange(3, 27)  # the first three are held out
    known = Known(varied_states(27, problem.width), slot, torch.full((27,), copied), index)
    found = correction._by_count(problem, rules, rows, known)
    bias = np.log((np.array([10, 6, 0, 0]) + 2) / (24 / 8 + 2))
    expected = torch.from_numpy(bias).float()[:, None] * rules.direction
    torch.testing.assert_close(found, expected)
    monkeypatch.setattr(correction, "COUNTED", 5)  # expectations from some positions stand for all
    torch.testing.assert_close(correction._by_count(problem, rules, rows, known), expected)


def test_rivals_stand_for_all_and_ids_play_no_part():
    mass = torch.tensor([0.0, 5.0, 1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    order = np.array([3, 1, 5, 0, 2, 4])
    index, expected = drawn_by_mass(mass, order, 6, np.random.default_rng(0))
    assert index.tolist() == [0, 1, 2, 3, 4, 5]
    assert expected.tolist() == [1] * 6
    estimate = np.zeros(400)
    for seed in range(400):
        index, expected = drawn_by_mass(mass, order, 3, np.random.default_rng(seed))
        estimate[seed] = (mass.numpy()[index] / expected).sum()
    assert estimate.mean() == pytest.approx(8, abs=0.4)  # each counted by how often it was to be expected
    shuffled = np.array([4, 0, 3, 5, 1, 2])  # token j stands at place shuffled[j]
    moved = torch.zeros(6, dtype=torch.float64)
    moved[shuffled] = mass
    first = drawn_by_mass(mass, order, 3, np.random.default_rng(1))[0]
    second = drawn_by_mass(moved, shuffled[order], 3, np.random.default_rng(1))[0]
    assert sorted(shuffled[first]) == second.tolist()
