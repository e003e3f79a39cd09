from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.spaces.conftest import make_setting, make_vocab
from tokenadapt.plan import MemoryTable
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.undertrained import known_unused, undertrained
from tokenadapt.vocab.types import Kind


def planted(role, extra=12, count=600, glitches=(77, 301), width=32):
    """Random trained rows; unused rows and planted glitches share a direction (output) or a small norm (input)."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(count + extra, width, generator=draw)
    away = torch.randn(width, generator=draw)
    idle = [*glitches, *range(count, count + extra)]
    noise = 0.05 * torch.randn(len(idle), width, generator=draw)
    rows[idle] = (away if role == "output" else 0.1 * away / away.norm()) + (
        noise if role == "output" else 0.05 * noise
    )
    return MemoryTable(rows), make_vocab([b"t%d" % n for n in range(count)])


@pytest.mark.parametrize("role", ["output", "input"])
def test_planted_glitch_tokens_are_found(role):
    table, vocab = planted(role)
    found = undertrained(table, vocab, role)
    assert set(found) <= {77, 301}
    assert len(found) >= 1
    assert set(undertrained(*planted(role, glitches=()), role)) == set()


def test_too_few_unused_rows_say_nothing():
    assert len(undertrained(*planted("output", extra=3))) == 0


def test_what_is_known_to_be_unused():
    tokens = [b"a", b"\xc0", b"\xff", b"\xe4", None, None, b"b"]
    kinds = [Kind.ORDINARY, Kind.BYTE, Kind.ORDINARY, Kind.BYTE, Kind.GAP, Kind.SPECIAL, Kind.ORDINARY]
    assert known_unused(make_vocab(tokens, kinds), 9).tolist() == [1, 2, 4, 7, 8]
    assert known_unused(make_vocab(tokens, kinds), 2).tolist() == [1]


def test_glitches_are_no_neighbours_and_are_counted():
    table, vocab = planted("input")
    old = list(vocab.token_bytes)
    setting = make_setting(old, [b"t77t77", b"t301t301", b"t5t6"], table.tensor)
    space = open_space("self", **vars(setting))
    ids, _ = space.neighbours(4)
    assert not np.isin(ids, space.candidates.undertrained).any()
    assert space.candidates.left_out["under-trained"] == len(space.candidates.undertrained) >= 1
