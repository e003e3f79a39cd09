"""The closed form: counts met, a Newton step that helps, and nothing kept that hurts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.calibration.room import examples, lesson
from tokenadapt.calibration import closed, expected
from tokenadapt.calibration.body import Asked
from tokenadapt.calibration.trained import Trained


def test_biases_bring_expected_counts_to_the_seen_ones(monkeypatch):
    monkeypatch.setattr(closed, "_PRIOR", 1e-3)
    made = lesson("text", dtype=torch.float32, tied=False)
    shift = torch.zeros(16)
    shift[0] = 4.0
    made.student.body.core.norm.register_forward_hook(lambda module, given, out: out + shift)  # states that agree
    evidence = closed.collect(made, examples(40))
    seen = closed._counts(made.student.output, evidence)
    before = _expected(made.student, evidence.states)
    closed.add_biases(made.student, evidence)
    after = _expected(made.student, evidence.states)
    assert (after - seen).abs().sum() < 0.25 * (before - seen).abs().sum()


@pytest.mark.parametrize("large", [0.0, 0.03, 2.0])  # every probability is kept by itself, some are, none is
def test_counts_under_biases_are_those_of_rows_that_have_them(monkeypatch, large):
    monkeypatch.setattr(expected, "_LARGE", large)
    made = lesson("text", dtype=torch.float32, tied=False)
    made.student.body.core.norm.register_forward_hook(lambda module, given, out: out + 40 * torch.eye(16)[3])
    table, states = made.student.output, closed.collect(made, examples(40)).states
    found = expected.Expected.of(made.student, states)
    along, bias = states[:, 3] / 40, torch.linspace(-0.4, 0.5, len(table.trained))
    assert torch.allclose(found.counts(0 * bias, along), _expected(made.student, states), rtol=1e-4)
    with torch.no_grad():
        table.trained[:, 3] += bias / 40
    wanted = _expected(made.student, states)
    assert torch.allclose(found.counts(bias, along), wanted, rtol=0.05 if large else 1e-4, atol=1e-3)


def test_slopes_are_sums_of_states_by_probability():
    made = lesson("text", dtype=torch.float32, tied=False)
    made.student.head.block = 7
    states = closed.collect(made, examples(40)).states
    chances = made.student.head.logits(states).softmax(1)[:, len(made.student.output.frozen) :].detach()
    counts, slope = expected.slopes(made.student, states)
    assert torch.allclose(counts, chances.sum(0), rtol=1e-4)
    assert torch.allclose(slope, chances.T @ states, atol=1e-4)


def test_a_reading_that_ends_early_holds_what_a_whole_one_does():
    student = lesson("hidden@1", dtype=torch.float32).student
    ids = torch.arange(10)[None]
    whole = student.read(ids, Asked(layers=(0, 1, 2, 3)))
    for layer in range(4):
        assert torch.equal(student.read_to(layer, ids), whole.layers[layer])
    assert torch.equal(student.read(ids).final, whole.final)  # no hook stays


def _expected(student, states):
    return student.head.logits(states).softmax(1)[:, len(student.output.frozen) :].sum(0).detach()


def test_a_newton_step_lowers_the_cross_entropy_it_was_fitted_on():
    made, given = lesson("text", dtype=torch.float32, tied=False), examples(60)
    before = closed.judge(made, given)
    closed.newton_step(made.student, closed.collect(made, given))
    assert closed.judge(made, given) < before


def test_input_rows_come_nearer_to_what_the_teacher_holds(monkeypatch):
    made, given = lesson("hidden@1", dtype=torch.float32, tied=False), examples(60)
    layer = 1
    gap = [closed._lacking(made, batch, layer)[1] for batch in made.batches(given)]
    closed.move_inputs(made, given)
    now = [closed._lacking(made, batch, layer)[1] for batch in made.batches(given)]
    assert torch.cat(now).mean(0).norm() < torch.cat(gap).mean(0).norm()


def test_steps_that_hurt_are_undone(monkeypatch):
    made = lesson("text", dtype=torch.float32)
    trained, given = Trained(made.student), examples(30)
    start = trained.snapshot()
    figures = iter([1.0, 2.0, 1.1, 0.9, 0.95])
    monkeypatch.setattr(closed, "judge", lambda *_: next(figures))
    ends = SimpleNamespace(set_rows=lambda table, role, which: table.trained.data.zero_())
    steps = closed.fit_closed_form(made, ends, given, given, trained)
    assert [(step.name, step.strength, step.bits_per_byte) for step in steps] == [
        ("as it came", 1.0, 1.0), ("last pieces", 0.0, 1.0), ("input rows", 0.0, 1.0), ("bias", 1.0, 0.9),
        ("output rows", 0.0, 0.9),
    ]  # fmt: skip
    moved = trained.snapshot()["rows.output"] - start["rows.output"]
    assert torch.linalg.matrix_rank(moved, rtol=1e-4) == 1  # the bias alone: all along one direction
