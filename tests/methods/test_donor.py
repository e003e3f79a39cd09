"""Methods that read a donor: clp, sava and the matching of its tokens."""

import numpy as np
import pytest
import torch

from tests.methods.problems import NEW, OLD, TinyDonor, byte_vocab, make_donor, make_problem
from tokenadapt.errors import RequestError
from tokenadapt.methods import Chosen
from tokenadapt.methods.donor import view
from tokenadapt.methods.make import make_rows, run
from tokenadapt.plan import missing_rows

MISSING = [NEW[i] for i in make_problem().alignment.missing]
WIDE = (*NEW, b"t", b"h", b"e", b"r")  # more copied tokens than NEW alone has


def problem_with(**options):
    new = options.pop("new", WIDE)
    return make_problem(new=new, donor=make_donor(new, width=options.pop("donor_width", 5)), **options)


def rows_of(problem, name, **options):
    made = run(problem, Chosen(name, options))
    return missing_rows(problem.table, made, 0, len(problem.alignment.missing))


def anchors(problem):
    """(donor rows, old rows) of the copied tokens, and the donor row of each missing one, by plain look-up."""
    row = {token: i for i, token in enumerate(problem.donor.vocab.token_bytes)}
    table = problem.donor.table(problem.role).tensor
    here, there = [], []
    for index, token in enumerate(problem.target.token_bytes):
        if problem.alignment.source_id[index] >= 0:
            here.append(table[row[token]])
            there.append(problem.table.tensor[problem.alignment.source_id[index]])
    missing = [table[row[problem.target.token_bytes[i]]] for i in problem.alignment.missing]
    return torch.stack(here).double(), torch.stack(there).double(), torch.stack(missing).double()


def test_donor_tokens_are_found_by_bytes_whatever_their_ids():
    problem = problem_with()
    shared = view(problem)
    assert [problem.donor.vocab.token_bytes[i] for i in shared.missing] == MISSING
    assert [problem.donor.vocab.token_bytes[i] for i in shared.anchor] == [OLD[i] for i in shared.source]
    assert len(shared.anchor) == (problem.alignment.source_id >= 0).sum()


@pytest.mark.parametrize("role", ["input", "output"])
def test_clp_equals_the_plain_weighted_mean(role):
    problem = problem_with(role=role, donor_width=4)
    here, there, missing = anchors(problem)
    assert run(problem, Chosen("clp")).empty.mean() < 0.5
    for got, row in zip(rows_of(problem, "clp"), missing, strict=True):
        weight = torch.stack([torch.cosine_similarity(row, other, dim=0) for other in here])
        torch.testing.assert_close(got.double(), (weight[:, None] * there).sum(0) / weight.sum(), rtol=1e-4, atol=1e-5)


def test_truncated_clp_takes_the_nearest_by_hand():
    old, new = (b"a", b"b", b"c"), (b"a", b"b", b"c", b"ab")
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.6, 0.8]])  # a, b, c, ab
    donor = TinyDonor(byte_vocab(new), rows)
    table = torch.tensor([[1.0, 1.0], [3.0, 5.0], [9.0, 9.0]])
    problem = make_problem(old=old, new=new, table=table, donor=donor)
    plan = run(problem, Chosen("clp", {"k": 2}))
    assert dict(zip(plan.source_id.tolist(), plan.weight.tolist(), strict=True)) == pytest.approx(
        {0: 0.6 / 1.4, 1: 0.8 / 1.4}
    )
    every = run(problem, Chosen("clp", {"k": 3}))  # c points away: its weight would be negative
    assert sorted(every.source_id.tolist()) == [0, 1]
    assert rows_of(problem, "clp")[0].tolist() == pytest.approx(
        [(0.6 * 1 + 0.8 * 3 - 0.6 * 9) / 0.8, (0.6 * 1 + 0.8 * 5 - 0.6 * 9) / 0.8], rel=1e-5
    )


def test_sava_recovers_a_true_affine_map():
    problem = problem_with(donor_width=3)
    generator = torch.Generator().manual_seed(0)
    turn, shift = torch.randn(3, 8, generator=generator), torch.randn(8, generator=generator)
    row = {token: i for i, token in enumerate(problem.donor.vocab.token_bytes)}
    donor_rows = problem.donor.table("input").tensor
    table = torch.randn(len(OLD), 8, generator=generator)
    for index, token in enumerate(OLD):
        if token in row:
            table[index] = donor_rows[row[token]] @ turn + shift
    problem = make_problem(new=WIDE, donor=problem.donor, table=table)
    _, _, missing = anchors(problem)
    for standardise in (True, False):
        got = rows_of(problem, "sava", standardise=standardise, ridge=0.0)
        torch.testing.assert_close(got.double(), missing @ turn.double() + shift, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("standardise", [True, False])
def test_sava_equals_numpys_least_squares_and_scipys_procrustes(standardise):
    from scipy.linalg import orthogonal_procrustes

    problem = problem_with(donor_width=8)
    problem = make_problem(new=WIDE, donor=make_donor(WIDE, 8), width=8)
    here, there, missing = (part.numpy() for part in anchors(problem))
    a, b = here.mean(0), there.mean(0)
    s, t = (here.std(0, ddof=1), there.std(0, ddof=1)) if standardise else (1.0, 1.0)
    x, y = (here - a) / s, (there - b) / t
    turn, _ = orthogonal_procrustes(x, y)
    got = rows_of(problem, "sava", map="orthogonal", standardise=standardise)
    np.testing.assert_allclose(got.numpy(), ((missing - a) / s @ turn) * t + b, rtol=1e-3, atol=1e-4)
    strength = 0.1 * (x**2).sum(0).mean()
    ridge = np.linalg.solve(x.T @ x + strength * np.eye(8), x.T @ y)
    got = rows_of(problem, "sava", standardise=standardise, ridge=0.1)
    np.testing.assert_allclose(got.numpy(), ((missing - a) / s @ ridge) * t + b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["clp", "omp", "sava"])
def test_a_token_that_the_donor_lacks_is_left_to_the_fallback(name):
    lacking = tuple(token for token in WIDE if token != b"there")
    problem = make_problem(new=WIDE, donor=make_donor(lacking))
    left = run(problem, Chosen(name)).empty
    assert [MISSING[j] for j in np.flatnonzero(left)] == [b"there"]
    made = make_rows(problem, Chosen(name), Chosen("pieces"))
    M = len(problem.alignment.missing)
    torch.testing.assert_close(
        missing_rows(problem.table, made, 0, M)[0], missing_rows(problem.table, run(problem, Chosen("pieces")), 0, M)[0]
    )


@pytest.mark.parametrize("name", ["clp", "omp", "sava"])
def test_no_donor_is_said_plainly(name):
    with pytest.raises(RequestError, match=f"{name} needs a model that has the target tokenizer"):
        make_rows(make_problem(), Chosen(name))
