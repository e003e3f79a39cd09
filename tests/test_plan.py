import numpy as np
import pytest
import torch

from tokenadapt.plan import Dense, MemoryTable, Plan, build_table, mix
from tokenadapt.vocab.types import Alignment, How


def plan_of(runs, **more):
    start = np.cumsum([0] + [len(run) for run in runs])
    ids = np.array([i for run in runs for i, _ in run], dtype=np.int64)
    weights = np.array([w for run in runs for _, w in run], dtype=np.float32)
    return Plan(start, ids, weights, **more)


TABLE = MemoryTable(torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]]))


def test_a_plan_mixes_old_rows_as_worked_by_hand():
    plan = plan_of([[(0, 0.5), (2, 0.5)], [], [(1, 2.0), (1, 1.0)]])
    assert mix(TABLE, plan, 0, 3).tolist() == [[2.5, 2.0], [0.0, 0.0], [0.0, 6.0]]
    assert mix(TABLE, plan, 2, 3).tolist() == [[0.0, 6.0]]


def test_scale_is_about_the_shift_and_bias_goes_along_the_direction():
    plan = plan_of(
        [[(0, 1.0)]],
        scale=np.array([3], np.float32), shift=np.array([0.5, 0.5], np.float32),
        bias=np.array([-2], np.float32), direction=np.array([0.0, 1.0], np.float32),
    )  # fmt: skip
    assert mix(TABLE, plan, 0, 1).tolist() == [[2.0, -3.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_rows", [1, 2, 100])
def test_the_new_table_has_copied_bits_made_rows_and_unused_rows_in_place(dtype, block_rows):
    table = MemoryTable(torch.randn(5, 3).to(dtype))
    alignment = Alignment(
        np.array([4, -1, -1, 0, -1]),
        np.array([How.COPIED, How.MISSING, How.UNUSED, How.SPECIAL, How.MISSING], np.uint8),
    )
    made = Dense(torch.tensor([[1.0, 2.0, 3.0], [-1.0, 1e30, 0.0]]))
    unused = torch.tensor([9.0, 9.0, 9.0])
    new = torch.cat(list(build_table(table, alignment, made, unused, block_rows=block_rows)))
    assert new.dtype == dtype
    assert torch.equal(new[[0, 3]], table.tensor[[4, 0]])
    assert new[2].tolist() == [9.0, 9.0, 9.0]
    assert new[1].tolist() == [1.0, 2.0, 3.0]
    assert torch.isfinite(new).all()


def test_sums_are_float32_whatever_the_storage():
    rows = torch.full((300, 1), 1.0).to(torch.bfloat16)
    plan = plan_of([[(i, 1.0) for i in range(300)]])
    assert mix(MemoryTable(rows), plan, 0, 1).item() == 300.0  # a bfloat16 sum stops at 256
