"""`auto` by class of token, where the rule depends on the number of pieces, and with judges of known figures."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import norm

from tests.methods.problems import TinyModel, make_problem
from tests.methods.test_auto import LETTERS, Notes
from tokenadapt.anchors import Anchors, Judge
from tokenadapt.methods import parse_method
from tokenadapt.methods.auto import pick, settled
from tokenadapt.methods.classes import CLASSES, methods_of
from tokenadapt.methods.make import make_rows
from tokenadapt.methods.refine import GROUPS, refine, widened
from tokenadapt.plan import Dense, missing_rows

WIDTH = 8
PAIRS = [a + b for a, b in product(LETTERS[:12], LETTERS[:12])]
TRIPLES = [pair + LETTERS[(7 * place) % 20] for place, pair in enumerate(PAIRS)]


def planted(role):
    """A token of two letters has the row that `ends` makes of theirs, one of three the mean of its letters' rows."""
    letters = torch.randn(len(LETTERS), WIDTH, generator=torch.Generator().manual_seed(3))

    def row(token):
        parts = torch.stack([letters[LETTERS.index(token[at : at + 1])] for at in range(len(token))])
        if len(token) == 2:
            return parts[1] if role == "input" else (2 * parts[0] + parts[1]) / 3
        return parts.mean(0)

    missing = (*PAIRS[::16], b"qrs", b"rst", b"qr", b"st")  # of the last four no old token says how they are cut
    old = (*LETTERS, *[pair for pair in PAIRS if pair not in missing], *TRIPLES)
    table = torch.stack([row(token) for token in old])
    problem = make_problem(old, (*LETTERS, *missing), table=table, role=role, space=None, progress=Notes())
    problem = replace(problem, model=TinyModel(table))
    return replace(problem, score=Judge(Anchors(problem, problem.model, tied=False), problem)), missing, row


@pytest.mark.parametrize("role", ["input", "output"])
def test_tokens_of_two_and_of_three_pieces_each_get_their_rule(role):
    problem, missing, row = planted(role)
    chosen = settled(problem, parse_method("auto:of=ends,in_place=no"))
    methods, which = methods_of(chosen)
    by_class = {kind: methods[place].name for kind, place in zip(CLASSES, which, strict=True)}
    assert (by_class["two_inside"], by_class["three_inside"]) == ("ends", "pieces")
    rows = missing_rows(problem.table, make_rows(problem, parse_method("auto:of=ends,in_place=no")), 0, len(missing))
    for place, token in enumerate(missing):  # in the target's order, which is that of `missing`
        torch.testing.assert_close(rows[place], row(token))
    said = [line for line in problem.progress.lines if "tokens of" in line]
    assert len(said) >= 1
    assert said[0].startswith(f"auto, {role} rows of tokens of ")
    assert any(line.endswith(": taken") for line in said)
    harm = {name: problem.score(name).sum() for name in ("pieces", "ends", str(chosen))}
    assert harm[str(chosen)] < min(harm["pieces"], harm["ends"])


@pytest.mark.parametrize("role", ["input", "output"])
def test_harm_is_put_to_the_class_whose_rows_are_wrong(role):
    problem, _, _ = planted(role)
    judge = problem.score.anchors
    kinds = judge.kinds
    for kind in np.unique(kinds):
        rows = problem.table.rows(judge.hidden).clone()
        rows[kinds == kind] = 0
        found = judge.weigh(problem, Dense(rows))
        assert np.abs(found.shares[:, kind]).sum() > 0.005
        np.testing.assert_allclose(np.delete(found.shares, kind, axis=1), 0, atol=1e-7)
        np.testing.assert_allclose(found.shares.sum(axis=1), found.harm, atol=1e-7)


def test_it_can_be_left_out():
    problem, _, _ = planted("input")
    assert pick(problem, "ends", by_class=False).name in ("ends", "pieces")
    assert parse_method("auto:by_class=no").options == {"by_class": False}


@dataclass
class Figures:
    """A judge whose harm is a sum over classes: `by_method` (classes, texts) each."""

    by_method: dict
    hidden: np.ndarray
    asked: list
    others: float = 0.0  # harm that shares do not foresee, where classes are mixed

    def shares(self, method):
        return np.array(self.by_method[method], dtype=float).T

    def __call__(self, method):
        self.asked.append(method)
        chosen = parse_method(method)
        methods, which = methods_of(chosen) if chosen.name == "classes" else ([chosen], np.zeros(6, int))
        parts = [self.by_method[str(methods[place])][kind] for kind, place in enumerate(which)]
        return np.sum(parts, axis=0) + (self.others if len(methods) > 1 else 0.0)


TEXTS = 16
WAVE = np.tile([1.0, -1.0], TEXTS // 2)


def figures(**levels):
    """Each method's harm by class, with a little of noise that all texts share alike."""
    return {name: [np.full(TEXTS, level) + 0.001 * WAVE for level in harm] for name, harm in levels.items()}


def refined(judge, names, best=0, noise=2.0):
    problem = replace(make_problem(), score=judge, progress=Notes())
    return str(refine(problem, [parse_method(name) for name in names], best, noise))


MANY = np.full(6, 40)


def test_the_best_method_for_each_group_by_hand():
    harm = figures(pieces=[4, 4, 4, 4, 4, 4], ends=[5, 5, 1, 1, 4, 4], length=[4, 4, 3, 3, 2, 2])
    judge = Figures(harm, MANY, [])
    found = refined(judge, ["pieces", "ends", "length"])
    assert found == "classes:rest=pieces,three=ends,three_inside=ends,more=length,more_inside=length"
    assert len(judge.asked) <= 1 + 2 * 3  # three rounds at most


def test_a_beginning_with_a_space_is_a_class_too():
    harm = figures(pieces=[4] * 6, ends=[1, 9, 1, 9, 1, 9])
    found = refined(Figures(harm, MANY, []), ["pieces", "ends"])
    assert found == "classes:rest=ends,two_inside=pieces,three_inside=pieces,more_inside=pieces"


def test_what_chance_could_have_done_is_left():
    harm = figures(pieces=[4] * 6, ends=[4] * 6)
    harm["ends"][2] = harm["pieces"][2] + 2.0 * WAVE - 0.05
    judge = Figures(harm, MANY, [])
    assert refined(judge, ["pieces", "ends"]) == "pieces"
    assert judge.asked == ["pieces"]  # nothing that is not promising is read again
    assert refined(judge, ["pieces", "ends"], noise=0.0) == "pieces"  # even so the best of five must exceed 1.3


def test_a_promise_that_is_not_kept_changes_nothing():
    harm = figures(pieces=[4] * 6, ends=[9, 9, 1, 1, 9, 9])
    judge = Figures(harm, MANY, [], others=7.0)
    assert refined(judge, ["pieces", "ends"]) == "pieces"
    assert len(judge.asked) == 2


def test_groups_of_few_tokens_are_left_alone():
    harm = figures(pieces=[4] * 6, ends=[9, 9, 1, 1, 9, 9])
    few = np.array([40, 40, 9, 9, 40, 40])
    assert refined(Figures(harm, few, []), ["pieces", "ends"]) == "pieces"
    alone = np.array([0, 0, 50, 0, 0, 0])  # the whole is no group
    assert refined(Figures(harm, alone, []), ["pieces", "ends"]) == "pieces"


def test_a_judge_that_knows_no_classes_decides_for_all():
    assert refined(lambda method: np.zeros(3), ["pieces", "ends"], best=1) == "ends"


def test_more_tests_want_more_evidence():
    assert widened(2.0, 1) == pytest.approx(2.0)
    assert norm.sf(widened(2.0, 10)) * 10 == pytest.approx(norm.sf(2.0))
    assert widened(40.0, 10) > 40
    assert all(0 <= kind < len(CLASSES) for kinds in GROUPS.values() for kind in kinds)
