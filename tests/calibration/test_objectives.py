"""Each objective by hand-made values, finite differences, and its fixed point."""

from __future__ import annotations

import math

import pytest
import torch

from tests.calibration.room import OLD, example, examples, gradients, lesson, speakers, value
from tokenadapt.calibration.examples import Example
from tokenadapt.calibration.objectives.bytes_ import binary_kl
from tokenadapt.calibration.objectives.terms import parse_terms
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.pair import open_pair
from tokenadapt.calibration.spans import Shared
from tokenadapt.calibration.starts import groups
from tokenadapt.errors import RequestError

ALL = ("hidden", "hidden@0.34", "logits", "bytes", "attention", "starts", "text", "text@new")
MATCHING = ("hidden", "hidden@1", "logits", "bytes", "attention", "starts")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_the_gradient_is_that_of_finite_differences(name, tied):
    made, given = lesson(name, tied=tied), examples(3)
    found = gradients(made, given)
    for role, table in made.student.tables().items():
        if found[role] is None:
            assert role == "output"  # nothing that an output row does is looked at
            continue
        direction = torch.randn(table.trained.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        step = 3e-3  # norms compute in float32, so that a smaller one drowns
        with torch.no_grad():
            table.trained += step * direction
            up = value(made, given)
            table.trained -= 2 * step * direction
            down = value(made, given)
            table.trained += step * direction
        slope = float((found[role] * direction).sum())
        assert slope == pytest.approx((up - down) / (2 * step), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", MATCHING)
def test_a_permuted_vocabulary_is_a_fixed_point(name, tied):
    given = speakers(tied=tied, permuted=True)
    source = given[2]
    made = lesson(name, given)
    same = []
    for seed in range(3):
        one = example(seed, new=OLD)
        theirs = source.numpy()[one.ours]
        places = Shared(one.shared.ours, one.shared.ours)
        same.append(Example(one.ours, theirs, places, (1, 1), one.name, one.nbytes))
    assert abs(value(made, same)) < 1e-6
    for gradient in gradients(made, same).values():
        assert gradient is None or float(gradient.abs().max()) < 1e-6


def test_bytes_is_the_softened_divergence_of_span_likelihoods():
    ours, theirs = torch.tensor([-2.0, -9.0, -3.0]).double(), torch.tensor([-2.0, -4.0, -7.0]).double()
    found = 100 * binary_kl(theirs / 100, ours / 100)
    for mine, other, kl in zip(ours.tolist(), theirs.tolist(), found.tolist(), strict=True):
        p, q = math.exp(other / 100), math.exp(mine / 100)
        assert kl == pytest.approx(100 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))), abs=1e-12)
        assert kl == pytest.approx(-other * math.log(other / mine) + other - mine, abs=0.1)  # the limit of great T
    assert found[0] == 0


def test_text_is_the_mean_negative_log_likelihood_and_new_counts_new_tokens_only():
    made, given = lesson("text"), examples(2)
    student = made.student
    nats, new = [], []
    for one in given:
        logits = student(torch.from_numpy(one.ours)[None]).logits[0].log_softmax(-1).detach()
        for place in range(1, len(one.ours)):
            nats.append(-float(logits[place - 1, one.ours[place]]))
            new.append(bool(made.is_new[one.ours[place]]))
    assert value(made, given) == pytest.approx(sum(nats) / len(nats))
    chosen = [nat for nat, yes in zip(nats, new, strict=True) if yes]
    given_new = lesson(
        "text@new", (made.student, made.teacher, _source(made), torch.nonzero(made.is_new)[:, 0].numpy())
    )
    assert value(given_new, given) == pytest.approx(sum(chosen) / len(chosen))


def _source(made):
    return torch.where(made.is_new, -1, torch.arange(len(made.is_new)) + 4)


def test_hidden_compares_states_after_the_same_bytes():
    made, given = lesson("hidden"), [example(0)]
    one = given[0]
    ours = made.student.read(torch.from_numpy(one.ours)[None]).final[0][one.shared.ours]
    theirs = made.teacher.read(torch.from_numpy(one.theirs)[None]).final[0][one.shared.theirs]
    assert value(made, given) == pytest.approx(float((ours - theirs).detach().square().mean()))


def test_starts_compares_what_groups_of_tokens_get():
    made, given = lesson("starts"), [example(0)]
    one, begins = given[0], [place + 4 for place in range(16)] + [place % 4 for place in range(16, 24)]
    ours = made.student(torch.from_numpy(one.ours)[None]).logits[0].softmax(-1)[one.shared.ours].detach()
    theirs = made.teacher(torch.from_numpy(one.theirs)[None]).logits[0].softmax(-1)[one.shared.theirs].detach()
    expected = 0.0
    for place in range(len(ours)):
        for group in range(OLD):
            mine = sum(float(ours[place, token]) for token, begin in enumerate(begins) if begin == group)
            other = float(theirs[place, group])
            expected += other * math.log(other / max(mine, 1e-12))
    assert value(made, given) == pytest.approx(expected / len(ours))


def test_new_tokens_are_grouped_with_what_they_begin_with(tied_swap):
    pair = open_pair(CalibrationOptions(str(tied_swap[1]), "out"))
    ours, theirs = groups(pair)
    assert (ours[pair.common] == theirs[pair.alignment.source_id[pair.common]]).all()
    kept = set(pair.alignment.source_id[pair.common].tolist())
    for token in pair.alignment.missing.tolist():
        spelled = pair.student.token_bytes[token]
        pieces = pair.teacher.encode([spelled.decode()])[0] if spelled and spelled.isascii() else []
        if len(pieces) and pieces[0] in kept:
            assert ours[token] == theirs[pieces[0]]
    assert len(set(ours.tolist())) > 300


def test_blocks_of_the_head_change_nothing():
    made, given = lesson("text=1,bytes=1"), examples(4)
    whole = gradients(made, given)["output"].clone()
    made.student.head.block = 3
    assert torch.allclose(gradients(made, given)["output"], whole, atol=1e-12)


@pytest.mark.parametrize(
    "text", ["", "nothing=1", "hidden=0", "text@3=1", "logits@2", "hidden=1,hidden@2=1", "bytes@0"]
)
def test_objectives_that_cannot_be_are_refused(text):
    with pytest.raises(RequestError):
        parse_terms(text)


def test_layers_are_named_by_index_or_depth():
    body = speakers()[0].body
    assert [body.layer(name) for name in ("", "0", "-1", "3", "0.34", "1.0", "0.5")] == [3, 0, 3, 3, 1, 3, 2]
    with pytest.raises(RequestError, match="no layer"):
        body.layer("9")
