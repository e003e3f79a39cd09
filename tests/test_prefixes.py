"""Strings read along the tree of their beginnings, against plain runs of each."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from tests.test_model import gemma, granite
from tests.tiny import tiny_model
from tokenadapt.prefixes import Reader, following, grow

STRINGS = [[1, 5, 9], [1, 5], [1, 5, 9, 30], [1, 7], [4], [1, 5, 9], [1, 7, 8, 8, 9, 10]]


def gpt2(rows):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=rows, n_embd=32, n_layer=2, n_head=2, n_positions=32))


@pytest.fixture(scope="module", params=[tiny_model, gemma, granite, gpt2])
def core(request):
    return request.param(80).eval().base_model


def test_a_tree_worked_by_hand():
    tree = grow([[1, 5, 9], [4], [1, 7], [1, 5]])
    assert [level.tolist() for level in tree.token] == [[1, 4], [5, 7], [9]]
    assert [level.tolist() for level in tree.parent][1:] == [[0, 0], [0]]
    assert tree.level.tolist() == [2, 0, 1, 1]
    assert tree.place.tolist() == [0, 1, 1, 0]


def test_what_follows_what_worked_by_hand():
    asked = following([[1, 5, 9], [4], [], [1, 5, 8], [1, 7]])
    assert asked.beginnings == [(1,), (1, 5)]
    assert asked.owner.tolist() == [0, 1, 0, 1, 0]
    assert asked.token.tolist() == [5, 9, 5, 8, 7]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=20))
def test_every_string_is_spelled_by_its_way_up_and_no_beginning_stands_twice(strings):
    tree = grow(strings)
    for string, level, place in zip(strings, tree.level, tree.place, strict=True):
        spelled, at = [], int(place)
        for depth in range(int(level), -1, -1):
            spelled.append(int(tree.token[depth][at]))
            at = int(tree.parent[depth][at])
        assert spelled[::-1] == list(string)
    assert sum(map(len, tree.token)) == len(
        {tuple(string[:n]) for string in strings for n in range(1, len(string) + 1)}
    )


@pytest.mark.parametrize("layers", [(0, 1, 2), (1,), (2, 0)])
def test_states_equal_plain_runs(core, layers, monkeypatch):
    monkeypatch.setattr("tokenadapt.prefixes.AT_ONCE", 7)  # several parts
    reader = Reader(core, layers)
    assert reader.able
    found = np.full((len(STRINGS), len(layers), 32), np.nan, dtype=np.float32)
    for index, states in reader.read(STRINGS):
        found[index] = states.numpy()
    for string, got in zip(STRINGS, found, strict=True):
        with torch.no_grad():
            hidden = core(torch.tensor([string]), output_hidden_states=True).hidden_states
        for slot, layer in enumerate(layers):
            np.testing.assert_allclose(got[slot], hidden[layer][0, -1].numpy(), rtol=1e-4, atol=1e-5)


def test_each_beginning_is_read_once_and_no_deeper_than_asked():
    core = tiny_model(80).eval().base_model
    read = [0, 0]
    for place, layer in enumerate(core.layers):
        layer.register_forward_pre_hook(
            lambda _m, args, kwargs, place=place: read.__setitem__(
                place, read[place] + (args[0] if args else kwargs["hidden_states"]).shape[0]
            ),
            with_kwargs=True,
        )
    list(Reader(core, [1]).read(STRINGS))
    beginnings = {tuple(string[:n]) for string in STRINGS for n in range(1, len(string) + 1)}
    assert read == [len(beginnings), 0]
    assert sum(map(len, STRINGS)) > len(beginnings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_in_sixteen_bits_does_not_make_a_model_unable(dtype):
    assert Reader(tiny_model(80, layers=8).eval().to(dtype).base_model, [2, 5, 8]).able


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_mixes_up_what_stands_before_is_not_read_so(dtype, monkeypatch):
    core = tiny_model(80, layers=8).eval().base_model
    for layer in core.layers:
        layer.self_attn.o_proj.weight.data *= 20  # what stands before counts
    keep = DynamicCache.batch_select_indices
    monkeypatch.setattr(DynamicCache, "batch_select_indices", lambda self, index: keep(self, index.flip(0)))
    assert not Reader(core.to(dtype), [2, 5, 8]).able


def test_a_model_whose_layers_cannot_be_found_is_not_read_so():
    core = tiny_model(80).eval().base_model
    core.config.num_hidden_layers = 3
    assert not Reader(core, [1]).able


def test_nothing_stays_hooked_after_a_stop_half_way():
    core = tiny_model(80).eval().base_model
    list(Reader(core, [1]).read(STRINGS))
    assert core(torch.tensor([[1, 2]])).last_hidden_state.shape == (1, 2, 32)
