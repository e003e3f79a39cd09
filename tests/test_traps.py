"""Traps that have cost other programs a model, each from the command to what transformers loads."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.checkpoint.files import AUTO, edit_json, rewrite, tensors_of
from tests.command import contents, refused, tokenadapt, untouched
from tests.tiny import LINES, save_tiny, tiny_tokenizer
from tokenadapt.checkpoint.saved_plan import load_plan

CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKS = ("<|im_start|>", "<|im_end|>")
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
FEW = {"num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64}


def transplant(model, tokenizer, out, *options) -> str:
    said = tokenadapt("transplant", model, tokenizer, out, "--method", "pieces", *options)
    assert said.code == 0, said.err
    assert "[transformers]" not in said.err
    return said.out


@pytest.fixture(scope="module")
def target(tokenizers, tmp_path_factory):
    """The target of most tests, read only."""
    folder = tmp_path_factory.mktemp("target") / "unigram"
    tokenizers["unigram"].save_pretrained(folder)
    return folder


def save(folder, model, tokenizer=None):
    """A model whose tables have the tokenizer's size, with numbers that no loader makes by itself."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1 + (0.05 if parameter.ndim == 2 else 0))
    model.save_pretrained(folder)
    (tokenizer or tiny_tokenizer("bytelevel-bpe")).save_pretrained(folder)
    return folder


def copied(out):
    """Target ids with an old row, and those old ids, special tokens first."""
    source_id = load_plan(out).alignment.source_id
    new = np.flatnonzero(source_id >= 0)
    return torch.from_numpy(new), torch.from_numpy(source_id[new])


def assert_the_same_logits(model, out, kind="causal"):
    """On a text of copied tokens, for copied tokens: what the source says and what the result says."""
    new, old = copied(out)
    picked = torch.arange(0, len(new), max(1, len(new) // 12))
    before, after = (AUTO[kind].from_pretrained(folder).eval().float() for folder in (model, out))
    with torch.no_grad():
        more = {"decoder_input_ids": old[picked][None]}, {"decoder_input_ids": new[picked][None]}
        was, now = more if kind == "seq2seq" else ({}, {})
        wanted = before(old[picked][None], **was).logits[0][:, old]
        given = after(new[picked][None], **now).logits[0][:, new]
    torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-5)


# 7, 8, 9: tables of many kinds, scaled and soft-capped.

CAUSAL = {
    "gemma: input rows times sqrt(D)": lambda V: transformers.GemmaForCausalLM(
        transformers.GemmaConfig(vocab_size=V, **SMALL, **FEW, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    ),
    "gemma 2: soft-capped logits": lambda V: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(vocab_size=V, **SMALL, **FEW, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    ),
    "granite: both sides scaled": lambda V: transformers.GraniteForCausalLM(
        transformers.GraniteConfig(
            vocab_size=V, **SMALL, num_key_value_heads=1, embedding_multiplier=12.0, logits_scaling=8.0,
            tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=3,
        )
    ),
    "phi: a bias on the head": lambda V: transformers.PhiForCausalLM(
        transformers.PhiConfig(vocab_size=V, **SMALL, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_models_of_many_kinds(name, target, tmp_path):
    tokenizer = tiny_tokenizer("bytelevel-bpe")
    model = save(tmp_path / "model", CAUSAL[name](len(tokenizer)), tokenizer)
    transplant(model, target, tmp_path / "out")
    assert_the_same_logits(model, tmp_path / "out")


def test_a_nested_configuration(target, tmp_path):
    tokenizer = tiny_tokenizer("bytelevel-bpe")
    text = {"vocab_size": len(tokenizer), **SMALL, "num_key_value_heads": 1, "head_dim": 16}
    vision = {**SMALL, "image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = save(tmp_path / "model", transformers.Gemma3ForConditionalGeneration(config), tokenizer)
    transplant(model, target, tmp_path / "out", "--verify", "tables")
    rows = len(load_plan(tmp_path / "out").alignment.how)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]["vocab_size"] == rows
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert loaded.get_input_embeddings().weight.shape[0] == rows
    before, after = tensors_of(model), tensors_of(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if "vision" in name)


def test_an_encoder(target, tmp_path):
    tokenizer = tiny_tokenizer("wordpiece")
    tokenizer.add_special_tokens({"mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]"})
    config = transformers.BertConfig(vocab_size=len(tokenizer), **SMALL, max_position_embeddings=64, pad_token_id=3)
    model = save(tmp_path / "model", transformers.BertForMaskedLM(config), tokenizer)
    other = tiny_tokenizer("bytelevel-bpe")
    other.add_special_tokens({"mask_token": "<mask>", "cls_token": "<cls>", "sep_token": "<sep>"})
    other.save_pretrained(tmp_path / "target")
    transplant(model, tmp_path / "target", tmp_path / "out")
    assert_the_same_logits(model, tmp_path / "out", "masked")
    made = AutoTokenizer.from_pretrained(tmp_path / "out")
    source_id = load_plan(tmp_path / "out").alignment.source_id
    assert source_id[made.mask_token_id] == tokenizer.mask_token_id


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_decoder(name, target, tmp_path):
    tokenizer = tiny_tokenizer("unigram")
    rows = {"vocab_size": len(tokenizer), "d_model": 32, "pad_token_id": 3, "decoder_start_token_id": 3}
    if name == "t5":
        config = transformers.T5Config(**rows, d_ff=48, num_layers=1, num_heads=2, d_kv=16, eos_token_id=2)
        model = transformers.T5ForConditionalGeneration(config)
    else:
        parts = {"layers": 1, "attention_heads": 2, "ffn_dim": 48}
        sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in parts.items()}
        model = transformers.BartForConditionalGeneration(
            transformers.BartConfig(**rows, **sides, bos_token_id=1, eos_token_id=2, max_position_embeddings=64)
        )
    folder = save(tmp_path / "model", model, tokenizer)
    tiny_tokenizer("bytelevel-bpe").save_pretrained(tmp_path / "target")
    transplant(folder, tmp_path / "target", tmp_path / "out")
    assert_the_same_logits(folder, tmp_path / "out", "seq2seq")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    made = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (config["eos_token_id"], config["decoder_start_token_id"]) == (made.eos_token_id, made.pad_token_id)


# 6, 10, 12: ids and special tokens.


def test_rows_tokens_and_ids_are_different_numbers(tmp_path):
    """A model with more rows than tokens, a target with a gap among its ids."""
    save_tiny(tmp_path / "model", tiny_tokenizer("unigram"), extra_rows=13)
    tiny_tokenizer("bytelevel-bpe").save_pretrained(tmp_path / "target")
    file = tmp_path / "target" / "tokenizer.json"
    state = json.loads(file.read_text())
    vocabulary = state["model"]["vocab"]
    tokens, place = len(vocabulary), vocabulary["Ġdog"]
    vocabulary["Ġdog"] = tokens + 6
    file.write_text(json.dumps(state))
    transplant(tmp_path / "model", tmp_path / "target", tmp_path / "out")
    alignment = load_plan(tmp_path / "out").alignment
    assert len(alignment.how) == tokens + 7
    assert alignment.unused.tolist() == [place, *range(tokens, tokens + 6)]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == tokens + 7
    assert len(tokenizer) == tokens
    assert tokenizer(" dog", add_special_tokens=False)["input_ids"] == [tokens + 6]


def test_roles_end_lists_and_a_pad_that_is_the_end(tmp_path):
    """bos keeps its row to the bit; each of several ends is translated; a pad that was eos stays eos."""
    source = tiny_tokenizer("bytelevel-bpe")
    source.add_special_tokens({"extra_special_tokens": list(MARKS), "pad_token": "</s>"})
    model = save_tiny(tmp_path / "model", source)
    end = source.convert_tokens_to_ids("<|im_end|>")
    edit_json(model / "config.json", pad_token_id=2)
    edit_json(model / "generation_config.json", eos_token_id=[2, end], pad_token_id=2)
    wanted = tiny_tokenizer("unigram")
    wanted.add_special_tokens({"extra_special_tokens": [*reversed(MARKS), "<|new|>"], "bos_token": "<begin>"})
    wanted.save_pretrained(tmp_path / "target")
    said = transplant(model, tmp_path / "target", tmp_path / "out")
    made = AutoTokenizer.from_pretrained(tmp_path / "out")
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    table = "model.embed_tokens.weight"
    assert torch.equal(after[table][made.bos_token_id], before[table][1])
    assert made.bos_token == "<begin>"
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [made.eos_token_id, made.convert_tokens_to_ids("<|im_end|>")]
    assert "<|new|>" in said  # without a counterpart: listed by name, never cut into the letters of its name
    alignment = load_plan(tmp_path / "out").alignment
    assert made.convert_tokens_to_ids("<|new|>") in alignment.unused


def test_two_tokens_of_the_same_bytes_both_work(tmp_path):
    """An added token beside an ordinary one: both take the row, both are verified."""
    save_tiny(tmp_path / "model", tiny_tokenizer("bytelevel-bpe"))
    target = tiny_tokenizer("unigram")
    target.add_tokens([AddedToken(" dog", normalized=False)])
    target.save_pretrained(tmp_path / "target")
    transplant(tmp_path / "model", tmp_path / "target", tmp_path / "out")
    source_id = load_plan(tmp_path / "out").alignment.source_id
    made = AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    old = AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab()["Ġdog"]
    assert source_id[made["▁dog"]] == source_id[made[" dog"]] == old


# 11: chat.


def chat_model(folder):
    """A model that says nothing but the end of its turn, whatever it is asked: a bias of its head sees to it."""
    tokenizer = tiny_tokenizer("bytelevel-bpe")
    tokenizer.add_special_tokens({"extra_special_tokens": list(MARKS)})
    tokenizer.chat_template = CHAT
    made = save(folder, CAUSAL["phi: a bias on the head"](len(tokenizer)), tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def always_end(tensors):
        tensors["lm_head.bias"][end] = 50.0

    rewrite(made, always_end)
    edit_json(made / "generation_config.json", eos_token_id=[2, end])
    return made


def test_carried_chat_is_spoken_and_stops(target, tmp_path):
    model = chat_model(tmp_path / "model")
    transplant(model, target, tmp_path / "out", "--carry-chat")
    made, old = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("out", "model"))
    assert made.chat_template == CHAT
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    for mark in MARKS:
        [new] = made(mark, add_special_tokens=False)["input_ids"]
        was = old.convert_tokens_to_ids(mark)
        for table in ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
            assert torch.equal(after[table][new], before[table][was])
    said = [{"role": "user", "content": "the dog"}]
    ids = made.apply_chat_template(said, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    assert made.decode(ids[0]).count("<|im_start|>") == 2
    answer = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generate(ids, max_new_tokens=20, do_sample=False)
    assert answer[0, ids.shape[1] :].tolist() == [made.convert_tokens_to_ids("<|im_end|>")]


def test_a_template_whose_markers_the_target_splits_is_left_out_and_this_is_said(target, tmp_path):
    said = transplant(chat_model(tmp_path / "model"), target, tmp_path / "out", "--verify", "tables")
    assert "--carry-chat" in said
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template is None


# 14, 15, 17: numbers and text.


def test_quantised_tables_are_refused(target, tmp_path):
    save_tiny(tmp_path / "model", tiny_tokenizer("bytelevel-bpe"))

    def pack(tensors):
        name = "model.embed_tokens.weight"
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)

    rewrite(tmp_path / "model", pack)
    with untouched(tmp_path):
        assert "quantised" in refused(2, "transplant", tmp_path / "model", target, tmp_path / "out")


def test_sums_of_bfloat16_rows_are_made_in_float32(target, tmp_path):
    save_tiny(tmp_path / "model", tiny_tokenizer("bytelevel-bpe"))
    name = "model.embed_tokens.weight"
    rewrite(tmp_path / "model", lambda tensors: tensors.update({key: t.bfloat16() for key, t in tensors.items()}))
    edit_json(tmp_path / "model" / "config.json", dtype="bfloat16")
    transplant(tmp_path / "model", target, tmp_path / "out", "--verify", "tables")
    old, new = (load_file(tmp_path / side / "model.safetensors")[name] for side in ("model", "out"))
    saved = load_plan(tmp_path / "out")
    plan = saved.plans()["output"]
    assert new.dtype == torch.bfloat16
    for place, index in enumerate(saved.alignment.missing.tolist()):
        run = slice(int(plan.start[place]), int(plan.start[place + 1]))
        mixed = torch.from_numpy(plan.weight[run]).double() @ old[torch.from_numpy(plan.source_id[run])].double()
        torch.testing.assert_close(new[index].double(), mixed, rtol=2**-8, atol=1e-6)


def test_a_number_too_large_for_float16_is_no_silent_infinity(target, tmp_path):
    save_tiny(tmp_path / "model", tiny_tokenizer("bytelevel-bpe"))

    def grow(tensors):
        tensors["model.embed_tokens.weight"][5:200, 0] = 1e5

    rewrite(tmp_path / "model", grow)
    with untouched(tmp_path):
        said = refused(
            1, "transplant", tmp_path / "model", target, tmp_path / "out", "--method", "pieces", "--dtype", "float16"
        )
    assert "finite" in said or "copied" in said


def test_text_that_does_not_come_back_is_counted(target, tmp_path):
    save_tiny(tmp_path / "model", tiny_tokenizer("bytelevel-bpe"))
    said = transplant(tmp_path / "model", target, tmp_path / "out")
    assert "Warning: round trip" in said


# 20: what belongs to others.


def test_a_hub_cache_is_read_and_never_written_nor_pointed_at(target, tmp_path):
    """Snapshots are links into shared blobs: the result holds files of its own."""
    plain = save_tiny(tmp_path / "plain", tiny_tokenizer("bytelevel-bpe"))
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "1", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in plain.iterdir():
        shutil.move(path, blobs / path.name)
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / path.name, snapshot))
    before, times = contents(tmp_path / "hub"), [path.stat().st_mtime_ns for path in sorted(blobs.iterdir())]
    transplant(snapshot, target, tmp_path / "out", "--verify", "tables")
    assert contents(tmp_path / "hub") == before
    assert [path.stat().st_mtime_ns for path in sorted(blobs.iterdir())] == times
    inodes = {path.stat().st_ino for path in blobs.iterdir()}
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_symlink()
        assert path.stat().st_ino not in inodes
    assert [AutoTokenizer.from_pretrained(tmp_path / "out")(line)["input_ids"] for line in LINES] == [
        AutoTokenizer.from_pretrained(target)(line)["input_ids"] for line in LINES
    ]
