"""Missing tokens cut into old pieces: the source's own cut, the fewest pieces otherwise, bytes exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import FAMILIES, tiny_tokenizer
from tests.vocab.conftest import loaded
from tests.vocab.words import letters_vocab
from tokenadapt.vocab import align, byte_vocab, segment
from tokenadapt.vocab.segment import Fewest
from tokenadapt.vocab.types import Kind


def cut(source, target, **options):
    """Target spelling -> bytes of its pieces, lengths, and its own length."""
    alignment = align(source, target, **options)
    made = segment(source, target, alignment)
    runs = {}
    for row, index in enumerate(alignment.missing):
        run = slice(made.start[row], made.start[row + 1])
        pieces = [source.token_bytes[piece] for piece in made.piece[run]]
        runs[target.token_bytes[index]] = (pieces, made.length[run].tolist(), int(made.token_length[row]))
    return runs


SINGLE = [bytes([byte]) for byte in b"abc 12"]


def test_the_sources_own_merges_cut():
    """abc is a+bc, since bc merges first, although ab is a token too; the fewest tokens would not tell them apart."""
    source = letters_vocab([*SINGLE, b"ab", b"bc"], [(b"b", b"c"), (b"a", b"b")])
    assert cut(source, letters_vocab([b"abc", b"abcab"])) == {
        b"abc": ([b"a", b"bc"], [1, 2], 3),
        b"abcab": ([b"a", b"bc", b"ab"], [1, 2, 2], 5),
    }


def test_the_pre_tokeniser_cuts_first():
    """Trap 13: the source reads digits one by one; so it reads those of a target that groups them."""
    source = letters_vocab([*SINGLE, b"12"], [(b"1", b"2")], digits=True)
    assert cut(source, letters_vocab([b"121"])) == {b"121": ([b"1", b"2", b"1"], [1, 1, 1], 3)}


def test_the_fewest_tokens_where_the_model_cannot_spell():
    """No merge makes `aab`; the fewest are found, longest first among equals: aa+bb, not a+abb."""
    source = letters_vocab([b"a", b"b", b"aa", b"abb", b"bb"], special={"unk_token": "<unk>"})
    ids = {data: index for index, data in enumerate(source.token_bytes) if data}
    assert Fewest(ids).cut(b"aabb") == [2, 4]
    assert Fewest(ids).cut(b"aac") == []
    assert Fewest(ids).cut(b"") == []


def test_lengths_are_bytes_where_a_piece_is_not_text():
    """é cut in the middle: three bytes in all; `éa` cut between characters: two code points."""
    source = letters_vocab([b"a", "é".encode(), b"\xc3", b"\xa9"], [])
    whole = letters_vocab([b"a", "é".encode(), b"\xc3", b"\xa9"], [(b"\xc3", b"\xa9")])
    target = letters_vocab(["éa".encode()])
    assert cut(source, target) == {"éa".encode(): ([b"\xc3", b"\xa9", b"a"], [1, 1, 1], 3)}
    assert cut(whole, target) == {"éa".encode(): (["é".encode(), b"a"], [1, 1], 2)}


def test_bytes_that_no_old_token_has_leave_an_empty_run():
    source = letters_vocab([b"a"])
    assert cut(source, letters_vocab([b"\xff", b"aza", "éé".encode()])) == {
        b"\xff": ([], [], 1), b"aza": ([], [], 3), "éé".encode(): ([], [], 2),
    }  # fmt: skip


def test_tokens_of_several_words():
    source = letters_vocab([*SINGLE, b" a", b"bc"], [(b" ", b"a"), (b"b", b"c")])
    assert cut(source, letters_vocab([b"bc a bc"])) == {b"bc a bc": ([b"bc", b" a", b" ", b"bc"], [2, 2, 1, 2], 7)}


def test_added_and_special_tokens_are_no_pieces():
    source = letters_vocab([b"<", b"t", b">"], added=("<t>",), more=("tt",))
    assert cut(source, letters_vocab([b"<t>tt"])) == {b"<t>tt": ([b"<", b"t", b">", b"t", b"t"], [1] * 5, 5)}


def test_ids_beyond_the_table_are_no_pieces():
    source = letters_vocab([b"a", b"b", b"ab"], [(b"a", b"b")])
    target = letters_vocab([b"abab"])
    assert cut(source, target)[b"abab"][0] == [b"ab", b"ab"]
    assert cut(source, target, source_rows=2)[b"abab"][0] == [b"a", b"b", b"a", b"b"]


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.sets(
        st.binary(min_size=1, max_size=4).map(lambda data: bytes(byte % 3 + 97 for byte in data)), max_size=12
    ),
    data=st.binary(max_size=9).map(lambda data: bytes(byte % 3 + 97 for byte in data)),
)
def test_fewest_against_trying_everything(tokens, data):
    ids = {token: index for index, token in enumerate(sorted(tokens))}

    def every(rest):
        if not rest:
            return [[]]
        return [[token, *tail] for token in ids if rest.startswith(token) for tail in every(rest[len(token) :])]

    names = sorted(tokens)
    found = [names[index] for index in Fewest(ids).cut(data)]
    ways = every(data)
    best = min(ways, key=lambda way: (len(way), [-len(token) for token in way]), default=[])
    assert found == best


@pytest.mark.parametrize("new", FAMILIES)
@pytest.mark.parametrize("old", FAMILIES)
def test_pieces_join_to_the_bytes_of_the_token_in_every_pair_of_families(old, new, vocabularies):
    source = vocabularies[old]
    lines = (
        "the quick foxes jumped, 12345 naïve Straßen 你好吗 été",
        "of the and the end of the dog",
        "\t\tx  =  y\n\n",
    )
    target = byte_vocab(loaded(tiny_tokenizer(new, 500, lines)))
    assert_exact(source, target)


def assert_exact(source, target):
    alignment = align(source, target)
    made = segment(source, target, alignment)
    assert len(made.counts) == len(alignment.missing) > 0
    for row, index in enumerate(alignment.missing):
        run = slice(made.start[row], made.start[row + 1])
        pieces, data = made.piece[run], target.token_bytes[index]
        if len(pieces):
            assert b"".join(source.token_bytes[piece] for piece in pieces) == data
            assert made.length[run].sum() == made.token_length[row]
            assert np.isin(source.kind[pieces], (Kind.ORDINARY, Kind.BYTE)).all()
        else:
            single = {token for token in source.token_bytes if token}
            assert not spellable(data, single)


def spellable(data, tokens) -> bool:
    reached = {0}
    for start in range(len(data)):
        if start in reached:
            reached |= {end for end in range(start + 1, len(data) + 1) if data[start:end] in tokens}
    return len(data) in reached


@pytest.mark.real
@pytest.mark.parametrize(
    ("old", "new", "copied", "missing", "mean"),
    [("smollm2", "qwen3", 39237, 112421, 3.14), ("qwen3", "gpt4o", 98864, 101135, 2.72)],
)
def test_real_pairs(old, new, copied, missing, mean, real_vocab):
    """Figures of an independent prototype for the first pair."""
    source, target = real_vocab(old), real_vocab(new)
    alignment = align(source, target)
    counts, made = alignment.counts(), segment(source, target, alignment)
    assert counts["copied"] + counts["special"] == copied
    assert counts["missing"] == missing
    assert made.counts[made.counts > 0].mean() == pytest.approx(mean, abs=0.01)


@pytest.mark.real
@pytest.mark.parametrize(
    ("old", "new"),
    [("mistral-v1", "qwen3"), ("j2-unigram", "llama3"), ("bert", "gpt2"), ("gpt2", "bert"), ("gemma3", "llama3")],
)
def test_real_pieces_join_exactly(old, new, real_vocab):
    assert_exact(real_vocab(old), real_vocab(new))
