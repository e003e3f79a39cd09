"""Every family: lossless where it says so, deterministic, of the size asked for; --like and --extend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.training.conftest import story
from tests.training.test_train import HARD, assert_loads_by_content, assert_lossless, train
from tokenadapt.errors import RequestError
from tokenadapt.training.compare import Subject, unreachable
from tokenadapt.vocab import load_tokenizer

LOSSLESS = {
    "bpe": {}, "unigram": {"type": "unigram"}, "sp-bpe": {"type": "sp-bpe"}, "sp-unigram": {"type": "sp-unigram"},
    "two-stage": {"supertokens": "two-stage"}, "stochastic": {"supertokens": "stochastic"},
    "words": {"supertokens": "stochastic", "length_unit": "words"},
    "unbounded": {"supertokens": "stochastic", "unbounded": True},
}  # fmt: skip
CODES = [*range(0x3100), *range(0x3100, 0x110000, 11)]  # all of the first scripts, a sample of every class beyond
EVERY = [chr(code) for code in CODES if not 0xD800 <= code < 0xE000]


@pytest.fixture(scope="module", params=LOSSLESS)
def trained(request, tmp_path_factory, story_file):
    folder = tmp_path_factory.mktemp(request.param) / "out"
    return request.param, train(folder, story_file, vocab_size=420, **LOSSLESS[request.param])


def test_lossless_families_give_back_every_text(trained):
    name, made = trained
    own = Tokenizer.from_file(str(made.folder / "tokenizer.json"))
    every = "".join(EVERY).replace("▁", "") if name.startswith("sp-") else "".join(EVERY)
    hard = [text.replace("▁", "") if name.startswith("sp-") else text for text in HARD]
    for text in [*hard, *(every[at : at + 65536] for at in range(0, len(every), 65536))]:
        assert own.decode(own.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_each_loads_by_content_at_the_size_asked_for(trained):
    name, made = trained
    assert_loads_by_content(made.folder)
    ids = made.made.ids()
    assert sorted(ids.values()) == list(range(len(ids)))
    if name.endswith("unigram"):  # a corpus of this size has fewer pieces to give: said in a note
        assert 290 < len(ids) <= 420
        assert (len(ids) == 420) or "only" in made.made.notes[-1]
    else:
        assert len(ids) == 420
    config = json.loads((made.folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_supertokens_are_there_and_all_merges_are_reachable(trained):
    name, made = trained
    if name not in ("two-stage", "stochastic", "words", "bpe"):
        pytest.skip("no merges of ours")
    subject = Subject.of(load_tokenizer(str(made.folder)))
    assert unreachable(subject) == ()
    several = [b for b in subject.vocab.token_bytes if b and len(b.decode(errors="replace").split()) > 1]
    assert bool(several) == (name != "bpe")


@pytest.mark.parametrize("name", ["unigram", "wordpiece", "sp-unigram", "stochastic", "two-stage"])
def test_training_twice_gives_the_same_bytes(tmp_path, story_file, name, monkeypatch):
    options = LOSSLESS.get(name, {"type": name})
    for threads in ("1", "2"):
        monkeypatch.setenv("RAYON_NUM_THREADS", threads)
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        train(tmp_path / threads, story_file, vocab_size=420, **options)
    assert (tmp_path / "1/tokenizer.json").read_bytes() == (tmp_path / "2/tokenizer.json").read_bytes()


@pytest.mark.parametrize("kind", ["sp-bpe", "sp-unigram"])
def test_the_sentencepiece_model_gives_the_same_ids(tmp_path, story_file, kind):
    train(tmp_path / "out", story_file, vocab_size=420, type=kind, special=("<|im_start|>",))
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "out/tokenizer.model"))
    own = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    for text in (story(5, 9), "x  y\n\tz ", "<0x0A> 第 🙂"):
        assert own.encode(text).ids == model.encode(text)
    assert model.piece_to_id("<|im_start|>") == own.token_to_id("<|im_start|>") > 0


def test_wordpiece_keeps_words_and_wraps_sentences(tmp_path, story_file):
    train(tmp_path / "out", story_file, vocab_size=420, type="wordpiece")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens(tokenizer("the night")["input_ids"])[::3] == ["[CLS]", "[SEP]"]
    assert (
        tokenizer.decode(tokenizer("the end of the day")["input_ids"], skip_special_tokens=True) == "the end of the day"
    )
    assert_loads_by_content(tmp_path / "out")


@pytest.fixture(scope="module", params=["Qwen2Tokenizer", "GPT2Tokenizer"])
def named_class(request, tmp_path_factory, story_file) -> Path:
    """A tokenizer whose class rebuilds the pre-tokeniser, with a chat template."""
    folder = tmp_path_factory.mktemp("base") / request.param
    preset = "qwen2" if request.param.startswith("Qwen") else "gpt2"
    train(folder, story_file, vocab_size=380, pre_tokenizer=preset, special=("<|im_start|>", "<|im_end|>"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": request.param}))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    return folder


@pytest.mark.parametrize("supertokens", [None, "two-stage", "stochastic"])
def test_like_a_model_takes_all_but_the_vocabulary(tmp_path, story_file, named_class, supertokens):
    train(tmp_path / "out", story_file, vocab_size=450, like=str(named_class), supertokens=supertokens)
    assert_loads_by_content(tmp_path / "out")
    base = AutoTokenizer.from_pretrained(named_class)
    made = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert made.special_tokens_map == base.special_tokens_map
    chat = [{"role": "user", "content": "hot"}]
    assert made.apply_chat_template(chat, tokenize=False) == base.apply_chat_template(chat, tokenize=False)
    assert len(made("<|im_start|>")["input_ids"]) == 1
    if supertokens is None:
        words = base.backend_tokenizer.pre_tokenizer
        assert made.backend_tokenizer.pre_tokenizer.pre_tokenize_str("it's 1234") == words.pre_tokenize_str("it's 1234")
    else:
        assert len(made("in the middle of the night")["input_ids"]) < len(
            base("in the middle of the night")["input_ids"]
        )


def test_like_re_makes_the_ids_of_the_post_processor(tmp_path, story_file):
    base = tmp_path / "base"
    train(base, story_file, vocab_size=380, special=("<|unused|>", "<s>"))
    state = json.loads((base / "tokenizer.json").read_text())
    old = next(token["id"] for token in state["added_tokens"] if token["content"] == "<s>")
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    state["post_processor"] = {
        "type": "TemplateProcessing", "single": template, "pair": [*template, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [old], "tokens": ["<s>"]}},
    }  # fmt: skip
    state["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (base / "tokenizer.json").write_text(json.dumps(state))
    out = train(tmp_path / "out", story_file, vocab_size=380, like=str(base)).folder
    made = AutoTokenizer.from_pretrained(out)
    ids = made("the night of the day and the end")["input_ids"]
    assert ids[0] == made.convert_tokens_to_ids("<s>") == old - 1
    assert len(ids) > 4
    assert "<|unused|>" not in made.get_vocab()
    assert_loads_by_content(out)


def test_like_every_tiny_family(tmp_path, story_file, any_tokenizer):
    any_tokenizer.save_pretrained(tmp_path / "base")
    out = train(tmp_path / "out", story_file, vocab_size=700, like=str(tmp_path / "base")).folder
    assert_loads_by_content(out)
    base, made = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "base", out))
    assert made.special_tokens_map == base.special_tokens_map
    text = "in the middle of the night"
    assert made.decode(made(text)["input_ids"]) == base.decode(base(text)["input_ids"]) == text
    assert len(made(text)["input_ids"]) <= len(base(text)["input_ids"])


@pytest.mark.parametrize("supertokens", [None, "two-stage"])
def test_an_extension_keeps_every_id_and_adds_reachable_tokens(tmp_path, story_file, named_class, supertokens):
    base = AutoTokenizer.from_pretrained(named_class).get_vocab()
    german = tmp_path / "de.txt"
    german.write_text("Die Straßenbahnhaltestelle war geschlossen worden, wo einst Weltraumfahrer tanzten. " * 50)
    out = train(tmp_path / "out", german, vocab_size=420, extend=str(named_class), supertokens=supertokens)
    made = AutoTokenizer.from_pretrained(out.folder)
    vocab = made.get_vocab()
    assert {token: vocab[token] for token in base} == base
    assert sorted(vocab.values()) == list(range(420))
    lost = [vocab_id for vocab_id in unreachable(Subject.of(load_tokenizer(str(out.folder)))) if vocab_id >= 380]
    assert lost == []
    assert_loads_by_content(out.folder)
    if supertokens is None:  # text of the first corpus is read as before, but for new words
        own, old = made.backend_tokenizer, AutoTokenizer.from_pretrained(named_class).backend_tokenizer
        assert own.encode("1900 hot he they").tokens == old.encode("1900 hot he they").tokens


def test_extending_what_has_no_byte_merges_is_refused(tmp_path, story_file, tokenizers):
    for family in ("unigram", "wordpiece", "sentencepiece-bpe"):
        tokenizers[family].save_pretrained(tmp_path / family)
        with pytest.raises(RequestError, match="cannot be extended"):
            train(tmp_path / "out", story_file, vocab_size=2000, extend=str(tmp_path / family))
    train(tmp_path / "bpe", story_file)
    with pytest.raises(RequestError, match="400 tokens already"):
        train(tmp_path / "out", story_file, vocab_size=400, extend=str(tmp_path / "bpe"))


def test_types_that_do_not_fit_are_refused(tmp_path, story_file, tokenizers):
    tokenizers["wordpiece"].save_pretrained(tmp_path / "wp")
    for wrong in ({"type": "unigram"}, {"supertokens": "two-stage"}):
        with pytest.raises(RequestError):
            train(tmp_path / "out", story_file, like=str(tmp_path / "wp"), **wrong)
    with pytest.raises(RequestError, match="four different"):
        train(tmp_path / "out", story_file, type="sp-bpe", bos="<x>", eos="<x>")
    assert not (tmp_path / "out").exists()


def test_lossless_without_specials_too(tmp_path, story_file):
    train(tmp_path / "out", story_file, supertokens="two-stage", pre_tokenizer="gpt2")
    assert_lossless(tmp_path / "out")
