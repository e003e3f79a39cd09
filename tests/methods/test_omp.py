"""Batch orthogonal matching pursuit against the plain algorithm, one target at a time."""

import numpy as np
import pytest
import torch

from tests.methods.problems import NEW, OLD, TinyDonor, byte_vocab, make_problem
from tokenadapt.methods import Chosen
from tokenadapt.methods.make import run
from tokenadapt.methods.pursuit import pursue
from tokenadapt.plan import missing_rows


def plain(atoms, target, k):
    """The textbook loop with a least-squares fit at each step: {atom: coefficient}."""
    chosen, rest = [], target.copy()
    coefficients = np.zeros(0)
    for _ in range(min(k, *atoms.shape)):
        score = np.abs(atoms @ rest)
        score[chosen] = -1
        best = int(score.argmax())
        if score[best] <= 1e-5 * np.linalg.norm(target) * np.linalg.norm(atoms[best]):
            break
        chosen.append(best)
        coefficients = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
        rest = target - atoms[chosen].T @ coefficients
    return dict(zip(chosen, coefficients, strict=True))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("use_gram", [False, True], ids=["residuals", "gram"])
@pytest.mark.parametrize(("count", "width", "k"), [(200, 48, 16), (30, 16, 16), (12, 40, 64), (64, 64, 5)])
def test_equals_the_plain_algorithm(count, width, k, use_gram, monkeypatch):
    monkeypatch.setattr("tokenadapt.methods.pursuit.BLOCK_BYTES", 4 * count * 7)  # seven targets a block
    atoms = torch.nn.functional.normalize(normal(count, width), dim=1)
    targets = normal(20, width, seed=1)
    found = pursue(atoms, targets, k, use_gram=use_gram)
    for j, target in enumerate(targets):
        want = plain(atoms.double().numpy(), target.double().numpy(), k)
        used = int(found.count[j])
        assert found.atom[j, :used].tolist() == list(want)
        np.testing.assert_allclose(found.weight[j, :used].numpy(), list(want.values()), atol=1e-4, rtol=1e-4)


def test_a_sum_of_few_atoms_is_found_and_nothing_more():
    atoms = torch.nn.functional.normalize(normal(100, 64), dim=1)
    target = 2 * atoms[7] - 0.5 * atoms[31]
    found = pursue(atoms, target[None], 10)
    assert int(found.count[0]) == 2
    assert dict(zip(found.atom[0, :2].tolist(), found.weight[0, :2].tolist(), strict=True)) == pytest.approx(
        {7: 2.0, 31: -0.5}, abs=1e-4
    )
    assert (found.weight[0, 2:] == 0).all()


def test_zero_targets_zero_atoms_and_twins_are_harmless():
    atoms = torch.nn.functional.normalize(normal(20, 8), dim=1)
    atoms = torch.cat([atoms, atoms[:5], torch.zeros(3, 8)])
    targets = torch.cat([torch.zeros(1, 8), atoms[:5] * 3, normal(10, 8, seed=2)])
    for use_gram in (False, True):
        found = pursue(atoms, targets, 8, use_gram=use_gram)
        assert torch.isfinite(found.weight).all()
        assert found.weight.abs().max() < 1e3
        assert int(found.count[0]) == 0
        assert found.count[1:6].tolist() == [1] * 5
        assert int(found.count.max()) <= 8
        assert (found.atom[found.weight != 0] < 25).all()


def test_unit_atoms_pick_the_likeliest_row_where_raw_ones_pick_the_longest():
    old, new = (b"a", b"b"), (b"a", b"b", b"ab")
    rows = torch.tensor([[1.0, 0.0], [6.0, 8.0], [1.0, 0.1]])  # b is ten times as long
    donor = TinyDonor(byte_vocab(new), rows)
    table = torch.tensor([[1.0, 2.0], [30.0, 40.0]])
    problem = make_problem(old=old, new=new, table=table, donor=donor)
    unit = run(problem, Chosen("omp", {"k": 1}))
    assert (unit.source_id.tolist(), unit.weight.tolist()) == ([0], pytest.approx([1.0]))
    raw = run(problem, Chosen("omp", {"k": 1, "atoms": "raw"}))
    assert (raw.source_id.tolist(), raw.weight.tolist()) == ([1], pytest.approx([6.8 / 100]))


@pytest.mark.parametrize("atoms", ["unit", "raw", "centred"])
def test_rows_of_a_linear_twin_are_recovered(atoms):
    """Where the source's table is a linear image of the donor's, enough atoms give the image of the row."""
    tokens = tuple(bytes([c]) for c in range(97, 123))
    new = (*tokens, b"ab", b"cd", b"xyz")
    donor_rows = normal(29, 6)
    image, shift = normal(6, 8, seed=4), normal(8, seed=5)
    shift = shift if atoms == "centred" else torch.zeros(8)
    problem = make_problem(
        old=tokens, new=new, table=donor_rows[:26] @ image + shift, donor=TinyDonor(byte_vocab(new), donor_rows)
    )
    made = run(problem, Chosen("omp", {"k": 64, "atoms": atoms}))
    rows = missing_rows(problem.table, made, 0, 3)
    torch.testing.assert_close(rows, donor_rows[26:] @ image + shift, rtol=1e-3, atol=1e-3)


def test_the_row_it_was_made_from_by_hand():
    rows = normal(len(NEW) + 4, 16)
    new = (*NEW, *(token for token in (b"t", b"h", b"e", b"r")))
    donor = TinyDonor(byte_vocab(new), rows)
    rows[new.index(b"there")] = 2 * rows[new.index(b"ing")]
    plan = run(make_problem(new=new, donor=donor), Chosen("omp", {"k": 3}))
    assert (plan.source_id[: plan.start[1]].tolist(), plan.weight[: plan.start[1]].tolist()) == (
        [OLD.index(b"ing")],
        pytest.approx([2.0]),
    )
