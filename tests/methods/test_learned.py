"""`learned`: what old tokens teach about rows and their pieces, on a vocabulary whose rows follow a known rule."""

from dataclasses import replace
from itertools import product

import numpy as np
import torch

from tests.methods.problems import byte_vocab, make_problem
from tokenadapt.methods.halves import spell_by_halves
from tokenadapt.methods.learned import learned, unfinished
from tokenadapt.methods.pieces import pieces
from tokenadapt.plan import Dense, mix

LETTERS = [bytes([code]) for code in b"abcdefghijklmnopqrstuvwx"]
PAIRS = [a + b for a, b in product(LETTERS, LETTERS)]


def ruled_problem(width=6):
    """Letters have random rows; a pair's row is 0.9 first + 0.4 second + a constant. Every 16th pair is missing."""
    drawn = torch.Generator().manual_seed(3)
    missing = PAIRS[::16]
    old = (*LETTERS, *[pair for pair in PAIRS if pair not in missing])
    letters = torch.randn(len(LETTERS), width, generator=drawn)
    constant = torch.randn(width, generator=drawn)

    def row(token):
        if len(token) == 1:
            return letters[LETTERS.index(token)]
        return 0.9 * row(token[:1]) + 0.4 * row(token[1:]) + constant

    table = torch.stack([row(token) for token in old])
    problem = make_problem(old=old, new=(*LETTERS, *missing), table=table)
    return problem, torch.stack([row(token) for token in missing])


def test_a_linear_rule_of_the_old_vocabulary_is_found_and_applied():
    problem, truth = ruled_problem()
    made = learned(problem)
    assert (made.rows - truth).norm() < 0.02 * truth.norm()
    means = mix(problem.table, pieces(problem), 0, len(truth))
    assert (means - truth).norm() > 0.5 * truth.norm()


def test_no_share_of_the_correction_is_the_mean_of_the_pieces():
    problem, truth = ruled_problem()
    means = mix(problem.table, pieces(problem), 0, len(truth))
    torch.testing.assert_close(learned(problem, share=0.0).rows, means)


def test_halves_join_to_the_token_however_deep_they_are_cut():
    tokens = (b"a", b"b", b"ab", b"abab", b"aba", b"abaab", b"x")
    vocab = byte_vocab(tokens)
    for seed in range(5):
        runs = spell_by_halves(vocab, np.arange(len(tokens)), seed=seed)
        assert runs.tokens.tolist() == [2, 3, 4, 5]
        for at, token in enumerate(runs.tokens.tolist()):
            run = runs.piece[runs.start[at] : runs.start[at + 1]].tolist()
            assert len(run) >= 2
            assert b"".join(tokens[piece] for piece in run) == tokens[token]


def test_tokens_outside_the_given_ones_are_never_halves():
    tokens = (b"a", b"b", b"ab", b"abab")
    runs = spell_by_halves(byte_vocab(tokens), np.array([0, 1, 3]), seed=0)
    assert runs.tokens.tolist() == []


def test_some_of_the_runs_keep_their_pieces():
    tokens = (b"a", b"b", b"ab", b"ba", b"abba")
    runs = spell_by_halves(byte_vocab(tokens), np.arange(5), seed=1)
    some = runs.take(np.array([0, 2]))
    for at, whole in enumerate((0, 2)):
        expected = runs.piece[runs.start[whole] : runs.start[whole + 1]]
        assert some.piece[some.start[at] : some.start[at + 1]].tolist() == expected.tolist()


def test_rows_to_read_of_an_unfinished_character_go_towards_its_beginning():
    """The first byte of a character at the end of a token says what must come next; a lone last byte does not."""
    old = (None, b"a", b"\xe0\xa4", b"\xa4", b"\xb5", "é".encode())
    new = (b"a\xe0\xa4", b"a\xb5", "aé".encode(), b"\xe0\xa4a")
    problem = make_problem(old, new, role="input", width=4)
    made = Dense(torch.arange(16.0).reshape(4, 4))
    read = unfinished(problem, made)
    begun = problem.table.tensor[2].float()
    torch.testing.assert_close(read.rows[0], 0.4 * made.rows[0] + 0.6 * begun)
    assert torch.equal(read.rows[1:], made.rows[1:])
    taken = {role: learned(replace(problem, role=role)).rows for role in ("input", "output")}
    torch.testing.assert_close(taken["input"], unfinished(problem, Dense(taken["output"])).rows)
    assert not torch.equal(taken["input"][0], taken["output"][0])
    tied = learned(replace(problem, role="output", tied=True))
    torch.testing.assert_close(tied.rows, taken["input"])


def test_where_no_character_is_cut_rows_stay():
    problem = make_problem((None, b"a", b"b"), (b"ab",), role="input", width=4)
    made = Dense(torch.ones(1, 4))
    assert unfinished(problem, made) is made
