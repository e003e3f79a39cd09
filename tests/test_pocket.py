"""The embedded model: loads anywhere, speaks its chat format, and is as good as its record says.

Run: scripts/test tests/test_pocket.py
"""

import json
import math
import sysconfig
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenadapt.locate import POCKET

MARKERS = ("<|user|>", "<|assistant|>", "<|end|>")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(POCKET)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float32).eval()


def read(name):
    return json.loads((POCKET / name).read_text(encoding="utf-8"))


def test_it_is_small_and_holds_one_table():
    assert sum(path.stat().st_size for path in POCKET.iterdir()) < 10e6
    with safe_open(POCKET / "model.safetensors", "pt") as file:
        names = list(file.keys())
        assert file.get_slice("model.embed_tokens.weight").get_dtype() == "BF16"
    assert "lm_head.weight" not in names
    assert read("config.json")["tie_word_embeddings"] is True
    assert read("tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_all_ids_tell_one_story(tokenizer):
    config, generation = read("config.json"), read("generation_config.json")
    assert len(tokenizer) == config["vocab_size"] == 4096
    for role in ("bos", "eos", "pad"):
        assert config[f"{role}_token_id"] == getattr(tokenizer, f"{role}_token_id")
    assert generation["eos_token_id"] == [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    assert tokenizer.model_max_length == config["max_position_embeddings"]


@pytest.mark.parametrize("text", ["def f(x):\n    return x + 1\n", "Grüße, 世界! 🙂", "\x00\t  \r\n 12345", ""])
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def test_a_chat_is_written_with_single_markers(tokenizer):
    asked = [{"role": "user", "content": "What does json.dumps do?"}]
    said = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert said == "<|bos|><|user|>\nWhat does json.dumps do?<|end|>\n<|assistant|>\n"
    for marker in MARKERS:
        assert len(tokenizer(marker, add_special_tokens=False)["input_ids"]) == 1


def test_it_answers_and_stops(tokenizer, model):
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What does shutil.copyfile do?"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    answer = model.generate(**ids, max_new_tokens=120, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert set(answer.tolist()) & {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")}
    assert tokenizer.decode(answer, skip_special_tokens=True).strip()


def test_it_predicts_python_that_it_never_saw(tokenizer, model):
    text = (Path(sysconfig.get_paths()["stdlib"]) / "traceback.py").read_text(encoding="utf-8")[:6000]
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    nats, begin = 0.0, ids[0, :1]
    for window in ids[0, 1:].split(511):
        row = torch.cat([begin, window])[None]
        with torch.inference_mode():
            logits = model(row).logits[0, :-1]
        nats += float(torch.nn.functional.cross_entropy(logits, window, reduction="sum"))
    measured = nats / math.log(2) / len(text.encode())
    assert measured < 1.25 * read("training.json")["held_out_bits_per_byte"]
