from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.spaces.conftest import make_setting, make_vocab
from tokenadapt.plan import MemoryTable
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.undertrained import indicator, known_unused, undertrained
from tokenadapt.vocab.types import Kind

GLITCHES = (77, 301, 302)


def planted(extra=12, count=600, width=32, noise=0.05, away=1.0):
    """Random trained rows; the unused rows at the end and planted glitches share a direction."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(count + extra, width, generator=draw)
    idle = [*GLITCHES, *range(count, count + extra)]
    common = away * torch.randn(width, generator=draw)
    rows[idle] = common + noise * torch.randn(len(idle), width, generator=draw)
    return MemoryTable(rows), make_vocab([b"t%d" % n for n in range(count)])


def test_planted_glitch_tokens_are_found_and_no_others():
    assert undertrained(*planted(noise=0.0)).tolist() == list(GLITCHES)
    found = undertrained(*planted())
    assert set(found) <= set(GLITCHES)
    assert len(found) >= 2


def test_rows_that_decayed_to_nothing_are_found():
    table, vocab = planted(away=0.0, noise=1e-4)
    table.tensor.add_(torch.linspace(-1, 1, 32))  # a table of which the mean is not zero
    table.tensor[[*GLITCHES, *range(600, 612)]] *= 1e-3
    assert undertrained(table, vocab).tolist() == list(GLITCHES)


def test_unused_rows_that_never_left_a_random_start_say_nothing():
    rows = torch.randn(700, 32, generator=torch.Generator().manual_seed(1))
    assert len(undertrained(MemoryTable(rows), make_vocab([b"t%d" % n for n in range(600)]))) == 0


def test_too_few_unused_rows_say_nothing():
    assert len(undertrained(*planted(extra=3))) == 0


def test_what_is_known_to_be_unused():
    tokens = [b"a", b"\xc0", b"\xff", b"\xe4", None, None, b"b"]
    kinds = [Kind.ORDINARY, Kind.BYTE, Kind.ORDINARY, Kind.BYTE, Kind.GAP, Kind.SPECIAL, Kind.ORDINARY]
    assert known_unused(MemoryTable(torch.eye(9)), torch.zeros(9), make_vocab(tokens, kinds)).tolist() == [
        1,
        2,
        4,
        7,
        8,
    ]
    assert known_unused(MemoryTable(torch.eye(2)), torch.zeros(2), make_vocab(tokens, kinds)).tolist() == [1]


def test_reserved_special_tokens_are_known_by_their_equal_rows():
    tokens = [b"a", b"b", None, None, None, None, None, b"c"]
    rows = torch.eye(8)
    rows[2:6] = torch.tensor([0.0, 0, 1, 0, 0, 0, 1, 0])
    assert known_unused(MemoryTable(rows), torch.zeros(8), make_vocab(tokens)).tolist() == [2, 3, 4, 5]


def test_distances_worked_by_hand():
    rows = torch.tensor([[1.0, 0], [0, 2], [-3, 0], [2, 2], [4, -4]])
    half = 0.5**0.5
    found = indicator(MemoryTable(rows), torch.zeros(2), np.array([0]))
    np.testing.assert_allclose(found, [0, 1, 2, 1 - half, 1 - half], atol=1e-6)


def test_glitches_are_no_neighbours_and_are_counted():
    table, vocab = planted(noise=0.0)
    setting = make_setting(list(vocab.token_bytes), [b"t77t77", b"t301t302", b"t5t6"], table.tensor)
    space = open_space("self:rows", **vars(setting))
    ids, _ = space.neighbours(4)
    assert not np.isin(ids, GLITCHES).any()
    assert space.candidates.left_out["under-trained"] == 3


@pytest.mark.real
def test_a_model_of_childrens_stories_has_hardly_learned_its_russian(bench):
    from safetensors.torch import load_file

    from tokenadapt.vocab.load import load_tokenizer
    from tokenadapt.vocab.read import byte_vocab

    tensors = load_file(bench / "stories15m" / "model.safetensors")
    vocab = byte_vocab(load_tokenizer(str(bench / "stories15m")))
    found = set(undertrained(MemoryTable(tensors["model.embed_tokens.weight"]), vocab))
    by_bytes = {token: number for number, token in enumerate(vocab.token_bytes)}
    assert {
        by_bytes[word.encode()]
        for word in (" Verwalt", "ологи", " mathrm", " coefficient")
        if word.encode() in by_bytes
    } <= found
    assert not {by_bytes[word.encode()] for word in (" the", " little", " girl", " dog", " smiled")} & found


@pytest.mark.real
def test_the_glitch_tokens_of_smollm2(bench):
    from safetensors.torch import load_file

    from tokenadapt.vocab.load import load_tokenizer
    from tokenadapt.vocab.read import byte_vocab

    table = load_file(bench / "smollm2" / "model.safetensors")["model.embed_tokens.weight"]
    vocab = byte_vocab(load_tokenizer(str(bench / "smollm2")))
    found = {vocab.token_bytes[token] for token in undertrained(MemoryTable(table), vocab)}
    assert found == {b"PlaneProtection", b"ManagementPlaneProtection", b" transistorsum", b" InstancePreprocess"}
