"""What is written is read back id for id, whatever class another reader would like to take."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.tiny import FAMILIES, tiny_tokenizer
from tokenadapt.checkpoint.tokenizer_files import CODE, STALE, reads_back_otherwise, write_tokenizer
from tokenadapt.errors import VerificationError
from tokenadapt.vocab.load import LoadedTokenizer, load_tokenizer

TEXT = "the quick  brown fox\n12345 été 你好<s>"


def loaded(family, tmp_path):
    folder = tmp_path / f"target-{family}"
    tiny_tokenizer(family).save_pretrained(folder)
    return load_tokenizer(str(folder))


@pytest.fixture
def staging(tmp_path):
    folder = tmp_path / "staging"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def supertokens():
    """Merges across words: a pre-tokeniser of the usual kind would never reach them."""
    tokens = ["t", "h", "e", "Ġ", "c", "a", "th", "the", "theĠ", "theĠc", "theĠca"]
    merges = [("t", "h"), ("th", "e"), ("the", "Ġ"), ("theĠ", "c"), ("theĠc", "a")]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_back_as_it_is(family, tmp_path, staging):
    target = loaded(family, tmp_path)
    write_tokenizer(target, staging, positions=128)
    read = AutoTokenizer.from_pretrained(staging)
    assert read(TEXT)["input_ids"] == target.backend.encode(TEXT).ids
    assert set(read(TEXT)) == {"input_ids", "attention_mask"}  # a Llama refuses token_type_ids
    assert read.model_max_length == 128
    assert [read.bos_token_id, read.eos_token_id, read.pad_token_id] == [
        target.fast.bos_token_id, target.fast.eos_token_id, target.fast.pad_token_id,
    ]  # fmt: skip
    assert sorted(path.name for path in staging.iterdir()) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    settings = json.loads((staging / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "is_local", "local_files_only", "extra_special_tokens", "name_or_path"} & set(settings)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen2", "qwen3_5", "mistral", "t5", "bert"])
def test_merges_across_words_survive_every_model_type(model_type, tmp_path, staging):
    """transformers 5 puts its own class for qwen2 above the one that the folder names."""
    (staging / "config.json").write_text(json.dumps({"model_type": model_type}))
    write_tokenizer(LoadedTokenizer("super", tmp_path, supertokens()), staging)
    assert AutoTokenizer.from_pretrained(staging)("the cathe ca")["input_ids"] == [10, 10]
    if (staging / CODE).exists():
        trusting = AutoTokenizer.from_pretrained(staging, trust_remote_code=True)
        assert trusting("the cathe ca")["input_ids"] == [10, 10]


def test_model_max_length_is_the_models(tmp_path, staging):
    target = loaded("bytelevel-bpe", tmp_path)
    target.fast.model_max_length = 64
    for positions, expected in ((128, 128), (32, 32), (None, 64)):
        write_tokenizer(target, staging, positions=positions)
        assert AutoTokenizer.from_pretrained(staging).model_max_length == expected


def test_stale_files_go(tmp_path, staging):
    for name in (*STALE, "tokenizer.model", "chat_template.jinja"):
        (staging / name).write_text("of the source")
    write_tokenizer(loaded("bytelevel-bpe", tmp_path), staging)
    assert sorted(path.name for path in staging.iterdir()) == ["config.json", "tokenizer.json", "tokenizer_config.json"]


def test_chat_templates_are_files(tmp_path, staging):
    target = loaded("bytelevel-bpe", tmp_path)
    write_tokenizer(target, staging, chat_template={"default": "{{ messages }}", "tool": "T"})
    read = AutoTokenizer.from_pretrained(staging)
    assert read.chat_template == {"default": "{{ messages }}", "tool": "T"}
    write_tokenizer(target, staging, chat_template="X")
    assert AutoTokenizer.from_pretrained(staging).chat_template == "X"


def test_truncation_and_padding_of_the_tokenizers_own_model_are_dropped(tmp_path, staging):
    target = loaded("wordpiece", tmp_path)
    target.backend.enable_truncation(3)
    target.backend.enable_padding(length=5)
    write_tokenizer(target, staging)
    assert len(AutoTokenizer.from_pretrained(staging)(TEXT)["input_ids"]) > 5


def test_token_types_where_the_model_reads_them(tmp_path, staging):
    write_tokenizer(loaded("wordpiece", tmp_path), staging, token_types=True)
    assert "token_type_ids" in AutoTokenizer.from_pretrained(staging)("a", "b")


def test_a_reader_that_differs_is_an_error(tmp_path, staging, monkeypatch):
    target = loaded("bytelevel-bpe", tmp_path)
    monkeypatch.setattr("tokenadapt.checkpoint.tokenizer_files.reads_back_otherwise", lambda *_: "2 tokens, not 3")
    with pytest.raises(VerificationError, match="2 tokens, not 3"):
        write_tokenizer(target, staging)


def test_differences_are_put_in_words(tmp_path, staging):
    write_tokenizer(loaded("bytelevel-bpe", tmp_path), staging)
    assert reads_back_otherwise(staging) == ""
    other = tmp_path / "other"
    shutil.copytree(staging, other)
    shutil.copyfile(tmp_path / "target-bytelevel-bpe" / "tokenizer.json", other / "tokenizer.json")
    state = json.loads((other / "tokenizer.json").read_text())
    state["pre_tokenizer"]["add_prefix_space"] = True
    altered = Tokenizer.from_str(json.dumps(state))
    assert "pre-tokenizer" in reads_back_otherwise(other, altered)


@pytest.mark.real
@pytest.mark.parametrize("name", ["gpt2", "qwen3", "llama3", "mistral-v1", "bert"])
def test_real_tokenizers_under_a_model_type_that_has_a_class_of_its_own(name, bench, staging):
    target = load_tokenizer(str(bench / name))
    (staging / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    write_tokenizer(target, staging, positions=512)
    assert (staging / "tokenizer.model").exists() == (name == "mistral-v1")
    assert AutoTokenizer.from_pretrained(staging)(TEXT)["input_ids"] == target.backend.encode(TEXT).ids
