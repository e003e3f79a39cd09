"""Tokens as bytes: the traps of each family, and that bytes are what a token contributes inside text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import FAMILIES, LINES, tiny_tokenizer
from tests.vocab.conftest import loaded
from tokenadapt.vocab import byte_vocab
from tokenadapt.vocab.letters import from_letters, to_letters
from tokenadapt.vocab.types import Kind

ALPHABET = " abehtoxd019.,\n\té你👍Ã"
TEXT = st.text(alphabet=ALPHABET, max_size=30)
REAL = [
    "smollm2",
    "gpt2",
    "llama3",
    "qwen3",
    "gpt4o",
    "deepseek",
    "gemma3",
    "mistral-nemo",
    "claude",
    "mistral-v1",
    "mistral-v3",
    "j2-unigram",
    "bert",
    "stories15m",
    "wordllama",
]


def vocab_of(backend: Tokenizer, **special):
    return byte_vocab(loaded(PreTrainedTokenizerFast(tokenizer_object=backend, **special)))


def bpe(tokens, merges=(), **options) -> Tokenizer:
    return Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, list(merges), **options))


def joined(vocab, ids) -> bytes:
    return b"".join(vocab.token_bytes[index] for index in ids)


def written(fast, text: str) -> str:
    """Text as the components of a tokenizer read it: an independent account of prefix spaces and normalisers."""
    state = json.loads(fast.backend_tokenizer.to_str())
    text = fast.backend_tokenizer.normalizer.normalize_str(text) if state["normalizer"] else text
    cut = state["pre_tokenizer"] or {}
    if cut.get("type") == "Metaspace":
        text = text.replace(" ", "▁")
        if cut["prepend_scheme"] != "never" and text and not text.startswith("▁"):
            text = "▁" + text
        return text.replace("▁", " ")
    return text.replace("▁", " ") if "Prepend" in json.dumps(state["normalizer"] or {}) else text


@pytest.mark.parametrize("family", ["bytelevel-bpe", "sentencepiece-bpe", "unigram"])
@settings(max_examples=40, deadline=None)
@given(text=TEXT)
def test_the_bytes_of_the_tokens_of_a_text_join_to_the_text(family, text, tokenizers, vocabularies):
    fast, vocab = tokenizers[family], vocabularies[family]
    ids = vocab.encode([text])[0]
    if vocab.roles["unk"] not in ids:
        assert joined(vocab, ids) == written(fast, text).encode()


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.sampled_from(["the", "dog", "quick", "12", ",", ".", "a", "of", "("]), min_size=1, max_size=12)
)
def test_wordpiece_tokens_join_to_words_with_their_space(words, vocabularies):
    """A word-initial token carries the space in front of it; punctuation, which is cut off without one, does not."""
    vocab = vocabularies["wordpiece"]
    ids = vocab.encode([" ".join(words)])[0]
    if vocab.roles["unk"] not in ids:
        assert joined(vocab, ids) == "".join(word if word in ",.(" else f" {word}" for word in words).encode()


@st.composite
def random_tokenizers(draw):
    words = draw(st.lists(st.text(alphabet="abcdeé你 ", min_size=1, max_size=8), min_size=3, max_size=12))
    lines = (" ".join(words), " ".join(reversed(words)), "a b c d e")
    return tiny_tokenizer(draw(st.sampled_from(FAMILIES)), vocab_size=draw(st.integers(260, 330)), lines=lines)


@settings(max_examples=30, deadline=None)
@given(fast=random_tokenizers())
def test_a_token_that_the_tokenizer_produces_decodes_inside_text_to_its_bytes(fast):
    """Decoding after an anchor is the oracle: it shares no code with the rules."""
    check_decoding(fast, byte_vocab(loaded(fast)), anchor="a")


def check_decoding(fast, vocab, anchor: str, step: int = 1) -> None:
    backend = fast.backend_tokenizer
    before = backend.encode(anchor, add_special_tokens=False).ids
    start = backend.decode(before)
    checked = 0
    for index in np.flatnonzero(np.isin(vocab.kind, (Kind.ORDINARY, Kind.BYTE)))[::step].tolist():
        said = backend.decode([*before, index])
        if not said.startswith(start) or "\ufffd" in said:
            continue
        inside = said[len(start) :]
        tight = inside.removeprefix(" ")  # a decoder may put a space where text needs none: in front of punctuation
        if backend.encode(anchor + tight, add_special_tokens=False).ids == [*before, index]:
            inside = tight
        if backend.encode(anchor + inside, add_special_tokens=False).ids == [*before, index]:
            assert vocab.token_bytes[index] == inside.encode(), vocab.text[index]
            checked += 1
    assert checked


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_tokens_decode_inside_text_to_their_bytes(name, bench, real_vocab):
    from tokenadapt.vocab import load_tokenizer

    check_decoding(load_tokenizer(str(bench / name)).fast, real_vocab(name), anchor="x", step=7)


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_vocabularies_are_read_in_full(name, real_vocab):
    vocab = real_vocab(name)
    assert not (vocab.kind == Kind.UNKNOWN).any()
    text = "The quick fox, 12345 times: naïve 你好 👍🏽\n\n\tdef f(x):\r\n        return x\n"
    ids = vocab.encode([text])[0]
    if name not in ("bert", "j2-unigram", "claude"):  # these normalise
        assert joined(vocab, ids).lstrip(b" ") == text.encode()


def test_byte_letters():
    """Trap 1 and 3: half a character is bytes, not U+FFFD; the letter Ã is byte C3."""
    assert to_letters("é a\n".encode()) == "Ã©ĠaĊ"
    assert from_letters("Ã") == b"\xc3"
    assert from_letters("▁") is None
    assert [from_letters(to_letters(bytes([byte]))) for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_the_same_letter_is_a_byte_here_and_a_letter_there():
    """Trap 3."""
    letters = bpe(["Ã", "Ġ"])
    letters.decoder = decoders.ByteLevel()
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marked = bpe(["Ã", "Ġ"])
    marked.pre_tokenizer = pre_tokenizers.Metaspace()
    assert vocab_of(letters).token_bytes == (b"\xc3", b" ")
    assert vocab_of(marked).token_bytes == ("Ã".encode(), "Ġ".encode())


def test_byte_tokens_are_bytes_only_with_byte_fallback():
    """Trap 4."""
    with_bytes, without = bpe(["<0x0A>"], byte_fallback=True), bpe(["<0x0A>"])
    assert vocab_of(with_bytes).token_bytes == (b"\n",)
    assert vocab_of(with_bytes).kind.tolist() == [Kind.BYTE]
    assert vocab_of(without).token_bytes == (b"<0x0A>",)
    assert vocab_of(without).kind.tolist() == [Kind.ORDINARY]


def test_unigram_byte_fallback_is_seen():
    pieces = [("<unk>", 0.0), ("<0xC3>", -9.0), ("a", -1.0)]
    vocab = vocab_of(Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True)))
    assert vocab.kind.tolist() == [Kind.SPECIAL, Kind.BYTE, Kind.ORDINARY]
    assert vocab.scores.tolist() == [0.0, -9.0, -1.0]


def test_wordpiece_rule():
    """Trap 5: `ing` begins a word, `##ing` continues one; punctuation and ideographs need no space."""
    words = ["[UNK]", "ing", "##ing", ",", "你", "##,"]
    backend = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    vocab = vocab_of(backend, unk_token="[UNK]")
    assert vocab.token_bytes == (None, b" ing", b"ing", b",", "你".encode(), b",")
    assert vocab.word_start.tolist() == [False, True, False, True, True, False]
    assert "##" in vocab.rule


def test_a_token_whose_bytes_cannot_be_known_is_reported(caplog):
    backend = bpe(["a", "snow☃", "Ġ"])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocab = vocab_of(backend)
    assert vocab.token_bytes == (b"a", None, b" ")
    assert vocab.kind.tolist() == [Kind.ORDINARY, Kind.UNKNOWN, Kind.ORDINARY]
    assert "snow" in caplog.text


def test_words_that_end_with_a_suffix_are_not_guessed():
    vocab = vocab_of(bpe(["a", "a</w>"], end_of_word_suffix="</w>"))
    assert vocab.kind.tolist() == [Kind.ORDINARY, Kind.UNKNOWN]


def test_special_added_and_missing_ids():
    """Trap 6: the length is the highest id and one more, gaps included."""
    state = json.loads(bpe(["a", "b", "▁▁", "▁"], [("▁", "▁")]).to_str())
    state["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    state["added_tokens"] = [
        {"id": 2, "content": "▁▁", "special": False, **flags},
        {"id": 6, "content": "<tool>", "special": False, **flags},
        {"id": 8, "content": "<s>", "special": True, **flags},
    ]
    state["model"]["vocab"] |= {"<tool>": 6, "<s>": 8}
    vocab = vocab_of(Tokenizer.from_str(json.dumps(state)), bos_token="<s>")
    assert len(vocab) == 9
    kinds = [Kind.ORDINARY] * 4 + [Kind.GAP] * 2 + [Kind.ADDED, Kind.GAP, Kind.SPECIAL]
    assert vocab.kind.tolist() == kinds
    assert vocab.token_bytes[2] == b"  "
    assert vocab.token_bytes[6] == b"<tool>"
    assert vocab.token_bytes[8] is None
    assert vocab.roles["bos"] == 8


def test_roles_are_those_the_tokenizer_names_and_well_known_control_tokens():
    """Trap 10: an ordinary token plays no part, whatever its name; an added tag `<s>` begins no text."""
    backend = bpe(["a", "<|im_start|>"])
    backend.add_special_tokens(["<|im_end|>", "<bos>", "[PAD]"])
    backend.add_tokens([AddedToken("<s>"), AddedToken("<start_of_turn>")])
    roles = vocab_of(backend, eos_token="<|im_end|>", pad_token="[PAD]").roles
    names = backend.get_vocab()
    assert roles == {
        "eos": names["<|im_end|>"], "pad": names["[PAD]"], "text:start": names["<bos>"],
        "chat:start": names["<start_of_turn>"], "chat:end": names["<|im_end|>"],
    }  # fmt: skip


def test_encode_runs_the_tokenizer_without_special_tokens_truncation_or_padding(tokenizers):
    backend = Tokenizer.from_str(tokenizers["bytelevel-bpe"].backend_tokenizer.to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    vocab = vocab_of(backend)
    assert joined(vocab, vocab.encode([LINES[0]])[0]).decode() == LINES[0]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(data=st.one_of(st.binary(max_size=12), TEXT.map(str.encode)))
def test_spelled_bytes_join_exactly(family, data, vocabularies):
    vocab = vocabularies[family]
    [ids] = vocab.spell([data])
    if ids is not None:
        assert joined(vocab, ids) == data
        assert np.isin(vocab.kind[ids], (Kind.ORDINARY, Kind.BYTE)).all()
    if family == "bytelevel-bpe":
        assert ids is not None


def test_spelling_adds_no_space_and_runs_no_normaliser(vocabularies):
    """Trap 2: no prefix space, whatever the tokenizer adds for its users."""
    for family in ("sentencepiece-bpe", "unigram"):
        vocab = vocabularies[family]
        assert joined(vocab, vocab.spell([b"the"])[0]) == b"the"
        assert joined(vocab, vocab.encode(["the"])[0]) == b" the"


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_the_prepend_scheme_changes_neither_bytes_nor_pieces(scheme):
    """Trap 2."""
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("a", -1.5), ("▁", -2.0)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    vocab = vocab_of(backend)
    assert vocab.token_bytes[1:] == (b" a", b"a", b" ")
    assert vocab.spell([b"a", b" a", b"aa a", "▁a".encode()]) == [[2], [1], [2, 2, 1], None]


def test_letters_that_the_normaliser_writes():
    backend = bpe([*sorted(to_letters(bytes([byte])) for byte in range(256)), "Ã©"], [("Ã", "©")])
    backend.normalizer = normalizers.ByteLevel()
    vocab = vocab_of(backend)
    ids = vocab.encode(["é a"])[0]
    assert joined(vocab, ids) == "é a".encode()
    assert vocab.spell(["é a".encode()]) == [ids]


def test_spelling_cuts_valid_text_by_the_pre_tokeniser_first():
    """`12` is a token, but two digits are never read together; half characters go to the model as they are."""
    letters = sorted(to_letters(bytes([byte])) for byte in range(256))
    backend = bpe([*letters, "12", "Ã©"], [("1", "2"), ("Ã", "©")])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    vocab = vocab_of(backend)
    names = {text: index for index, text in enumerate(vocab.text)}
    assert vocab.spell([b"12", "é".encode(), b"\xa9\xc3\xa9"]) == [
        [names["1"], names["2"]],
        [names["Ã©"]],
        [names["©"], names["Ã©"]],
    ]


def test_merges_are_pairs_of_ids_in_rank_order(vocabularies, tokenizers):
    vocab = vocabularies["bytelevel-bpe"]
    left, right = vocab.merges[0]
    state = json.loads(tokenizers["bytelevel-bpe"].backend_tokenizer.to_str())
    assert [vocab.text[left], vocab.text[right]] == state["model"]["merges"][0]
    assert vocabularies["unigram"].merges is None
    assert vocabularies["bytelevel-bpe"].scores is None
