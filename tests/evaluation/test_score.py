"""Bits: worked by hand, against a plain loop, and the same however they are computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
)

from tests.evaluation.conftest import Text, known_model
from tests.tiny import LINES, tiny_model, tiny_tokenizer
from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.evaluation import ScoreOptions, Scorer, TextEncoder, score_documents, score_encoded
from tokenadapt.evaluation.score import model_positions, plan_windows
from tokenadapt.vocab import byte_vocab
from tokenadapt.vocab.load import LoadedTokenizer

SMALL = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 50, "pad_token_id": 0,
}  # fmt: skip


def encoder_of(tokenizer) -> TextEncoder:
    return TextEncoder.of(LoadedTokenizer("tiny", None, tokenizer))


def test_bits_per_byte_by_hand(known):
    model, encoder = known
    scores = score_documents(model, encoder, [Text("aab"), Text("b")], ScoreOptions(bos="always"))
    # <s>a 1/8, aa 3/4, ab 1/4; <s>b 7/8
    assert scores.document_bits() == pytest.approx([3 - math.log2(3 / 4) + 2, -math.log2(7 / 8)], abs=1e-6)
    assert scores.bits_per_byte == pytest.approx((5 - math.log2(3 / 4) - math.log2(7 / 8)) / 4, abs=1e-6)


def test_without_a_begin_token_the_first_costs_as_much_as_any(known):
    model, encoder = known
    scores = score_documents(model, encoder, [Text("ab"), Text("b")], ScoreOptions(bos="never"))
    assert scores.document_bits() == pytest.approx([1 + 2, 1], abs=1e-6)  # two tokens stand for text: one bit


def test_a_model_that_puts_nothing_before_a_text_is_scored_as_it_was_trained(known):
    model, encoder = known
    assert encoder.prefix == ()
    as_trained = score_documents(model, encoder, [Text("ab")], ScoreOptions())
    never = score_documents(model, encoder, [Text("ab")], ScoreOptions(bos="never"))
    assert as_trained.bits_per_byte == never.bits_per_byte


def plain_bits(model, encoder, encoded, options) -> np.ndarray:
    """One window at a time, whole logits, in float64."""
    frame, windows = plan_windows(Scorer(model), encoder, encoded, options)
    bits = np.full(len(encoded.ids), np.nan)
    for begin, first, end, framed in zip(windows.begin, windows.first, windows.end, windows.framed, strict=True):
        prefix = list(frame.prefix) if framed else []
        read = prefix + encoded.ids[begin : end - 1].tolist()
        with torch.no_grad():
            logs = model(torch.tensor([read])).logits[0].double().log_softmax(-1) if read else None
        for token in range(first, end):
            place = len(prefix) + token - begin - 1
            if place < 0:
                bits[token] = math.log2(encoder.texts)
            else:
                bits[token] = -float(logs[place, encoded.ids[token]]) / math.log(2)
    return bits


@pytest.mark.parametrize("windows", ["overlap", "disjoint"])
@pytest.mark.parametrize("bos", ["as-trained", "always", "never"])
def test_a_plain_loop_agrees(tokenizers, windows, bos):
    tokenizer = tokenizers["bytelevel-bpe"]
    model, encoder = tiny_model(len(tokenizer)), encoder_of(tokenizer)
    encoded = encoder.encode([*LINES, "", "a", " ".join(LINES)])
    options = ScoreOptions(windows=windows, bos=bos, context=20, batch_tokens=64)
    scores = score_encoded(model, encoder, encoded, options)
    assert scores.bits == pytest.approx(plain_bits(model, encoder, encoded, options), abs=1e-4)


def test_batches_and_blocks_do_not_change_the_result(tokenizers):
    tokenizer = tokenizers["bytelevel-bpe"]
    model, encoder = tiny_model(len(tokenizer)), encoder_of(tokenizer)
    documents = [Text(line[:cut]) for line in LINES for cut in (1, 7, 30, 200)]
    found = [
        score_documents(model, encoder, documents, ScoreOptions(batch_tokens=many, head_bytes=block)).document_bits()
        for many, block in ((1, 1 << 20), (50, 1), (4096, 4096), (10**6, 1 << 30))
    ]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5)


def test_strides_that_cover_once_count_every_byte(tokenizers):
    tokenizer = tokenizers["bytelevel-bpe"]
    model, encoder = tiny_model(len(tokenizer)), encoder_of(tokenizer)
    text = " ".join(LINES)
    for stride in (1, 3, 16):
        scores = score_documents(model, encoder, [Text(text)], ScoreOptions(context=16, stride=stride))
        assert scores.document_bytes() == [len(text.encode())]
        assert np.isfinite(scores.bits).all()
        assert (scores.bits > 0).all()


def test_a_permuted_vocabulary_changes_nothing(tokenizers):
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers["bytelevel-bpe"]
    size = len(tokenizer)
    model, order = tiny_model(size, tied=False), np.random.default_rng(0).permutation(size)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] = {name: int(order[token]) for name, token in state["model"]["vocab"].items()}
    for token in state["added_tokens"]:
        token["id"] = int(order[token["id"]])
    state["added_tokens"].sort(key=lambda token: token["id"])
    moved = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token="<s>", eos_token="</s>"
    )
    documents = [Text(line) for line in LINES]
    before = score_documents(model, encoder_of(tokenizer), documents)
    with torch.no_grad():
        for table in (model.model.embed_tokens.weight, model.lm_head.weight):
            rows = table.clone()
            table[torch.from_numpy(order)] = rows
    after = score_documents(model, encoder_of(moved), documents)
    assert not np.array_equal(before.encoded.ids, after.encoded.ids)
    assert after.bits_per_byte == pytest.approx(before.bits_per_byte, rel=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)),
        Gemma2ForCausalLM(Gemma2Config(**SMALL, final_logit_softcapping=0.5, query_pre_attn_scalar=8)),
        CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25)),
        GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=0.2)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_whatever_a_model_does_after_its_layers_is_done(model):
    from tokenadapt.evaluation.batches import Batch

    model.eval()
    scorer = Scorer(model, head_bytes=4 * 50 * 3)
    assert scorer.body is not None
    assert scorer.block == 3
    ids = np.array([[5, 7, 9, 11, 2]])
    found = scorer.bits(Batch(ids, np.array([5]), np.array([0, 1, 2, 4]), np.arange(4)), np.array([7, 9, 11, 49]))
    with torch.no_grad():
        logs = model(torch.from_numpy(ids)).logits[0].double().log_softmax(-1)
    wanted = [-float(logs[row, token]) / math.log(2) for row, token in ((0, 7), (1, 9), (2, 11), (4, 49))]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_a_model_that_cannot_be_split_is_run_whole(known):
    model, encoder = known
    whole = score_documents(model, encoder, [Text("abba")], ScoreOptions(bos="always"))

    class Odd(torch.nn.Module):
        """Its logits are not its head's of its layers' states."""

        def __init__(self) -> None:
            super().__init__()
            self.base_model, self.inner, self.config = model.model, model, model.config

        def forward(self, input_ids, **more):
            return self.inner(input_ids=input_ids.flip(1).flip(1), **more)

        __call__ = torch.nn.Module.__call__

    odd = Odd()
    odd.base_model = torch.nn.Embedding(3, 4)  # other states than those the head reads
    scorer = Scorer(odd)
    assert scorer.body is None
    assert score_documents(scorer, encoder, [Text("abba")], ScoreOptions(bos="always")).bits == pytest.approx(
        whole.bits
    )


def test_pseudo_log_likelihood_masks_one_token_at_a_time():
    tokenizer = tiny_tokenizer("wordpiece")
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = BertForMaskedLM(config).eval()
    torch.nn.init.normal_(model.cls.predictions.bias)
    encoder = encoder_of(tokenizer)
    encoded = encoder.encode([LINES[0], "the dog"])
    found = score_encoded(model, encoder, encoded, ScoreOptions(kind="masked", batch_tokens=40))
    for low, high in zip(encoded.start[:-1], encoded.start[1:], strict=True):
        for token in range(low, high):
            ids = torch.from_numpy(encoded.ids[low:high].copy())[None]
            ids[0, token - low] = tokenizer.mask_token_id
            with torch.no_grad():
                logs = model(ids).logits[0, token - low].double().log_softmax(-1)
            assert found.bits[token] == pytest.approx(-float(logs[encoded.ids[token]]) / math.log(2), abs=1e-4)


def test_a_masked_score_needs_a_mask_token(known):
    model, encoder = known
    with pytest.raises(RequestError, match="no mask token"):
        score_documents(model, encoder, [Text("ab")], ScoreOptions(kind="masked"))


def test_an_encoder_is_no_causal_model():
    config = BertConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(RequestError, match="no causal model"):
        Scorer(BertLMHeadModel(config))
    assert Scorer(BertForMaskedLM(config), masked=True).vocab == 50


def test_ids_beyond_the_rows_are_refused(tokenizers):
    tokenizer = tokenizers["bytelevel-bpe"]
    with pytest.raises(RequestError, match="only 20 rows"):
        score_documents(tiny_model(20), encoder_of(tokenizer), [Text(LINES[0])])


def test_more_tokens_than_rows_are_fine_where_the_text_needs_none_of_them(known):
    model, _ = known
    from tests.evaluation.conftest import letters

    encoder = TextEncoder(letters(), (None, b"a", b"b", b"c", b"d"), begin=0)
    assert score_documents(model, encoder, [Text("ab")], ScoreOptions(bos="always")).bits_per_byte == pytest.approx(2.5)


def test_nan_is_an_error(known):
    model, encoder = known
    with torch.no_grad():
        model.lm_head.weight[1, 1] = float("nan")
    with pytest.raises(TokenAdaptError, match="NaN"):
        score_documents(model, encoder, [Text("aab")], ScoreOptions(bos="always"))


def test_probability_zero_is_an_error(known):
    model, encoder = known
    with torch.no_grad():
        model.lm_head.weight[1, 1] = -float("inf")
    model.lm_head.weight.data[1, 1] = -1e38
    with torch.no_grad():
        model.lm_head.weight[2, 1] = 1e38
    with pytest.raises(TokenAdaptError, match="probability zero"):
        score_documents(model, encoder, [Text("aaa")], ScoreOptions(bos="always"))


def test_running_out_of_memory_names_the_budget(known, monkeypatch):
    model, encoder = known
    scorer = Scorer(model)

    def full(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(scorer, "nats", full)
    with pytest.raises(TokenAdaptError, match="Memory ran out") as caught:
        score_documents(scorer, encoder, [Text("aab")], ScoreOptions(bos="always"))
    assert "--batch-tokens" in caught.value.hint


def test_the_model_is_left_as_it_was(known):
    model, encoder = known
    score_documents(model, encoder, [Text("ab")], ScoreOptions(bos="always"))
    assert "forward" not in model.model.__dict__
    assert torch.equal(model(torch.tensor([[0, 1]])).logits, known_model()(torch.tensor([[0, 1]])).logits)


def test_positions_are_read_from_where_a_configuration_keeps_them():
    assert model_positions(tiny_model(10)) == 128
    assert (
        model_positions(GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, n_positions=77))) == 77
    )
    assert model_positions(torch.nn.Linear(1, 1)) == 1 << 30


def test_byte_vocab_is_what_the_encoder_counts_with(tokenizers):
    tokenizer = tokenizers["bytelevel-bpe"]
    encoder = encoder_of(tokenizer)
    assert encoder.token_bytes == byte_vocab(LoadedTokenizer("tiny", None, tokenizer)).token_bytes
