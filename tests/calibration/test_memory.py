"""Memory: one body, the trained rows, their gradient and moments; and never the logits of a batch."""

from __future__ import annotations

import pytest
import torch

from tests.calibration.room import examples, lesson
from tokenadapt.calibration.group import Group
from tokenadapt.calibration.optimizer import RowOptimizer
from tokenadapt.calibration.trained import Trained


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("objective", ["hidden=1,text=1", "bytes=1", "logits=1"])
def test_what_is_kept_is_the_model_the_trained_rows_their_gradient_and_one_moment(objective, tied):
    made = lesson(objective, tied=tied, dtype=torch.float32)
    student, teacher = made.student, made.teacher
    assert student.body is teacher.body  # the layers exist once
    assert all(not parameter.requires_grad for parameter in student.body.core.parameters())
    assert all(table.trained.numel() == 0 for table in teacher.tables().values())
    trained = Trained(student)
    assert trained.count == 8 * 16 * (1 if tied else 2)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda one: one):
        made.gradients(examples(8), Group())
    assert not any(one.ndim > 1 and one.shape[-1] == student.output.rows for one in kept)  # no logits
    graded = [one for one in student.parameters() if one.grad is not None]
    assert sum(one.grad.numel() for one in graded) == trained.count
    optimizer = RowOptimizer(trained.groups(0.01))
    optimizer.step()
    held = sum(
        value.numel() for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    )
    tables = 1 if tied else 2
    assert held == trained.count + tables * (2 * 16 * 16 + 8)  # one moment, and what does not grow with the rows
