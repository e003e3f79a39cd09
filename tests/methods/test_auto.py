"""`auto`: the method that does least harm where old tokens are hidden, on vocabularies whose rule is known."""

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from tests.methods.problems import TinyModel, make_problem
from tokenadapt.anchors import Anchors
from tokenadapt.errors import RequestError
from tokenadapt.methods import parse_method
from tokenadapt.methods.auto import candidates, pick
from tokenadapt.methods.hiding import hide
from tokenadapt.methods.make import run
from tokenadapt.methods.statistics import spread
from tokenadapt.methods.within import needs_of
from tokenadapt.plan import missing_rows

LETTERS = [bytes([code]) for code in b"abcdefghijklmnopqrst"]
PAIRS = [a + b for a, b in product(LETTERS, LETTERS)]
WIDTH = 8


class Notes:
    """A progress that keeps what is said."""

    def __init__(self):
        self.lines = []

    def note(self, message):
        self.lines.append(message)

    def stage(self, name, total=None, unit=""):
        from contextlib import nullcontext

        return nullcontext(lambda amount: None)


def planted(rule, role="output", **more):
    """A vocabulary of letters and pairs in which `rule` makes a pair's row of those of its letters, exactly."""
    drawn = torch.Generator().manual_seed(3)
    letters = torch.randn(len(LETTERS), WIDTH, generator=drawn)
    constant = torch.randn(WIDTH, generator=drawn)
    missing = PAIRS[::16]
    old = (*LETTERS, *[pair for pair in PAIRS if pair not in missing])
    row = {pair: rule(letters[LETTERS.index(pair[:1])], letters[LETTERS.index(pair[1:])], constant) for pair in PAIRS}
    table = torch.cat([letters, torch.stack([row[pair] for pair in old[len(LETTERS) :]])])
    problem = make_problem(old, (*LETTERS, *missing), table=table, role=role, space=None, **more)
    return judged(replace(problem, model=TinyModel(table))), torch.stack([row[pair] for pair in missing])


def judged(problem, tied=False):
    judge = Anchors(problem, problem.model, tied=tied)
    return replace(problem, score=partial(judge.score, problem))


def by_correction(a, b, constant):
    return 0.9 * a + 0.4 * b + constant


def by_mean(a, b, constant):
    return (a + b) / 2


def by_last(a, b, constant):
    return b


@pytest.mark.parametrize("role", ["input", "output"])
def test_the_rule_that_made_the_vocabulary_is_taken(role):
    problem, truth = planted(by_correction, role, progress=Notes())
    rows = missing_rows(problem.table, run(problem, parse_method("auto:in_place=no")), 0, len(truth))
    assert (rows - truth).norm() < 0.05 * truth.norm()
    said = [line for line in problem.progress.lines if line.startswith("auto")]
    assert [line.split()[4].rstrip(":") for line in said] == ["pieces", "length", "ends", "learned"]
    assert [line.endswith(": taken") for line in said] == [False, False, False, True]
    assert all(f"auto, {role} rows by" in line for line in said)


def test_each_role_has_a_rule_of_its_own():
    assert str(pick(planted(by_last, "input")[0], "ends")) == "ends"  # the last piece alone
    assert str(pick(planted(by_last, "output")[0], "ends")) == "pieces"  # there `ends` puts the first piece first


@pytest.mark.parametrize("role", ["input", "output"])
def test_pieces_stay_where_nothing_is_better(role):
    problem, truth = planted(by_mean, role)
    assert str(pick(problem)) == "pieces"
    assert abs(problem.score("pieces").sum()) < 1e-6  # what is rebuilt exactly costs nothing
    assert problem.score("zero").sum() > 0.01
    rows = missing_rows(problem.table, run(problem, parse_method("auto")), 0, len(truth))
    torch.testing.assert_close(rows, truth)


def test_less_harm_than_noise_does_not_count():
    base, better = np.full(9, 0.3), np.full(9, 0.3) - np.array([1, -1, 1, -1, 1, -1, 1, -1, 0.5]) * 0.1
    figures = {"pieces": base, "length": better}
    problem = replace(make_problem(), score=figures.__getitem__)
    assert str(pick(problem, "length")) == "pieces"
    assert str(pick(problem, "length", noise=0.0)) == "length"
    figures["length"] = base - 0.1
    assert str(pick(problem, "length")) == "length"


def test_the_spread_is_the_standard_error_of_a_sum():
    gain = np.array([0.1, 0.3, 0.2, 0.6])
    assert spread(gain) == pytest.approx(4 * np.std(gain, ddof=1) / np.sqrt(4))
    assert spread(gain[:1]) == spread(gain[:0]) == 0.0


def test_candidates_are_methods_with_their_options():
    assert [str(one) for one in candidates("learned:share=0.5+pieces+ length")] == [
        "pieces",
        "learned:share=0.5",
        "length",
    ]
    with pytest.raises(RequestError, match="no method 'piece'"):
        candidates("length+piece")
    with pytest.raises(RequestError, match="cannot choose itself"):
        candidates("auto")
    assert parse_method("auto:of=learned:share=0.5+ends").options["of"] == "learned:share=0.5+ends"


def test_what_candidates_need_is_needed():
    assert needs_of(parse_method("auto")) == {"model", "space"}
    assert needs_of(parse_method("auto:of=length")) == {"model"}
    assert needs_of(parse_method("auto:of=align+omp")) == {"model", "corpus", "donor"}
    assert needs_of(parse_method("pieces")) == set()


def test_methods_that_write_texts_themselves_may_be_candidates():
    problem, _ = planted(by_correction)
    assert str(pick(problem, "chain+stacked:texts=40")) in ("chain", "stacked:texts=40")
    harm = {name: problem.score(name).sum() for name in ("pieces", "chain", "stacked:texts=40")}
    assert harm["stacked:texts=40"] < harm["pieces"]


def test_without_a_judge_there_is_a_sentence():
    with pytest.raises(RequestError, match="needs a judge"):
        run(replace(make_problem(), model=TinyModel(make_problem().table.tensor)), parse_method("auto"))


def test_the_same_seed_gives_the_same_figures():
    for name in ("pieces", "learned"):
        first, again = (planted(by_correction)[0].score(name) for _ in range(2))
        assert np.array_equal(first, again)
    assert not np.array_equal(planted(by_correction, seed=1)[0].score("pieces"), first)


def test_no_piece_of_a_hidden_token_is_hidden_and_contexts_stay():
    tokens = (b"a", b"b", b"c", b"ab", b"ba", b"abab", b"abba", b"aab", b"abc", b"bc", b"cab")
    vocab = make_problem(tokens, tokens).source
    rng = np.random.default_rng(0)
    for seed in range(8):
        texts = [[0, *rng.integers(0, len(tokens), 40).tolist()] for _ in range(3)]
        runs = hide(vocab, texts, rows=len(tokens), most=1000, seed=seed)
        assert 1 <= len(runs.tokens) <= 3  # a third of the eight that occur
        assert not np.isin(runs.piece, runs.tokens).any()
        assert not np.isin(runs.tokens, [0, 1, 2]).any()
        for at, token in enumerate(runs.tokens.tolist()):
            run = runs.piece[runs.start[at] : runs.start[at + 1]].tolist()
            assert b"".join(tokens[piece] for piece in run) == tokens[token]
    assert len(hide(vocab, texts, rows=len(tokens), most=1, seed=0).tokens) == 1
    assert len(hide(vocab, [[0, 0, 1, 2, 9]], rows=len(tokens), most=9, seed=0).tokens) == 1
    assert len(hide(vocab, [[9, 0, 1]], rows=len(tokens), most=9, seed=0).tokens) == 0  # what begins a text is not said
    assert len(hide(vocab, texts, rows=3, most=9, seed=0).tokens) == 0


def test_two_tokens_of_the_same_bytes_are_not_hidden():
    problem = make_problem((b"a", b"b", b"ab"), (b"a",))
    twin = replace(problem.source, token_bytes=(b"a", b"b", b"ab", b"ab"), kind=np.zeros(4, np.uint8), text=("",) * 4)
    assert hide(problem.source, [[0, 2]], rows=3, most=9, seed=0).tokens.tolist() == [2]
    assert hide(twin, [[0, 2]], rows=4, most=9, seed=0).tokens.tolist() == []
