"""The closed form: counts met, a Newton step that helps, and nothing kept that hurts."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from tests.calibration.room import examples, lesson
from tokenadapt.calibration import closed
from tokenadapt.calibration.trained import Trained


def test_biases_bring_expected_counts_to_the_seen_ones(monkeypatch):
    monkeypatch.setattr(closed, "_PRIOR", 1e-3)
    made = lesson("text", dtype=torch.float32, tied=False)
    shift = torch.zeros(16)
    shift[0] = 4.0
    made.student.body.core.norm.register_forward_hook(lambda module, given, out: out + shift)  # states that agree
    evidence = closed.collect(made, examples(40))
    seen = closed._counts(made.student.output, evidence)
    before = closed._new_probabilities(made.student, evidence.states).detach().sum(0)
    closed.add_biases(made.student, evidence)
    after = closed._new_probabilities(made.student, evidence.states).sum(0)
    assert (after - seen).detach().abs().sum() < 0.25 * (before - seen).abs().sum()


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
    figures = iter([1.0, 2.0, 2.0, 2.0, 2.0, 1.1, 1.2, 0.9, 0.95, 0.97, 0.96])
    monkeypatch.setattr(closed, "judge", lambda *_: next(figures))
    ends = SimpleNamespace(set_rows=lambda table, role, which: table.trained.data.zero_())
    steps = closed.fit_closed_form(made, ends, given, given, trained)
    assert [(step.name, step.strength, step.bits_per_byte) for step in steps] == [
        ("as it came", 1.0, 1.0), ("last pieces", 0.0, 1.0), ("input rows", 0.0, 1.0), ("bias", 1.0, 0.9),
        ("output rows", 0.0, 0.9),
    ]  # fmt: skip
    moved = trained.snapshot()["rows.output"] - start["rows.output"]
    assert torch.linalg.matrix_rank(moved, rtol=1e-4) == 1  # the bias alone: all along one direction
