"""The source model against transformers run plainly, one sequence at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.tiny import tiny_model
from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.forward import Sampling, batches
from tokenadapt.model import SourceModel
from tokenadapt.plan import MemoryTable

TEXTS = [[1, 5, 9, 30], [1, 7], [4], [1, 60, 61, 62, 63, 64, 65], [1, 7, 8]]


def gemma(rows):
    torch.manual_seed(0)
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=rows, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, final_logit_softcapping=5.0, max_position_embeddings=64,
        )
    )  # fmt: skip


def granite(rows, **more):
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    return GraniteForCausalLM(
        GraniteConfig(
            vocab_size=rows, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, **({"logits_scaling": 4.0, "max_position_embeddings": 64} | more),
        )
    )  # fmt: skip


def source(folder: Path, model, **options):
    model.save_pretrained(folder)
    table = MemoryTable(model.get_input_embeddings().weight.data)
    return SourceModel(folder, {"input": table}, tied=True, **({"start": 1, "device": "cpu"} | options))


@pytest.fixture(scope="module", params=["llama", "gemma", "granite"])
def pair(request, tmp_path_factory):
    model = {"llama": tiny_model, "gemma": gemma, "granite": granite}[request.param](80).eval()
    few = Sampling(texts=6, tokens=20)
    return model, source(tmp_path_factory.mktemp("source") / request.param, model, sampling=few, stop=[2])


def test_states_equal_a_plain_run(pair):
    model, ours = pair
    states = ours.states(TEXTS, layers=[0.0, 0.5, 1.0])
    assert states.shape == (5, 3, 32)
    for text, got in zip(TEXTS, states, strict=True):
        with torch.no_grad():
            hidden = model.base_model(torch.tensor([text]), output_hidden_states=True).hidden_states
        for slot, layer in enumerate((0, 1, 2)):
            np.testing.assert_allclose(got[slot], hidden[layer][0, -1].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("short", [0, 3, 99], ids=["by-text", "both", "by-beginning"])
def test_log_probs_equal_a_plain_run(pair, monkeypatch, short):
    model, ours = pair
    monkeypatch.setattr("tokenadapt.model.SHORT", short)
    monkeypatch.setattr("tokenadapt.forward.HEAD_BYTES", 3 * 4 * 80)  # three positions a block
    for text, got in zip(TEXTS, ours.log_probs(TEXTS), strict=True):
        with torch.no_grad():
            plain = model(torch.tensor([text])).logits[0].log_softmax(-1)
        want = [plain[i, token].item() for i, token in enumerate(text[1:])]
        np.testing.assert_allclose(got, np.array(want, np.float32).reshape(-1), rtol=1e-4, atol=1e-4)


def test_samples_are_seeded_and_come_with_the_states_that_the_head_read(pair):
    model, ours = pair
    texts, states = ours.samples(), ours.final_states()
    assert len(texts) == 6
    assert all(text[0] == 1 and len(text) <= 20 for text in texts)
    assert all(2 not in text[:-1] for text in texts)
    assert states.shape == (sum(len(text) - 1 for text in texts), 32)
    again = SourceModel(ours.folder, ours._tables, tied=True, start=1, stop=[2], sampling=ours.sampling, device="cpu")
    torch.manual_seed(7)
    assert again.samples() == texts
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor([text])).logits[0, :-1] for text in texts])
    raw = states @ model.get_output_embeddings().weight.T
    cap = getattr(model.config, "final_logit_softcapping", None)
    torch.testing.assert_close(cap * torch.tanh(raw / cap) if cap else raw, logits, rtol=1e-3, atol=1e-4)


def test_texts_are_drawn_by_the_same_numbers_however_many_are_written_together(pair, monkeypatch):
    _, ours = pair
    prompts = [[at % 70 + 3] for at in range(150)]
    alone = [ids for ids, _ in ours.continued(prompts, 12)]
    monkeypatch.setattr(SourceModel, "_together", lambda self, tokens: 128)
    assert [ids for ids, _ in ours.continued(prompts, 12)] == alone


@pytest.mark.parametrize(("free", "groups"), [(0, 1), (10**8, 7), (10**12, 16)])
def test_a_gpu_writes_as_many_texts_at_once_as_fit(pair, monkeypatch, free, groups):
    """A text: keys and values of 100 tokens in two layers, odds: 2 * 2 * 32 * 100 * 4 + 4 * 8 * 80 = 53,760 bytes."""
    _, ours = pair
    ours.samples()  # which loads it
    monkeypatch.setattr(ours, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 0))
    assert ours._together(100) == 64 * groups


def test_samples_follow_the_model(tmp_path):
    """A model that always continues n with n + 1 writes that."""
    model = tiny_model(40, tied=False, width=64, layers=1)
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight.zero_()
            block.self_attn.o_proj.weight.zero_()
        rows = torch.eye(40, 64)
        model.model.embed_tokens.weight.copy_(rows)
        model.lm_head.weight.copy_(rows.roll(1, 0) * 20)
    table = {"input": MemoryTable(rows), "output": MemoryTable(model.lm_head.weight.data)}
    model.save_pretrained(tmp_path)
    ours = SourceModel(tmp_path, table, tied=False, start=1, stop=[9], sampling=Sampling(2, 30), device="cpu")
    assert ours.samples() == [list(range(1, 10))] * 2
    assert ours.log_probs([[4, 5]])[0][0] == pytest.approx(0.0, abs=1e-3)
    assert ours.table("output") is table["output"]


def test_nothing_is_loaded_before_it_is_needed(tmp_path):
    ours = SourceModel(tmp_path / "nowhere", {"input": MemoryTable(torch.ones(2, 2))}, tied=True)
    assert ours.tied
    assert not ours.ready
    assert ours.table("output").shape == (2, 2)
    with pytest.raises(TokenAdaptError, match=r"nowhere cannot be run"):
        ours.samples()


def test_an_encoder_gives_states_and_says_what_it_cannot_give(tmp_path):
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=32,
        )
    ).eval()  # fmt: skip
    ours = source(tmp_path, model, kind="masked")
    states = ours.states([[5, 6, 7], [8]], layers=[1.0])
    for text, got in zip(([5, 6, 7], [8]), states, strict=True):
        with torch.no_grad():
            want = model.bert(torch.tensor([text]))[0][0, -1]
        np.testing.assert_allclose(got[0], want.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(RequestError, match="is a masked model"):
        ours.final_states()
    with pytest.raises(RequestError, match="is a masked model"):
        ours.log_probs([[5, 6]])


def test_an_encoder_decoder_gives_the_encoders_states(tmp_path):
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    ).eval()
    ours = source(tmp_path, model, kind="seq2seq")
    with torch.no_grad():
        want = model.encoder(torch.tensor([[5, 6, 7]]))[0][0, -1]
    np.testing.assert_allclose(ours.states([[5, 6, 7], [3]], layers=[1.0])[0, 0], want.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(RequestError, match="is an encoder-decoder"):
        ours.samples()


def test_a_head_that_is_not_understood_is_refused(tmp_path, monkeypatch):
    ours = source(tmp_path, tiny_model(30))
    monkeypatch.setattr("tokenadapt.forward.Head.__call__", lambda self, states: self.module(states) + 1)
    with pytest.raises(RequestError, match="more between its layers and its logits"):
        ours.log_probs([[1, 2]])


def test_an_empty_sequence_has_no_state(pair):
    with pytest.raises(ValueError, match="without a token"):
        pair[1].states([[]], layers=[1.0])


def test_batches_hold_every_sequence_once_within_the_budget():
    lengths = [1, 9, 3, 3, 40, 2, 2, 2]
    sequences = [[i] * n for i, n in enumerate(lengths)]
    seen = list(batches(sequences, budget=12))
    assert sorted(int(i) for batch in seen for i in batch.index) == list(range(8))
    for batch in seen:
        assert batch.ids.numel() <= 12 or len(batch.index) == 1
        for place, row, length in zip(batch.index, batch.ids, batch.length, strict=True):
            assert row[:length].tolist() == sequences[place]


@pytest.mark.real
@pytest.mark.parametrize(("name", "start", "spread"), [("smollm2", 1, 0.1), ("stories15m", 1, 0.4)])
def test_a_real_models_states_agree_in_a_direction_and_leave_unused_ids_alone(bench, name, start, spread):
    from safetensors.torch import load_file

    from tests.methods.problems import make_problem
    from tokenadapt.finishing import bias_direction
    from tokenadapt.unused import unused_rows

    rows = load_file(bench / name / "model.safetensors")["model.embed_tokens.weight"]
    few = Sampling(texts=16, tokens=64)
    ours = SourceModel(bench / name, {"input": MemoryTable(rows)}, tied=True, start=start, stop=[2], sampling=few)
    old = tuple(b"%d" % i for i in range(len(rows)))
    before = unused_rows(make_problem(old=old, new=(b"0",), role="output", table=rows, model=ours), tied=True)
    states = ours.final_states()
    agreement = states @ bias_direction(states)
    assert agreement.mean().item() == pytest.approx(1, abs=0.1)
    assert agreement.std().item() < spread
    after = unused_rows(make_problem(old=old, new=(b"0",), role="output", table=rows, model=ours), tied=True)
    for row in (before, after):  # from the table alone, then with states
        logits = states @ torch.cat([rows.float(), row.expand(1000, -1)]).T
        assert logits.softmax(1)[:, len(rows) :].sum(1).max().item() < 1e-4
