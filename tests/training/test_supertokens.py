"""Two-stage supertokens: equal to plain BPE where they must be, to an independent trainer, and within their rules."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import story
from tokenadapt.documents import Document
from tokenadapt.training.bpe import ALPHABET, Merges, train_words
from tokenadapt.training.counts import Counts, Cut
from tokenadapt.training.presets import PRESETS, digit_pattern, stretch_state, word_state
from tokenadapt.training.supertokens import TwoStage, is_allowed, reachable, train_two_stage, whole_graphemes
from tokenadapt.training.symbols import FIRST_SYMBOL, rewrite
from tokenadapt.vocab.letters import from_letters, to_letters


def counted(cut: Cut, *texts: str) -> Counts:
    counts = Counts(cut)
    counts.add(Document(text, "", "", 1) for text in texts)
    return counts


def apply(merges, tokens: list[str]) -> list[str]:
    """BPE by definition: the best-ranked pair, leftmost first, until none is left."""
    rank = {merge: index for index, merge in enumerate(merges)}
    while True:
        pairs = [(rank[pair], at) for at, pair in enumerate(itertools.pairwise(tokens)) if pair in rank]
        if not pairs:
            return tokens
        _, at = min(pairs)
        tokens = [*tokens[:at], tokens[at] + tokens[at + 1], *tokens[at + 2 :]]


def oracle(first: Merges, pieces: Counter[str], more: int, least: int) -> list[tuple[str, str]]:
    """An independent trainer: recount everything after every merge; ties go to the pair of lowest ids."""
    words = [(apply(first.merges, list(to_letters(piece.encode()))), count) for piece, count in pieces.items()]
    order = {token: index for index, token in enumerate(first.tokens)}
    learnt: list[tuple[str, str]] = []
    while len(order) < len(first.tokens) + more:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words:
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], order[pair[0]], order[pair[1]]))
        if pairs[best] < least:
            break
        learnt.append(best)
        order.setdefault("".join(best), len(order))
        words = [(_merged(word, best), count) for word, count in words]
    return learnt


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


@pytest.mark.parametrize("preset", PRESETS)
def test_with_words_kept_in_both_stages_it_is_plain_bpe_merge_for_merge(preset):
    words = Cut("word", word_state(preset))
    counts = counted(words, story(400))
    plain = train_words(counts, 600)
    both, first = train_two_stage(counts, words, 600, TwoStage(transition=0.5, max_words=99))
    assert first == 300
    assert both.merges == plain.merges
    assert len(plain.merges) > 120


@pytest.mark.parametrize("seed", range(3))
def test_the_second_stage_agrees_with_an_independent_trainer(seed):
    words = Cut("word", word_state("llama3"))
    counts = counted(Cut("stretch", stretch_state()), story(60, seed))
    first = train_words(counts.words(words), 300)
    expected = oracle(first, counts.pieces, 72, 2)  # 60 and the surplus
    # the rules set aside: every merge is kept, so the two lists must be the same
    both, _ = train_two_stage(counts, words, 360, TwoStage(transition=300 / 360, max_words=10**6))
    allowed = Merges(ALPHABET, (*first.merges, *expected)).without(
        lambda token: token not in first.tokens and not is_allowed(from_letters(token), 10**6)
    )
    assert both.merges == reachable(allowed).first(360).merges
    assert sum(len(from_letters(left + right).split()) > 1 for left, right in both.merges) > 10


def test_rewriting_is_bpe_over_the_whole_stretch():
    words = Cut("word", word_state(r"\s+|\S+\s?"))  # words that end in a space
    counts = counted(Cut("stretch", stretch_state()), story(80))
    model = train_words(counts.words(words), 400)
    assert any("Ġ" in token[1:] for token in model.tokens)
    tokens = model.tokens
    text = rewrite(model, counts).symbols.tobytes().decode("utf-32-le").split("\n")
    for (piece, _), symbols in zip(counts.ordered(), text, strict=False):
        assert [tokens[ord(s) - FIRST_SYMBOL] for s in symbols] == apply(model.merges, list(to_letters(piece.encode())))


@pytest.fixture(scope="module")
def model():
    words = Cut("word", word_state("llama3"))
    counts = counted(Cut("stretch", stretch_state()), story(500) + "note: the end: of the day: " * 50)
    return train_two_stage(counts, words, 700, TwoStage(transition=0.6, max_words=3))[0]


def test_supertokens_keep_their_rules(model):
    supertokens = [data for data in map(from_letters, model.tokens) if len(data.decode(errors="replace").split()) > 1]
    assert len(supertokens) > 30
    for data in supertokens:
        text = data.decode()
        assert len(text.split()) <= 3
        assert not set(text) & set("\n\r0123456789")
        assert ": " not in text
    assert len(set(model.tokens)) == len(model.tokens) == len(model.letters) + len(model.merges)


def test_every_token_is_made_of_its_own_bytes(model):
    for token in model.tokens:
        assert apply(model.merges, list(token)) == [token]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("of the", True), ("e\u0301 x", True), ("\u0301 x", False), ("x \u200d", False), ("नम स्ते", True),
        ("ि क", False), ("a 🇩🇪", True), ("a 🇩", False), ("\u0600 a", True), ("a \u0600", False), ("👩‍👩 x", True),
    ],
)  # fmt: skip
def test_whole_graphemes(text, whole):
    assert whole_graphemes(text.encode()) is whole


def test_parts_of_characters_are_no_graphemes():
    assert not whole_graphemes(b"a \xe2\x82")
    assert is_allowed(b"\xe2\x82", 1)
    assert not is_allowed(b"a b c", 2)
    assert not is_allowed(b"Answer: x", 4)
    assert is_allowed(b' ."\n', 1)
    assert not is_allowed(b"end.\n", 4)
    assert not is_allowed(b"} }\n", 4)


@given(st.text(alphabet=st.sampled_from("aB1 :\n\r\té१ नि👍.,"), max_size=600))
@settings(max_examples=60, deadline=None)
def test_stretches_are_bounded_and_cut_where_they_must(text):
    pieces = list(Cut("stretch", stretch_state())
                  .pieces()(text))  # fmt: skip
    assert "".join(pieces) == text
    for piece in pieces:
        assert len(piece.rstrip("\r\n")) <= 257
        assert ": " not in piece
        body = piece.rstrip("\r\n")
        assert not set(body) & set("\r\n")
        assert body in ("", piece) or not body[-1].isalnum()
        digits = [char.isnumeric() for char in piece]
        assert not any(digits) or (all(digits) and len(piece) <= 3)


def test_a_long_stretch_is_cut_before_a_blank():
    pieces = list(Cut("stretch", stretch_state()).pieces()("abcdefg " * 100))
    assert all(piece.startswith(" ") for piece in pieces[1:])
    assert max(map(len, pieces)) <= 256


@pytest.mark.parametrize(
    ("preset", "digits"),
    [("gpt2", r" ?\p{N}+"), ("llama3", r"\p{N}{1,3}"), ("qwen2", r"\p{N}"), ("gpt4o", r"\p{N}{1,3}")],
)
def test_stretches_group_digits_as_the_words_did(preset, digits):
    assert digit_pattern(word_state(preset)) == digits
    split = Cut("stretch", stretch_state(digits)).pieces()
    same = Cut("word", word_state(preset)).pieces()
    for text in ("abc 1234567 def", "x12y3456", "1 22 333 4444"):
        assert [p for p in split(text) if any(map(str.isdigit, p))] == [
            p for p in same(text) if any(map(str.isdigit, p))
        ]
