"""Loading tokenizers: every form that users have them in, and every way in which they are broken."""

from __future__ import annotations

import base64
import json
import shutil

import pytest
import sentencepiece
from tokenizers import Tokenizer

from tests.tiny import LINES, tiny_tokenizer
from tokenadapt.errors import RequestError
from tokenadapt.vocab.load import load_tokenizer

TEXTS = (
    *LINES,
    "",
    " leading and  double   spaces ",
    "    \n\n\t tabs\tand\nlines  ",
    "ﬁ Ａ ½ e\u0301 \u00a0nbsp",
    "aaaaaaaaaaaaaaa bbbbb the the the",
    "🙂 unseen 鬱 \u0001",
)


@pytest.fixture(scope="session")
def sentencepiece_file(tmp_path_factory):
    """A function that trains a SentencePiece model with given settings and gives its file."""
    folder = tmp_path_factory.mktemp("spm")
    text = folder / "text.txt"
    text.write_text("\n".join(LINES * 20), encoding="utf-8")

    def train(name: str, **settings):
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(folder / name), minloglevel=9, hard_vocab_limit=False, num_threads=1,
            **{"vocab_size": 420, "byte_fallback": True, **settings},
        )  # fmt: skip
        return folder / f"{name}.model"

    return train


SETTINGS = {
    "bpe": {"model_type": "bpe"},
    "bpe-identity": {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "bpe-no-prefix": {"model_type": "bpe", "add_dummy_prefix": False, "remove_extra_whitespaces": False},
    "bpe-symbols": {"model_type": "bpe", "user_defined_symbols": ["the", "old"], "remove_extra_whitespaces": False},
    "bpe-no-bytes": {"model_type": "bpe", "byte_fallback": False, "vocab_size": 200},
    "unigram": {"model_type": "unigram"},
    "unigram-symbols": {"model_type": "unigram", "user_defined_symbols": ["the", "old"]},
    "unigram-plain": {"model_type": "unigram", "add_dummy_prefix": False, "byte_fallback": False, "vocab_size": 150},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_sentencepiece_file_gives_the_ids_that_sentencepiece_gives(name, sentencepiece_file):
    file = sentencepiece_file(name, **SETTINGS[name])
    loaded, oracle = load_tokenizer(str(file)), sentencepiece.SentencePieceProcessor(str(file))
    for text in TEXTS:
        assert loaded.fast.encode(text, add_special_tokens=False) == oracle.encode(text), text
    assert len(loaded.fast) == oracle.get_piece_size()
    assert (loaded.fast.bos_token, loaded.fast.eos_token, loaded.fast.unk_token) == ("<s>", "</s>", "<unk>")


def test_a_folder_that_holds_only_a_sentencepiece_model_loads_by_content(sentencepiece_file, tmp_path):
    file = sentencepiece_file("bpe", **SETTINGS["bpe"])
    shutil.copy(file, tmp_path / "tokenizer.model")
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.fast.tokenize("the dog") == ["▁the", "▁dog"]
    assert list(loaded.files) == ["tokenizer.model"]


def test_word_models_are_refused(sentencepiece_file):
    file = sentencepiece_file("word", model_type="word", byte_fallback=False, vocab_size=40)
    with pytest.raises(RequestError, match="neither BPE nor Unigram"):
        load_tokenizer(str(file))


def test_a_folder_and_its_tokenizer_json_give_the_same_ids(any_tokenizer, tmp_path):
    any_tokenizer.save_pretrained(tmp_path)
    folder, file = load_tokenizer(str(tmp_path)), load_tokenizer(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        ids = any_tokenizer.encode(text, add_special_tokens=False)
        assert folder.fast.encode(text, add_special_tokens=False) == ids
        assert file.fast.encode(text, add_special_tokens=False) == ids
    assert folder.fast.special_tokens_map == file.fast.special_tokens_map == any_tokenizer.special_tokens_map
    assert folder.notes == ()
    assert "local_files_only" not in folder.fast.init_kwargs


def test_what_transformers_rebuilds_is_taken_and_said(tmp_path):
    """GPT2Tokenizer brings its own pre-tokeniser whatever the file says: trap 18."""
    tokenizer = tiny_tokenizer("bytelevel-bpe")
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["pre_tokenizer"]["use_regex"] = False  # tokens of several words
    state["model"]["vocab"]["theĠold"] = len(tokenizer)
    state["model"]["merges"] += [["the", "Ġold"]]
    state["model"]["vocab"].setdefault("Ġold", len(tokenizer) + 1)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    config = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    folder, file = load_tokenizer(str(tmp_path)), load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert "theĠold" in file.fast.tokenize("the old")
    assert "theĠold" not in folder.fast.tokenize("the old")
    assert len(folder.notes) == 1
    assert "pre-tokenizer" in folder.notes[0]


def test_a_sentencepiece_folder_that_transformers_reads_otherwise_is_noted(sentencepiece_file, tmp_path):
    """transformers gives no leading space to a text that has one; SentencePiece adds its own."""
    file = sentencepiece_file("bpe-identity", **SETTINGS["bpe-identity"])
    shutil.copy(file, tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    folder, alone = load_tokenizer(str(tmp_path)), load_tokenizer(str(tmp_path / "tokenizer.model"))
    assert "cuts some text otherwise" in folder.notes[0]
    assert alone.notes == ()


def test_stale_files_beside_tokenizer_json_are_not_read(tmp_path):
    """Trap 18."""
    tokenizer, stale = tiny_tokenizer("bytelevel-bpe"), tiny_tokenizer("bytelevel-bpe", 300, ("zz yy xx",))
    tokenizer.save_pretrained(tmp_path)
    stale.backend_tokenizer.model.save(str(tmp_path))  # vocab.json and merges.txt
    (tmp_path / "tokenizer.model").write_bytes(b"stale")
    assert {"vocab.json", "merges.txt"} <= {path.name for path in tmp_path.iterdir()}
    assert load_tokenizer(str(tmp_path)).fast.encode(LINES[0]) == tokenizer.encode(LINES[0])


def test_truncation_and_padding_of_a_past_call_are_off(tmp_path):
    tokenizer = tiny_tokenizer("bytelevel-bpe")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.backend.encode(LINES[0]).ids == tokenizer.encode(LINES[0])


def test_tiktoken_ranks(tmp_path):
    """Ranks of the bytes a, b, c, space, then ab, abc: `abcab` is abc, ab."""
    ranks = [b"a", b"b", b"c", b" ", b"ab", b"abc"]
    lines = [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(ranks)]
    file = tmp_path / "tiny.tiktoken"
    file.write_bytes(b"\n".join(lines))
    loaded = load_tokenizer(str(file))
    assert loaded.fast.encode("abcab ab") == [5, 4, 3, 4]
    assert "pattern" in loaded.notes[0]
    assert isinstance(loaded.backend, Tokenizer)


def test_bad_input_is_refused_with_a_hint(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "broken.json").write_text('{"model": {"type": "BPE"')
    (tmp_path / "odd.json").write_text('{"model": {"type": "Magic", "vocab": {}}}')
    (tmp_path / "noise.model").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    shutil.copytree(tmp_path / "settings", tmp_path / "torn")
    (tmp_path / "torn" / "tokenizer.model").write_bytes(b"\x00garbage")
    names = (
        "settings",
        "torn",
        "absent",
        "empty",
        "other",
        "vocab.json",
        "broken.json",
        "odd.json",
        "noise.model",
        "broken",
    )
    for name in names:
        with pytest.raises(RequestError) as caught:
            load_tokenizer(str(tmp_path / name))
        assert caught.value.hint, name
        assert "\n" not in caught.value.message, name


def test_code_of_a_repository_is_not_run(tmp_path):
    """A tokenizer class that the folder itself defines: refused, and its module never imported."""
    marker = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(marker)!r}, 'w')\nclass Mine: pass\n")
    config = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.txt").write_text("a\n")
    with pytest.raises(RequestError, match="run code") as caught:
        load_tokenizer(str(tmp_path))
    assert "--trust-remote-code" in caught.value.hint
    assert not marker.exists()


@pytest.mark.real
@pytest.mark.parametrize("name", ["mistral-v1", "mistral-v3", "j2-unigram"])
def test_real_sentencepiece_models_give_the_same_ids(bench, name):
    """Up to ties in score, which rounding breaks, and the names of special tokens, which fast tokenizers match."""
    file = bench / name / "tokenizer.model"
    loaded, oracle = load_tokenizer(str(file.parent)), sentencepiece.SentencePieceProcessor(str(file))

    def score(ids):
        return sum(oracle.get_score(index) for index in ids)

    for text in TEXTS:
        ours, theirs = loaded.fast.encode(text, add_special_tokens=False), oracle.encode(text)
        tie = name == "j2-unigram" and score(ours) == pytest.approx(score(theirs), abs=1e-3)
        assert ours == theirs or tie, text
