"""Which class of tokens a change is put to, against plain sums."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenadapt.verdict import after_input_rows, after_output_rows, last_before

ONE_HOT = torch.eye(2)[[0, 1, 1]]  # three tokens of two classes


def test_the_changed_token_that_was_read_last_by_hand():
    places = np.array([-1, -1, 0, -1, 1])
    assert last_before(np.array([0, 2, 3, 4, 4, 1, 2]), places).tolist() == [-1, 0, 0, 1, 1, 1]
    assert last_before(np.array([0]), places).tolist() == []
    parts = after_input_rows(np.array([0.5, 1.0, -2.0]), np.array([-1, 1, 0]), np.array([1, 0]), 2)
    assert parts.tolist() == [[0, 0], [1.0, 0], [0, -2.0]]


def nats(rest, logits, own):
    whole = np.log(np.exp(rest) + np.exp(logits).sum())
    return whole - (logits[own] if own >= 0 else 0.0)  # of a label that did not change only the normaliser matters


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-3, 8),
    st.lists(st.floats(-5, 5), min_size=6, max_size=6),
    st.integers(-1, 2),
)
def test_the_parts_add_up_to_the_change(rest, numbers, own):
    before, after = np.array(numbers[:3]), np.array(numbers[3:])
    parts = after_output_rows(
        torch.tensor([rest]), (torch.tensor(before)[None], torch.tensor(after)[None]), torch.tensor([own]), ONE_HOT
    )
    assert parts.shape == (1, 2)
    assert parts.sum() == pytest.approx(nats(rest, after, own) - nats(rest, before, own), abs=1e-6)


def test_a_class_that_did_not_change_has_no_part():
    before, after = torch.tensor([[0.5, 1.0, 2.0]]), torch.tensor([[0.5, 3.0, 0.0]])
    for own in (-1, 0, 1):
        parts = after_output_rows(torch.tensor([1.0]), (before, after), torch.tensor([own]), ONE_HOT)
        assert parts[0, 0] == pytest.approx(0.0, abs=1e-12)
    same = after_output_rows(torch.tensor([1.0]), (before, before), torch.tensor([1]), ONE_HOT)
    assert np.abs(same).max() == 0
