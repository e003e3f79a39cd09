import numpy as np
import pytest
import torch

from tests.methods.problems import make_problem
from tests.test_model import source
from tests.tiny import tiny_model
from tokenadapt.errors import RequestError
from tokenadapt.finishing import add_bias, bias_direction, calibrate_norms
from tokenadapt.forward import Sampling
from tokenadapt.methods import Chosen
from tokenadapt.methods.make import make_rows, run
from tokenadapt.plan import missing_rows
from tokenadapt.unused import unused_bias, unused_rows


def rows_of(problem, made):
    return missing_rows(problem.table, made, 0, len(problem.alignment.missing))


@pytest.mark.parametrize("method", ["pieces", "normal"])
def test_calibrated_rows_lie_as_far_from_the_mean_as_copied_rows(method):
    problem = make_problem()
    made = make_rows(problem, Chosen(method))
    calibrated = calibrate_norms(problem, made)
    assert type(calibrated) is type(made)
    mean = problem.table.tensor[1:].mean(0)
    copied = problem.table.tensor[problem.alignment.source_id[problem.alignment.source_id >= 0]]
    goal = np.median((copied - mean).norm(dim=1).numpy())
    before, after = (rows_of(problem, plan) - mean for plan in (made, calibrated))
    live = before.norm(dim=1) > 1e-4  # the row that is the mean itself has no direction
    assert after.norm(dim=1)[live].numpy() == pytest.approx(goal, rel=1e-4)
    assert torch.cosine_similarity(before[live], after[live]).numpy() == pytest.approx(1, abs=1e-4)
    assert after[~live].abs().max() < 1e-4 if (~live).any() else True
    torch.testing.assert_close(rows_of(problem, calibrate_norms(problem, calibrated)), rows_of(problem, calibrated))


def test_norms_may_follow_the_number_of_bytes():
    letters = [bytes([c]) for c in range(97, 123)] + [bytes([c]) for c in range(65, 91)]
    pairs = [a + b"!" for a in letters]
    old = (*letters, *pairs, b"!")
    new = (*letters, *pairs, b"a?b"[:1] + b"b", b"abc")
    table = torch.nn.functional.normalize(torch.randn(len(old), 8, generator=torch.Generator().manual_seed(1)), dim=1)
    table[: len(letters)] *= 3
    problem = make_problem(old=old, new=new, table=table)
    rows = rows_of(problem, calibrate_norms(problem, run(problem, Chosen("pieces")), by="bytes"))
    mean = table.double().mean(0).float()
    two = np.median((table[len(letters) : -1] - mean).norm(dim=1).numpy())
    every = np.median((table[:-1] - mean).norm(dim=1).numpy())
    assert (rows - mean).norm(dim=1).numpy() == pytest.approx([two, every], rel=1e-4)


def test_nothing_copied_takes_the_old_rows_own_norms():
    problem = make_problem(new=(b"there",))
    rows = rows_of(problem, calibrate_norms(problem, run(problem, Chosen("pieces"))))
    mean = problem.table.tensor[1:].mean(0)
    goal = np.median((problem.table.tensor[1:] - mean).norm(dim=1).numpy())
    assert float((rows[0] - mean).norm()) == pytest.approx(goal, rel=1e-4)


def states_around(direction, count=4000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return direction + torch.randn(count, len(direction), generator=generator) * 0.5


def test_the_bias_direction_gives_one_at_every_state():
    base = torch.zeros(16)
    base[3] = 40.0
    u = bias_direction(states_around(base))
    product = states_around(base, seed=1) @ u
    assert product.mean().item() == pytest.approx(1, abs=0.01)
    assert product.std().item() < 0.03
    worked = bias_direction(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), eps=0.0)
    assert worked.tolist() == pytest.approx([1.0, 0.0])  # both states have a first entry of 1


class Told:
    tied, ready = True, True

    def __init__(self, states):
        self.states = states

    def final_states(self):
        return self.states


@pytest.mark.parametrize("method", ["pieces", "normal"])
def test_a_bias_per_piece_lowers_the_logit_by_that_much(method):
    base = torch.zeros(8)
    base[0] = 20.0
    states = states_around(base, 2000) / torch.tensor([1, *[50] * 7])
    problem = make_problem(role="output", model=Told(states))
    made = run(problem, Chosen(method))
    change = (rows_of(problem, add_bias(problem, made, -2.0)) - rows_of(problem, made)) @ states.mean(0)
    further = np.maximum(0, problem.segmentation.counts - 1)
    np.testing.assert_allclose(change.numpy(), -2.0 * further, atol=0.02)
    with pytest.raises(RequestError, match="needs the source model"):
        add_bias(make_problem(), made, -2.0)


def test_a_bias_goes_on_top_of_calibrated_norms_only():
    problem = make_problem(role="output", model=Told(states_around(torch.full((8,), 5.0))))
    made = add_bias(problem, calibrate_norms(problem, run(problem, Chosen("pieces"))), -1.0)
    with pytest.raises(ValueError, match="before adding a bias"):
        calibrate_norms(problem, made)
    with pytest.raises(ValueError, match="bias already"):
        add_bias(problem, made, -1.0)


def leaning(rows=80, width=32, tied=True):
    """A tiny model whose states share a direction, as those of trained models do."""
    model = tiny_model(rows, tied=tied, width=width)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] += 0.3
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_unused_ids_are_never_chosen(tmp_path, tied):
    model = leaning(tied=tied)
    ours = source(tmp_path, model, sampling=Sampling(texts=16, tokens=40))
    output = model.get_output_embeddings().weight.data
    states = ours.final_states()
    assert (states @ bias_direction(states)).mean().item() == pytest.approx(1, abs=0.05)
    old = tuple(b"%d" % i for i in range(80))
    problem = make_problem(old=old, role="output", table=output, model=ours)
    row = unused_rows(problem, tied=tied)
    fifty = torch.cat([output, row.expand(50, -1)])
    probability = (states @ fifty.T).softmax(1)[:, 80:].sum(1)
    assert probability.max().item() < 1e-4
    assert (states @ torch.cat([output, torch.zeros(50, 32)]).T).softmax(1)[:, 80:].sum(1).max() > 1e-2


def test_the_input_row_of_unused_ids_is_the_mean():
    problem = make_problem(role="input")
    torch.testing.assert_close(unused_rows(problem), problem.table.tensor[1:].mean(0))


def test_without_states_the_rows_farthest_along_the_mean_row_are_taken():
    table = torch.randn(100, 8, generator=torch.Generator().manual_seed(2)) * 0.1
    table[:, 0] += torch.linspace(0, 1, 100)  # training pushed the last ones farthest
    old = tuple(b"%d" % i for i in range(100))
    row = unused_rows(make_problem(old=old, role="output", table=table))
    assert row[0] > 0.85
    model = Told(None)
    model.ready = False  # samples are not made for this alone
    assert torch.equal(unused_rows(make_problem(old=old, role="output", table=table, model=model)), row)


def test_a_row_that_cannot_be_lowered_everywhere_is_left_at_its_best():
    states = torch.nn.functional.normalize(torch.randn(500, 8, generator=torch.Generator().manual_seed(3)), dim=1) * 9
    problem = make_problem(role="output", model=Told(states))
    row = unused_rows(problem)
    assert torch.isfinite(row).all()
    logits = states @ torch.cat([problem.table.tensor, row[None]]).T
    assert logits.softmax(1)[:, -1].max() < 0.9


def test_the_bias_of_an_unused_id_is_below_every_other():
    assert unused_bias(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float16)) == -25.0
