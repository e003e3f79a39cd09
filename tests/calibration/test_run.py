"""The whole road on a tiny model: what is written, what is not touched, and that a run goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tokenadapt.calibration import loop as loop_module
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.run import calibrate
from tokenadapt.calibration.state import Desk
from tokenadapt.checkpoint.manifest import read_manifest
from tokenadapt.checkpoint.saved_plan import load_plan
from tokenadapt.checkpoint.verify import verify
from tokenadapt.corpus import read_corpus
from tokenadapt.evaluation import EvalOptions, evaluate
from tokenadapt.vocab.types import How


def options(swap, corpus, out, **more):
    given = {"steps": 4, "step_tokens": 200, "batch_tokens": 256, "every": 2, "lr": 0.05, "dtype": "float32"}
    given |= {
        "train": "new",
        "device": "cpu",
        "verify": "tables",
        "closed_form": False,
        "held_out_bytes": 600,
        "context": 64,
    }
    return CalibrationOptions(str(swap[1]), str(out), data=(str(corpus),), **{**given, **more})


def tables(folder):
    state = load_file(folder / "model.safetensors")
    return {name: state[name] for name in ("model.embed_tokens.weight", "lm_head.weight") if name in state}


def test_new_rows_change_and_nothing_else(swapped, corpus, tmp_path):
    told = calibrate(options(swapped, corpus, tmp_path / "out", closed_form=True))
    alignment = load_plan(swapped[1]).alignment
    before, after = load_file(swapped[1] / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    vocabulary = tables(swapped[1])
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        same = (tensor.view(torch.int32) == after[name].view(torch.int32)).reshape(len(tensor), -1).all(1).numpy()
        if name in vocabulary:
            assert same[alignment.how != How.MISSING].all()
            assert not same[alignment.how == How.MISSING].all()
        else:
            assert same.all()
    assert told.after <= told.before
    assert told.parameters == len(alignment.missing) * 32 * len(vocabulary)


def test_the_result_is_a_checkpoint_whose_manifest_goes_on(tied_swap, corpus, tmp_path):
    out = tmp_path / "out"
    told = calibrate(options(tied_swap, corpus, out, verify="full"))
    report = verify(out, level="full", source=tied_swap[0])
    assert report.ok, report
    manifest = read_manifest(out)
    (run,) = manifest.calibrations
    assert run["after"] == told.after
    assert run["coverage"]["seen"] > 0
    assert str(tmp_path) not in json.dumps(run)
    card = (out / "README.md").read_text()
    assert "## Calibration" in card
    assert f"{told.after:.4f}" in card
    again = calibrate(dataclasses.replace(options((None, out), corpus, tmp_path / "again"), source=str(tied_swap[0])))
    assert [entry["after"] for entry in read_manifest(tmp_path / "again").calibrations] == [told.after, again.after]
    assert (tmp_path / "again" / "README.md").read_text().count("## Calibration") == 1


def test_held_out_bits_are_those_of_eval_ppl(swapped, corpus, tmp_path):
    text = tmp_path / "held.txt"
    text.write_text((corpus / "00.txt").read_text() + (corpus / "07.txt").read_text(), encoding="utf-8")
    told = calibrate(options(swapped, corpus, tmp_path / "out", held_out=(str(text),), held_out_bytes=10_000))
    found = evaluate([str(swapped[0]), str(tmp_path / "out")], read_corpus([str(text)]), EvalOptions(bootstrap=0))
    source, after = (row.measures.bits_per_byte for row in found.rows()[:2])
    assert told.source == pytest.approx(source, abs=1e-5)
    assert told.after == pytest.approx(after, abs=1e-5)


def test_rows_may_all_change_and_the_plan_says_so(tied_swap, corpus, tmp_path):
    calibrate(options(tied_swap, corpus, tmp_path / "out", train="rows"))
    before, after = load_plan(tied_swap[1]).alignment, load_plan(tmp_path / "out").alignment
    taken = np.isin(before.how, (How.COPIED, How.SPECIAL))
    assert (after.how[taken] == How.ADJUSTED).all()
    assert (after.how[~taken] == before.how[~taken]).all()
    assert read_manifest(tmp_path / "out").counts == after.counts()
    assert verify(tmp_path / "out", level="full", source=tied_swap[0]).ok
    assert (
        (tables(tied_swap[1])["model.embed_tokens.weight"] != tables(tmp_path / "out")["model.embed_tokens.weight"])
        .any(1)[torch.from_numpy(taken)]
        .any()
    )


@pytest.mark.parametrize("stop", [2, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(swapped, corpus, tmp_path, monkeypatch, stop):
    whole = calibrate(options(swapped, corpus, tmp_path / "whole", steps=5))
    step, taken = loop_module.Loop._step, []

    def dying(self, state):
        taken.append(state.step)
        if len(taken) > stop:
            raise ArithmeticError("pulled out")
        return step(self, state)

    monkeypatch.setattr(loop_module.Loop, "_step", dying)
    request = options(swapped, corpus, tmp_path / "cut", steps=5)
    with pytest.raises(ArithmeticError):
        calibrate(request)
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(loop_module.Loop, "_step", step)
    resumed = calibrate(dataclasses.replace(request, resume=True))
    for name, table in tables(tmp_path / "whole").items():
        assert torch.equal(table.view(torch.int32), tables(tmp_path / "cut")[name].view(torch.int32))
    assert [(point.step, point.bits_per_byte) for point in whole.curve] == [
        (point.step, point.bits_per_byte) for point in resumed.curve
    ]
    assert not Desk.of(tmp_path / "cut").folder.exists()


def test_ctrl_c_saves_after_the_step_and_the_run_goes_on(tied_swap, corpus, tmp_path, monkeypatch):
    import signal

    step = loop_module.Loop._step

    def interrupted(self, state):
        if state.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, state)

    monkeypatch.setattr(loop_module.Loop, "_step", interrupted)
    request = options(tied_swap, corpus, tmp_path / "out", steps=3, every=10)
    with pytest.raises(KeyboardInterrupt):
        calibrate(request)
    state = Desk.of(tmp_path / "out").load()
    assert state is not None
    assert state.step == 2
    monkeypatch.setattr(loop_module.Loop, "_step", step)
    assert calibrate(dataclasses.replace(request, resume=True)).curve[-1].step == 3


def test_a_broken_loss_stops_keeps_the_best_and_names_the_batch(tied_swap, corpus, tmp_path, monkeypatch):
    step = loop_module.Loop._step

    def poisoned(self, state):
        if state.step == 2:
            with torch.no_grad():
                self.tools.lesson.student.output.trained[0, 0] = float("nan")
        return step(self, state)

    monkeypatch.setattr(loop_module.Loop, "_step", poisoned)
    told = calibrate(options(tied_swap, corpus, tmp_path / "out", steps=4))
    assert told.why == "the loss broke"
    assert ".txt:1#1" in told.broken
    assert told.best.step <= 2
    assert all(torch.isfinite(table).all() for table in tables(tmp_path / "out").values())


def test_it_stops_when_nothing_improves(tied_swap, corpus, tmp_path):
    told = calibrate(options(tied_swap, corpus, tmp_path / "out", steps=50, lr=90.0, every=1, patience=2))
    assert told.curve[-1].step == told.best.step + 2
    assert "2 measurements" in told.why


def test_no_steps_leave_the_closed_form_alone(tied_swap, corpus, tmp_path):
    told = calibrate(options(tied_swap, corpus, tmp_path / "out", steps=0, closed_form=True))
    assert told.curve[-1].step == 0
    assert set(told.closed) == {"as it came", "last pieces", "input rows", "bias", "output rows", "held out"}
    figures = [
        told.closed[name]["bits_per_byte"]
        for name in ("as it came", "last pieces", "input rows", "bias", "output rows")
    ]
    assert figures == sorted(figures, reverse=True)


def test_every_measurement_is_logged(tied_swap, corpus, tmp_path):
    told = calibrate(options(tied_swap, corpus, tmp_path / "out", log=str(tmp_path / "log.jsonl")))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [point.step for point in told.curve] == [0, 2, 4]
    assert lines[-1]["excess"] == pytest.approx(told.curve[-1].bits_per_byte - told.source)


def test_without_a_manifest_the_source_is_named(tied_swap, corpus, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tied_swap[1], bare)
    for name in ("transplant.json", "transplant.plan"):
        (bare / name).unlink()
    told = calibrate(dataclasses.replace(options((None, bare), corpus, tmp_path / "out"), source=str(tied_swap[0])))
    assert told.parameters == 32 * len(load_plan(tied_swap[1]).alignment.missing)
    assert len(read_manifest(tmp_path / "out").calibrations) == 1
