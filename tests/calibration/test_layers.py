"""Norms and adapters: trained in the student, invisible to the teacher, and written so that they load."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers

from tests.calibration.test_run import options
from tokenadapt.calibration.bench import set_up
from tokenadapt.calibration.group import Group, join
from tokenadapt.calibration.pair import open_pair
from tokenadapt.calibration.run import calibrate
from tokenadapt.checkpoint.verify import verify
from tokenadapt.errors import RequestError


@pytest.mark.parametrize("train", ["rows+norms", "lora", "rows+lora"])
def test_the_teacher_never_changes(tied_swap, corpus, tmp_path, train):
    request = options(tied_swap, corpus, tmp_path / "out", train=train)
    bench = set_up(open_pair(request), request, join("cpu"))
    batch = bench.lesson.batches(bench.data.examples[:4])[0]
    ours, theirs = bench.lesson.view(batch).ours.final.clone(), bench.lesson.view(batch).theirs.final.clone()
    assert bench.people.changes is not None
    with torch.no_grad():
        for parameter in bench.people.changes.parameters.values():
            parameter += 0.1
    after = bench.lesson.view(batch)
    assert torch.equal(after.theirs.final, theirs)
    assert not torch.allclose(after.ours.final, ours)
    bench.lesson.gradients(bench.data.examples[:4], Group())
    assert all(parameter.grad is not None for parameter in bench.people.changes.parameters.values())


@pytest.mark.parametrize("train", ["rows+norms", "lora", "rows+lora"])
def test_trained_layers_are_written_and_verified(swapped, corpus, tmp_path, train):
    told = calibrate(options(swapped, corpus, tmp_path / "out", train=train, verify="full", lr=0.01))
    assert told.after < told.before
    assert verify(tmp_path / "out", level="full", source=swapped[0]).ok
    kinds = [transformers.AutoModelForCausalLM.from_pretrained(folder) for folder in (swapped[1], tmp_path / "out")]
    before, after = (dict(model.named_parameters()) for model in kinds)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    wanted = "norm" if train == "rows+norms" else "proj"
    assert all(wanted in name or "embed" in name or "lm_head" in name for name in changed)
    assert any(wanted in name for name in changed)
    named = dataclasses.replace(options((None, tmp_path / "out"), corpus, tmp_path / "again"), source=str(swapped[0]))
    with pytest.raises(RequestError, match="not its source's any more"):
        calibrate(named)


def test_a_wider_adapter_has_a_smaller_rate(tied_swap, corpus, tmp_path):
    rates = []
    for rank in (4, 8):
        request = dataclasses.replace(options(tied_swap, corpus, tmp_path / "out", train="lora"), lora_rank=rank)
        people = set_up(open_pair(request), request, join("cpu")).people
        rates.append([group["lr"] for group in people.trained.groups(1.0)])
    assert rates[0][0] == rates[1][0]  # of the table
    assert rates[0][1] == pytest.approx(2 * rates[1][1])


def test_an_adapter_that_is_kept_apart_loads_with_peft(tied_swap, corpus, tmp_path):
    import peft

    request = options(tied_swap, corpus, tmp_path / "out", train="lora", lr=0.01)
    calibrate(dataclasses.replace(request, merge=False))
    calibrate(dataclasses.replace(request, output=str(tmp_path / "merged")))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.randint(5, 400, (1, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone, wanted = base(ids).logits, merged(ids).logits
        found = peft.PeftModel.from_pretrained(base, tmp_path / "out" / "adapter")(ids).logits
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(alone, wanted, atol=1e-5)
