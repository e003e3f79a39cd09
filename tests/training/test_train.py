"""The whole road: a folder that AutoTokenizer loads by content, lossless, the same for the same input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.training.conftest import story
from tokenadapt.errors import RequestError
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.presets import PRESETS
from tokenadapt.training.train import train_tokenizer

HARD = (
    "plain words",
    "  runs   of    spaces\t\ttabs \n\n\n and\r\nCRLF\r\n\r\n end  ",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️‍🔥 e\u0301 \u200d \u200b \ufeff \u00ad",
    "क्षत्रिय नमस्ते, ഹലോ, ไทย, 你好，世界 한국어 עברית العربية",
    "x = {'a': 1234567.89, 'b': [0xFF, -1e-9]}  # note: it's DON'T I'll",
    "<|endoftext|> <s> </s> <|im_start|>user\nhi<|im_end|> <0x0A> Ġ ▁ ## [UNK]",
    "".join(map(chr, range(0x20))) + "".join(map(chr, range(0x7F, 0x180))),
    "\ue000\uf8ff\U000f0000\U0010fffd\ufffe\uffff\ufffd\U0001fffe",
    "a" * 1000 + " " * 1000 + "1" * 1000 + ":" * 300 + ": " * 300,
    "",
)


def train(folder: Path, corpus: Path, **options):
    settings = {"vocab_size": 400, "holdout_bytes": 0, **options}
    return train_tokenizer(TrainingOptions((str(corpus),), str(folder), **settings))


def assert_loads_by_content(folder: Path) -> None:
    auto = AutoTokenizer.from_pretrained(folder)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in HARD:
        assert auto(text)["input_ids"] == own.encode(text).ids


def assert_lossless(folder: Path) -> None:
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in HARD:
        assert own.decode(own.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("preset", [*PRESETS, r"\w+|\W+"])
def test_every_preset_loads_by_content_and_is_lossless(tmp_path, story_file, preset):
    train(tmp_path / "out", story_file, pre_tokenizer=preset)
    assert_loads_by_content(tmp_path / "out")
    assert_lossless(tmp_path / "out")


def test_the_vocabulary_has_the_size_asked_for_all_bytes_and_the_roles(tmp_path, story_file):
    made = train(tmp_path / "out", story_file, special=("<|im_start|>",), pad="<pad>").made
    assert made.size == 400
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|endoftext|>",
        "<|endoftext|>",
        "<pad>",
    )
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer("<|im_start|>")["input_ids"]) == 1
    assert sorted(made.ids().values()) == list(range(400))


def test_padding_to_a_multiple_makes_more_tokens_not_empty_rows(tmp_path, story_file):
    assert train(tmp_path / "a", story_file, pad_vocab_to_multiple=64).made.size == 448
    made = train(tmp_path / "b", story_file, vocab_size=100_001, pad_vocab_to_multiple=64).made
    assert made.size % 64 == 0
    assert made.size < 5000
    assert max(made.ids().values()) == made.size - 1


def test_the_same_input_gives_the_same_bytes_whatever_the_threads(tmp_path, story_file, monkeypatch):
    files = []
    for threads in ("1", "2", "false"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false" if threads == "false" else "true")
        monkeypatch.setenv("RAYON_NUM_THREADS", threads if threads != "false" else "1")
        train(tmp_path / threads, story_file)
        files.append((tmp_path / threads / "tokenizer.json").read_bytes())
    assert files[0] == files[1] == files[2]


def test_the_manifest_tells_what_was_read_and_made(tmp_path, story_file):
    train(tmp_path / "out", story_file)
    manifest = json.loads((tmp_path / "out" / "tokenizer_training.json").read_text())
    assert manifest["corpus"]["bytes"] == story_file.stat().st_size
    assert manifest["vocabulary"] == 400
    assert set(manifest["files"]) == {"tokenizer.json", "tokenizer_config.json"}


def test_wrong_requests_leave_nothing(tmp_path, story_file):
    empty = tmp_path / "blank.jsonl"
    empty.write_text('{"text": ""}\n')
    for wrong in (
        {"vocab_size": 200}, {"type": "bpe2"}, {"supertokens": "three"}, {"transition": 1.5}, {"pre_tokenizer": "gtp2"},
        {"pre_tokenizer": "("}, {"like": "a", "extend": "b"}, {"supertokens": "two-stage", "type": "unigram"},
    ):  # fmt: skip
        with pytest.raises(RequestError):
            train(tmp_path / "out", story_file, **wrong)
    with pytest.raises(RequestError, match="no text"):
        train(tmp_path / "out", empty)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank.jsonl"]
    (tmp_path / "out").mkdir()
    with pytest.raises(RequestError, match="exists"):
        train(tmp_path / "out", story_file)


def test_held_out_lines_are_not_trained_on(tmp_path):
    corpus = tmp_path / "rows.txt"
    text = "".join(story(40, seed) for seed in range(200))
    corpus.write_bytes(text.encode())
    trained = train(tmp_path / "out", corpus, holdout_bytes=20_000, seed=3)
    size = sum(len(part.encode()) for part in trained.held_out)
    assert 3_000 < size < 30_000
    assert all(part in text for part in trained.held_out)
    manifest = json.loads((tmp_path / "out" / "tokenizer_training.json").read_text())
    assert manifest["corpus"]["bytes"] + size == len(text.encode())
    assert train(tmp_path / "again", corpus, holdout_bytes=20_000, seed=3).held_out == trained.held_out
