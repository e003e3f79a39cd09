"""Stochastic supertokens: seeded cuts, checked distributions, whole graphemes, bounded stretches."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest
import regex

from tests.training.conftest import story
from tests.training.test_counts import counted
from tokenadapt.errors import RequestError
from tokenadapt.training.counts import Counts, Cut
from tokenadapt.training.presets import stretch_state, word_state
from tokenadapt.training.stochastic import PUBLISHED, Chunks, read_lengths

WORDS = Cut("word", word_state("llama3"))


def chunks(text: str, entries=(), unit="characters", seed=0, cut=None) -> Counts:
    stretches = counted(text, cut or Cut("stretch", stretch_state()))
    return Chunks(WORDS, read_lengths(entries, unit), unit, seed).counts(stretches)


def test_the_published_lengths_sum_to_more_than_one_and_are_divided_by_it():
    assert sum(float(entry.split("=")[1]) for entry in PUBLISHED) == pytest.approx(1.1)
    lengths = read_lengths((), "characters")
    assert sum(lengths.share) == pytest.approx(1)
    drawn = lengths.draw(100_000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(12.6, abs=0.1)
    assert (drawn.min(), drawn.max()) == (4, 23)
    assert np.mean((drawn == 12) | (drawn == 13)) == pytest.approx(0.185 / 1.1, abs=0.005)


def test_shares_that_do_not_sum_to_one_are_normalised_with_a_warning(caplog):
    logging.getLogger("tokenadapt").propagate = True
    lengths = read_lengths(("1-2=1", "3=3"), "words")
    assert (lengths.low, lengths.high, lengths.share) == ((1, 3), (2, 3), (0.25, 0.75))
    assert "sum to 4" in caplog.text


@pytest.mark.parametrize("wrong", ["4", "a-b=1", "5-4=1", "0-3=1", "1-2=-1", "1-2=0"])
def test_wrong_lengths_are_refused(wrong):
    with pytest.raises(RequestError):
        read_lengths((wrong,), "characters")


def test_no_text_is_lost_and_every_occurrence_is_cut_anew():
    text = "in the middle of the night we slept " * 40
    found = chunks(text + "\n").pieces
    assert sum(len(piece) * count for piece, count in found.items()) == len(text) + 1
    assert len(found) > 40


def test_the_seed_decides_and_the_order_of_the_corpus_does_not():
    text = story(40)
    assert chunks(text, seed=1).pieces == chunks(text, seed=1).pieces != chunks(text, seed=2).pieces
    lines = text.splitlines(keepends=True)
    forward, back = counted(text, Cut("stretch", stretch_state())), Counts(Cut("stretch", stretch_state()))
    back.pieces = Counter(dict(reversed(forward.pieces.items())))
    made = [Chunks(WORDS, read_lengths((), "characters"), "characters", 5).counts(c).pieces for c in (forward, back)]
    assert made[0] == made[1]
    assert lines


def test_lengths_are_those_of_the_distribution():
    found = chunks("abcdefghij" * 20, ("5=1",)).pieces
    assert set(map(len, found)) == {5}


def test_cuts_are_never_inside_a_grapheme():
    text = "नमस्ते 👩‍👩‍👧‍👦🇩🇪e\u0301 क्षत्रिय " * 60
    whole = Counter(regex.findall(r"\X", text))
    for unit, entries in (("characters", ("1-2=1",)), ("words", ("1=1",))):
        found = chunks(text, entries, unit).pieces
        parts: Counter[str] = Counter()
        for piece, count in found.items():
            for grapheme in regex.findall(r"\X", piece):
                parts[grapheme] += count
        assert parts == whole


def test_words_stay_whole_where_lengths_count_words():
    text = "the quick brown fox jumps over it. " * 30
    allowed = set(WORDS.pieces()(text))
    for piece in chunks(text, ("1-3=1",), "words").pieces:
        assert 1 <= len(list(WORDS.pieces()(piece))) <= 3
        assert set(WORDS.pieces()(piece)) <= allowed


def test_bounded_chunks_keep_to_stretches_and_unbounded_ones_do_not():
    text = "one two\nthree four\n" * 50
    assert not any("\n" in piece.strip("\n") for piece in chunks(text).pieces)
    free = chunks(text, cut=Cut("stretch", None)).pieces
    assert any("\n" in piece.strip("\n") for piece in free)
