"""The commands calibrate and probe, as users run them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tests.calibration.conftest import make_swap
from tokenadapt.calibration.options import FREE, CalibrationOptions
from tokenadapt.checkpoint.saved_plan import load_plan
from tokenadapt.cli import cli

FEW = ["--step-tokens", "200", "--batch-tokens", "256", "--dtype", "float32", "--device", "cpu", "--context", "64"]
FEW += ["--held-out-bytes", "600"]


def run(*arguments):
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_calibrate_writes_a_checkpoint_and_says_what_it_brought(tied_swap, corpus, tmp_path):
    out = tmp_path / "out"
    shown = run("calibrate", tied_swap[1], "-d", corpus, "-o", out, "--steps", 2, "--verify", "tables", *FEW)
    assert "in bits per byte: source" in shown
    assert "checks at level tables" in shown
    assert f"Wrote {out}." in shown
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "![" in (out / "README.md").read_text()
    assert "passed" in run("verify", out, "--level", "tables")


@pytest.mark.parametrize(("train", "token", "trained"), [("new", "#3", False), ("rows", "#3", True)])
def test_explain_and_apply_plan_say_that_rows_were_trained_since(tied_swap, corpus, tmp_path, train, token, trained):
    out, new = tmp_path / "out", load_plan(tied_swap[1]).alignment.missing[0]
    run("calibrate", tied_swap[1], "-d", corpus, "-o", out, "--steps", 1, "--train", train, "--verify", "tables", *FEW)
    assert f"trained since by calibrate --train {train}" in run("explain", out, f"#{new}")
    assert ("trained since" in run("explain", out, token)) == trained
    assert "trained since" not in run("explain", tied_swap[1], f"#{new}")
    shown = run("apply-plan", out, tied_swap[0], tmp_path / "again", "--verify", "tables")
    assert "was calibrated, which a plan does not hold" in shown


def test_a_recipe_and_json(tied_swap, corpus, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: [{corpus}]\nsteps: 1\nobjective: bytes=1\nclosed-form: false\nlr: 0.5\n")
    out = tmp_path / "out"
    shown = run("-q", "calibrate", tied_swap[1], "-o", out, "--config", recipe, "--lr", "0.001", "--json", *FEW)
    told = json.loads(shown)
    assert told["objective"] == "bytes=1"
    assert told["options"]["steps"] == 1
    assert "lr" not in told["options"] or told["options"]["lr"] == 0.001
    assert told["closed"] == {}


def test_every_option_of_the_command_is_an_option_of_the_library():
    from dataclasses import fields

    from tokenadapt.cli.calibrate import calibrate

    known = {field.name for field in fields(CalibrationOptions)}
    said = {parameter.name for parameter in calibrate.params} - {"config", "as_json"}
    assert said == known
    assert known >= FREE


def test_probe_ranks_initialisations_by_where_they_stand_after_training(tmp_path_factory, corpus):
    from tokenadapt.recipe import TransplantOptions
    from tokenadapt.transplant import transplant

    folder = tmp_path_factory.mktemp("probe")
    source, first = make_swap(folder)
    options = TransplantOptions(
        str(source), str(folder / "target"), str(folder / "zeros"), method="zero", verify="tables"
    )
    transplant(options)
    shown = run("-q", "probe", first, folder / "zeros", "-d", corpus, "--steps", 3, "--json", *FEW)
    found = json.loads(shown)
    assert {one["name"]: one["methods"].split(":")[0] for one in found} == {"swapped": "pieces", "zeros": "zero"}
    assert found[0]["after"] <= found[1]["after"]
    assert all(one["tokens"] >= 3 * 200 for one in found)
    assert "pieces" in run("-q", "probe", first, "-d", corpus, "--steps", 1, *FEW)


def test_probe_refuses_folders_for_other_tokenizers(tied_swap, corpus, tmp_path):
    from tests.tiny import tiny_tokenizer
    from tokenadapt.errors import RequestError
    from tokenadapt.recipe import TransplantOptions
    from tokenadapt.transplant import transplant

    tiny_tokenizer("unigram", 300).save_pretrained(tmp_path / "other")
    given = TransplantOptions(
        str(tied_swap[0]), str(tmp_path / "other"), str(tmp_path / "made"), method="pieces", verify="tables"
    )
    transplant(given)
    with pytest.raises(RequestError, match="not made from the same source"):
        run("-q", "probe", tied_swap[1], tmp_path / "made", "--source", tied_swap[0], "-d", corpus, "--steps", 1, *FEW)
