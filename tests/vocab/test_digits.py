"""Digit policy, trap 13: what the tokenizer does with numbers, and where two tokenizers differ."""

from __future__ import annotations

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.vocab.conftest import loaded
from tokenadapt.vocab import byte_vocab, digit_policy, digits_differ
from tokenadapt.vocab.letters import LETTER_OF_BYTE


def grouping(cut: str | None, size: int = 3):
    """A byte-level tokenizer that knows every number up to `size` digits and cuts digits by a pattern."""
    numbers = [f"{value:0{width}d}" for width in range(2, size + 1) for value in range(10**width)]
    vocab = {token: index for index, token in enumerate([*LETTER_OF_BYTE, *numbers])}
    merges = [(number[:-1], number[-1]) for number in numbers]
    backend = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    split = [pre_tokenizers.Split(Regex(cut), "isolated")] if cut else []
    tail = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, tail])
    return byte_vocab(loaded(PreTrainedTokenizerFast(tokenizer_object=backend)))


POLICIES = {
    r"\d": ("one digit at a time", 1),
    r"\d{1,3}": ("in groups of 3 from the left", 3),
    r"\d{1,2}": ("in groups of 2 from the left", 2),
    r"\d{1,3}(?=(?:\d{3})*(?!\d))": ("in groups of 3 from the right", 3),
}


@pytest.mark.parametrize("cut", POLICIES)
def test_policies(cut):
    policy = digit_policy(grouping(cut))
    assert (policy.rule, policy.longest) == POLICIES[cut]
    assert len(policy.tokens) == 1100
    assert "1,100" in str(policy)


def test_without_a_cut_merges_decide():
    """Lower pairs merge first, so that where groups begin depends on the digits."""
    assert digit_policy(grouping(None)).rule == "by merges"


def test_a_vocabulary_without_digits():
    vocab = byte_vocab(loaded(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"x": 0}, [])))))
    assert (digit_policy(vocab).rule, digit_policy(vocab).longest) == ("not at all", 0)


def test_differing_policies_are_told():
    single, triples = grouping(r"\d"), grouping(r"\d{1,3}")
    assert digits_differ(single, single) is None
    said = digits_differ(single, triples)
    assert said is not None
    assert "one digit at a time by the source" in said
    assert "groups of 3 from the left by the target" in said
    assert "1,100 number tokens" in said


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("smollm2", "one digit at a time"),
        ("qwen3", "one digit at a time"),
        ("gemma3", "one digit at a time"),
        ("llama3", "in groups of 3 from the left"),
        ("deepseek", "in groups of 3 from the left"),
        ("gpt2", "by merges"),
        ("bert", "by merges"),
    ],
)
def test_real_policies(name, rule, real_vocab):
    assert digit_policy(real_vocab(name)).rule == rule
