"""Bytes of tokens: the document's own, each once, whatever the tokenizer makes of the text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, processors

from tests.evaluation.conftest import letters
from tests.tiny import FAMILIES, LINES, tiny_tokenizer
from tokenadapt.errors import RequestError
from tokenadapt.evaluation import TextEncoder
from tokenadapt.vocab.load import LoadedTokenizer

ENCODERS = {family: TextEncoder.of(LoadedTokenizer("tiny", None, tiny_tokenizer(family))) for family in FAMILIES}


def test_tokens_of_half_a_character_count_their_own_bytes():
    encoder = ENCODERS["bytelevel-bpe"]
    encoded = encoder.encode(["𓀀"])  # in no merge: four tokens of one byte, none valid UTF-8
    assert encoded.nbytes.tolist() == [1, 1, 1, 1]
    assert encoded.exact.all()


def test_special_tokens_in_a_text_are_text():
    encoder = ENCODERS["bytelevel-bpe"]
    encoded = encoder.encode(["</s> a <unk>"])
    assert encoded.exact.all()
    assert encoder.backend.token_to_id("</s>") not in encoded.ids.tolist()
    assert encoder.backend.encode("</s>").ids == [encoder.backend.token_to_id("</s>")]  # and it is left as it was


def test_a_space_that_the_tokenizer_adds_is_not_counted():
    encoder = ENCODERS["sentencepiece-bpe"]
    encoded = encoder.encode(["the dog", "", "x"])
    assert encoded.exact.all()
    sums = [encoded.nbytes[low:high].sum() for low, high in zip(encoded.start[:-1], encoded.start[1:], strict=True)]
    assert sums == [7, 0, 1]


def test_where_bytes_do_not_join_offsets_share_out_the_text():
    made = letters()
    made.normalizer = normalizers.Lowercase()
    encoded = TextEncoder(made, (None, b"a", b"b")).encode(["AbA", "ab"])
    assert encoded.nbytes.tolist() == [1, 1, 1, 1, 1]
    assert encoded.exact.tolist() == [False, True]


def test_text_that_the_tokenizer_drops_still_counts():
    made = letters()  # c is no token: nothing is left of it
    encoded = TextEncoder(made, (None, b"a", b"b")).encode(["acb", "abccc"])
    assert not encoded.exact.any()
    assert encoded.nbytes.tolist() == [1, 2, 1, 4]


def test_truncation_and_padding_of_the_tokenizer_are_put_aside_and_back():
    made = letters()
    made.enable_truncation(2)
    made.enable_padding(length=8, pad_id=2, pad_token="b")
    encoder = TextEncoder(made, (None, b"a", b"b"))
    assert encoder.encode(["aaaa", "b"]).ids.tolist() == [1, 1, 1, 1, 2]
    assert len(made.encode("aaaa").ids) == 8


def test_the_frame_is_what_the_tokenizer_puts_around_a_text():
    made = letters()
    made.post_processor = processors.TemplateProcessing(single="<s> $A <s>", special_tokens=[("<s>", 0)])
    encoder = TextEncoder(made, (None, b"a", b"b"), begin=2)
    assert encoder.frame("as-trained", "causal") == ((0,), ())
    assert encoder.frame("as-trained", "masked") == ((0,), (0,))
    assert encoder.frame("never", "masked") == ((), ())
    bare = TextEncoder(letters(), (None, b"a", b"b"), begin=2)
    assert bare.frame("as-trained", "causal") == ((), ())
    assert bare.frame("always", "causal") == ((2,), ())
    with pytest.raises(RequestError, match="neither a begin nor an end"):
        TextEncoder(letters(), (None, b"a", b"b")).frame("always", "causal")


text = st.text(
    alphabet=st.one_of(st.sampled_from("".join(LINES) + " \n\t<>"), st.characters(codec="utf-8")), max_size=30
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=50, deadline=None)
@given(st.lists(text, max_size=3))
def test_every_byte_belongs_to_one_token(family, texts):
    encoded = ENCODERS[family].encode(texts)
    assert (encoded.nbytes >= 0).all()
    for index, one in enumerate(texts):
        low, high = encoded.start[index], encoded.start[index + 1]
        assert encoded.nbytes[low:high].sum() == (len(one.encode()) if high > low else 0)
    if family == "bytelevel-bpe":
        assert encoded.exact.all()
    assert len(encoded.exact) == len(texts)
    assert np.array_equal(encoded.document_of(), np.repeat(np.arange(len(texts)), np.diff(encoded.start)))
