"""Packed windows: each reads what it would alone, and a model that cannot read them so is not given any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from tests.tiny import tiny_model
from tokenadapt.evaluation import Encoded, ScoreOptions, Scorer, TextEncoder, score_encoded
from tokenadapt.evaluation.linear import _OneDnn, _usable
from tokenadapt.evaluation.pack import pack

reads = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple), max_size=60)


@settings(max_examples=60, deadline=None)
@given(reads, st.integers(9, 40))
def test_each_window_sees_itself_and_nothing_else(windows, width):
    rows = list(pack(dict(enumerate(windows)), width))
    assert sorted(member for row in rows for member in row.members) == list(range(len(windows)))
    for row in rows:
        assert len(row) <= width
        for member, nodes in zip(row.members, row.nodes, strict=True):
            assert tuple(row.ids[nodes].tolist()) == windows[member]
            assert row.depth[nodes].tolist() == list(range(len(nodes)))
            last = nodes[-1]
            seen = [other for other in range(len(row)) if other <= last < row.until[other]]
            assert seen == nodes.tolist()


def test_what_windows_begin_with_is_read_once():
    (row,) = pack({4: (1, 2, 3), 7: (1, 2, 4), 9: (1, 2, 3), 1: (5,)}, 8)
    assert row.ids.tolist() == [1, 2, 3, 4, 5]
    assert row.depth.tolist() == [0, 1, 2, 2, 0]
    assert row.until.tolist() == [4, 4, 3, 4, 5]
    assert row.members == (4, 9, 7, 1)


def test_rows_are_filled():
    draw = np.random.default_rng(0)
    windows = {number: tuple(draw.integers(0, 1000, size).tolist()) for number, size in enumerate([20, 7, 30] * 60)}
    rows = list(pack(windows, 64))
    assert sum(len(row) for row in rows) > 0.9 * 64 * len(rows)


SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
KEYS = {"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
ENCODER = TextEncoder.__new__(TextEncoder)  # scoring of tokens asks it for nothing but these
ENCODER.prefix, ENCODER.suffix, ENCODER.begin, ENCODER.texts = (3,), (), 3, 50


def loud(model: nn.Module) -> nn.Module:
    """Rows large enough for a wrong mask to matter."""
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.3)
    return model.eval()


def documents() -> Encoded:
    """Short documents of 50 kinds of token, some equal, some with an equal beginning."""
    draw = np.random.default_rng(1)
    runs = [draw.integers(0, 50, size) for size in (1, 3, 5, 8, 13, 21, 2, 2, 30)]
    runs += [np.concatenate([runs[5][:10], draw.integers(0, 50, 4)]), runs[4]]
    ids = np.concatenate(runs)
    start = np.concatenate(([0], np.cumsum([len(run) for run in runs])))
    return Encoded(ids, start, np.ones_like(ids), np.ones(len(runs), dtype=bool), np.diff(start))


MODELS = {
    "llama": lambda: tiny_model(50),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, intermediate_size=32)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, **KEYS, sliding_window=16)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, **KEYS, sliding_window=24)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16)),
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=2, n_head=2)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bos", ["always", "never"])
def test_a_packed_document_has_the_bits_that_it_has_alone(name, bos):
    scorer, encoded = Scorer(loud(MODELS[name]())), documents()
    together = score_encoded(scorer, ENCODER, encoded, ScoreOptions(bos=bos))
    alone = score_encoded(scorer, ENCODER, encoded, ScoreOptions(bos=bos, batch_tokens=1))
    assert together.bits == pytest.approx(alone.bits, abs=1e-4)


def test_models_are_tried_before_they_are_given_packed_windows():
    rows = {name: Scorer(loud(make())).row for name, make in MODELS.items()}
    assert rows["llama"] == rows["gpt2"] == rows["neox"] > 100
    assert (rows["gemma2"], rows["mistral"]) == (16, 24)  # a mask that is given overrules the model's own
    assert rows["bloom"] == rows["mamba"] == 0


def test_equal_documents_are_read_once(monkeypatch):
    scorer, encoded = Scorer(loud(tiny_model(50))), documents()
    read = []
    original = Scorer.nats
    assert scorer.row
    monkeypatch.setattr(Scorer, "nats", lambda self, batch, wanted: read.append(batch) or original(self, batch, wanted))
    score_encoded(scorer, ENCODER, encoded, ScoreOptions(bos="always"))
    tokens = len(encoded.ids) + len(encoded)  # begin tokens
    assert sum(int(batch.length.sum()) for batch in read) < tokens - 2 * len(encoded)


@pytest.mark.skipif(not _usable(), reason="oneDNN is used on x86 only")
def test_the_faster_product_is_the_same_product():
    states, weight, bias = torch.randn(2, 7, 12), torch.randn(30, 12), torch.randn(30)
    with torch.inference_mode(), _OneDnn():
        with_bias, without = nn.functional.linear(states, weight, bias), nn.Linear(12, 30, bias=False)
        half = nn.functional.linear(states.bfloat16(), weight.bfloat16())
        plain = without(states)
    assert with_bias == pytest.approx(nn.functional.linear(states, weight, bias), abs=1e-5)
    assert half.dtype == torch.bfloat16
    assert plain.detach() == pytest.approx(without(states).detach(), abs=1e-5)
