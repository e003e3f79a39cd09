"""Trap 17: what normalisers hide is counted."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import LINES
from tests.vocab.conftest import loaded
from tests.vocab.words import letters_vocab, named
from tokenadapt.vocab import byte_vocab
from tokenadapt.vocab.reach import round_trips, unreachable


def test_a_normaliser_makes_tokens_unreachable_and_text_not_come_back():
    """NFKC writes the ligature as two letters, so that its own token never comes up."""
    pieces = [("<unk>", 0.0), ("▁", -3.0), ("f", -2.0), ("i", -2.0), ("a", -2.0), ("ﬁ", -1.0), ("▁a", -1.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    vocab = byte_vocab(loaded(PreTrainedTokenizerFast(tokenizer_object=backend)))
    assert named(vocab, unreachable(vocab)) == ["ﬁ"]
    assert round_trips(vocab, ["fi a", "ﬁ a", "fi ☃"]) == [True, False, False]


def test_tokens_that_no_merge_makes_are_unreachable():
    vocab = letters_vocab([b"a", b"b", b"ab", b"ba"], [(b"a", b"b")])
    assert named(vocab, unreachable(vocab)) == ["ba"]


@pytest.mark.parametrize("family", ["bytelevel-bpe", "sentencepiece-bpe"])
def test_byte_families_lose_nothing(family, vocabularies):
    assert all(round_trips(vocabularies[family], [*LINES, " x", "☃"]))
