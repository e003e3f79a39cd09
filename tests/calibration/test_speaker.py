"""A body with two tables says what the model says, whatever the family does to its embeddings and logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from tests.calibration.room import speakers
from tokenadapt.calibration.body import Asked, Body
from tokenadapt.calibration.head import Shape, SplitHead
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.calibration.split import SplitTable
from tokenadapt.errors import RequestError
from tokenadapt.plan import MemoryTable

SIZES = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=False),
    "gemma": lambda: transformers.GemmaConfig(**SIZES),
    "gemma2": lambda: transformers.Gemma2Config(**SIZES, final_logit_softcapping=2.0, query_pre_attn_scalar=8),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SIZES, query_pre_attn_scalar=8),
    "granite": lambda: transformers.GraniteConfig(**SIZES, logits_scaling=4.0, embedding_multiplier=3.0),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=64),
    "phi": lambda: transformers.PhiConfig(**{key: SIZES[key] for key in SIZES if key != "head_dim"}),  # a head bias
}


@pytest.mark.parametrize("family", CONFIGS)
def test_states_and_logits_are_the_models_own(family):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    ids = torch.randint(1, 30, (2, 9))
    with torch.no_grad():
        whole = model(input_ids=ids, output_hidden_states=True)
    tied = head.weight is model.get_input_embeddings().weight
    tables = {
        "output": SplitTable(MemoryTable(head.weight.detach().clone()), np.array([3, 7, 29]), torch.float32, head.bias)
    }
    if not tied:
        embed = model.get_input_embeddings().weight.detach().clone()
        tables["input"] = SplitTable(MemoryTable(embed), np.array([3, 7, 29]), torch.float32)
    speaker = Speaker(Body(model), tables)
    assert torch.allclose(speaker(ids).logits, whole.logits, atol=1e-5)
    reading = speaker.read(ids, Asked(layers=(1,), attentions=2))
    assert torch.allclose(reading.layers[1], whole.hidden_states[1], atol=1e-5)
    assert [part.shape for part in reading.attention] == [(2, 9, 16)] * 2
    wanted = whole.logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None]).flatten()
    found = speaker.head.log_probs(reading.final[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "granite"])
def test_the_gradient_knows_caps_and_scales(family):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()
    table = SplitTable(MemoryTable(torch.randn(30, 16)), np.arange(20, 30), torch.float32).double()
    head = SplitHead(table, Body(model).shape, block=3)
    states, ids = torch.randn(7, 16, dtype=torch.float64, requires_grad=True), torch.randint(0, 30, (7,))
    assert torch.autograd.gradcheck(lambda h: head.log_probs(h, ids), (states,))
    direct = head.logits(states).log_softmax(1).gather(1, table.place[ids][:, None])[:, 0]
    weight = torch.randn(7, dtype=torch.float64)
    (expected,) = torch.autograd.grad((direct * weight).sum(), table.trained)
    (found,) = torch.autograd.grad((head.log_probs(states, ids) * weight).sum(), table.trained)
    assert torch.allclose(found, expected, atol=1e-10)


def test_only_trained_rows_have_gradients():
    student, _, _, new = speakers()
    student.read(torch.tensor([[1, 17, 2, 16]])).final.sum().backward()
    grad = student.output.trained.grad
    assert grad.shape == (len(new), 16)  # there is no other
    assert (grad.abs().sum(1) > 0).tolist() == [True, True, *[False] * 6]
    assert [name for name, value in student.named_parameters() if value.requires_grad] == ["output.trained"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_rows_may_be_trained_whatever_type_the_layers_have(dtype):
    table = SplitTable(MemoryTable(torch.randn(6, 4)), np.arange(6), dtype)
    found = table.lookup(torch.tensor([[0, 5]]))
    assert found.dtype == dtype
    found.float().sum().backward()
    assert table.trained.grad.dtype == torch.float32
    states = torch.randn(3, 4, dtype=dtype, requires_grad=True)
    SplitHead(table, Shape()).log_probs(states, torch.tensor([0, 1, 2])).sum().backward()
    assert states.grad.dtype == dtype


def test_a_model_with_more_than_a_head_is_refused(monkeypatch):
    from tests.tiny import tiny_model

    model = tiny_model(20, tied=True)
    whole = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: _with(whole(*a, **k)))
    with pytest.raises(RequestError, match="between its layers and its logits"):
        Body(model)


def _with(out):
    out.logits = out.logits + 1.0
    return out
