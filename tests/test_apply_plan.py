"""`tokenadapt apply-plan`: what it writes equals a transplant of the same checkpoint, byte for byte."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoint.files import rewrite
from tests.command import refused, tokenadapt, untouched
from tests.tiny import save_tiny, tiny_tokenizer
from tokenadapt.checkpoint.saved_plan import FILE

TEMPLATE = "{% for m in messages %}{{ '<|turn|>' + m['role'] + '\n' + m['content'] + '<|end|>' }}{% endfor %}"
# Same inputs, other road: these files are equal. The manifest and the card name their own inputs and times.
EQUAL = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", FILE)


@pytest.fixture(scope="module", params=["tied", "untied"])
def given(request, tmp_path_factory):
    """A chat model, a fine-tune of it (other numbers, same vocabulary), and a target tokenizer without a template."""
    folder = tmp_path_factory.mktemp("plans")
    tokenizer = tiny_tokenizer("bytelevel-bpe")
    tokenizer.chat_template = TEMPLATE
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>", "<|end|>"]})
    for seed, name in enumerate(("model", "tuned")):
        save_tiny(folder / name, tokenizer, tied=request.param == "tied", extra_rows=6, seed=seed)
    tiny_tokenizer("unigram").save_pretrained(folder / "tokenizer")
    return folder


def run(*words):
    said = tokenadapt("-q", *words, "--verify", "tables")
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "pieces"],
        ["--method", "length", "--calibrate-norm", "--bias-per-piece", "-1.23456789"],
        ["--method", "asymmetric", "--untie", "--output-method", "ends:decay=0.25"],
        ["--method", "pieces", "--fallback", "zero", "--carry-chat", "--map", "</s>=dog", "--map", "▁t=q"],
        ["--method", "pieces", "--pad-to-multiple", "64"],
        ["--method", "mean", "--calibrate-norm"],
    ],
    ids=["plain", "finished", "untied", "chat and maps", "padded", "mean for all"],
)
def test_it_equals_a_transplant(given, tmp_path, options):
    for name in ("model", "tuned"):
        run("transplant", given / name, given / "tokenizer", tmp_path / name, *options)
    with untouched(given, tmp_path / "model"):
        run("apply-plan", tmp_path / "model", given / "tuned", tmp_path / "applied")
    for file in EQUAL:
        assert (tmp_path / "applied" / file).read_bytes() == (tmp_path / "tuned" / file).read_bytes(), file
    template = tmp_path / "tuned" / "chat_template.jinja"
    assert template.exists() == ("--carry-chat" in options)
    if template.exists():
        assert template.read_bytes() == (tmp_path / "applied" / "chat_template.jinja").read_bytes()
    verified = tokenadapt("-q", "verify", tmp_path / "applied", "--source", given / "tuned", "--level", "tables")
    assert verified.code == 0, verified


def test_norms_that_are_calibrated_twice_are_calibrated_once(given, tmp_path):
    """By the method and by request: the second time changes nothing but the last bits."""
    options = ("--method", "asymmetric", "--fallback", "zero", "--calibrate-norm")
    for name in ("model", "tuned"):
        run("transplant", given / name, given / "tokenizer", tmp_path / name, *options)
    run("apply-plan", tmp_path / "model", given / "tuned", tmp_path / "applied")
    direct, applied = (load_file(tmp_path / name / "model.safetensors") for name in ("tuned", "applied"))
    for name in direct:
        torch.testing.assert_close(applied[name], direct[name], rtol=1e-5, atol=1e-7)


def test_weights_that_depend_on_the_model_are_kept(given, tmp_path):
    """`local` weighs pieces by the model's own vectors: the plan keeps the weights of its first model."""
    run("transplant", given / "model", given / "tokenizer", tmp_path / "model", "--method", "local:tau=0.3")
    run("apply-plan", tmp_path / "model", given / "model", tmp_path / "again")
    run("apply-plan", tmp_path / "model", given / "tuned", tmp_path / "tuned")
    for file in EQUAL:
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "model" / file).read_bytes(), file
    assert (tmp_path / "tuned" / FILE).read_bytes() == (tmp_path / "model" / FILE).read_bytes()


@pytest.fixture(scope="module")
def planned(given, tmp_path_factory):
    """A result with its plan."""
    out = tmp_path_factory.mktemp("planned") / "out"
    run("transplant", given / "model", given / "tokenizer", out, "--method", "pieces")
    return out


def test_a_plan_alone_wants_the_tokenizer_named(given, planned, tmp_path):
    (tmp_path / "plans").mkdir()
    alone = shutil.copy(planned / FILE, tmp_path / "plans")
    with untouched(tmp_path):
        said = refused(2, "apply-plan", alone, given / "tuned", tmp_path / "out")
    assert "--tokenizer" in said
    run("apply-plan", alone, given / "tuned", tmp_path / "out", "--tokenizer", given / "tokenizer")
    run("apply-plan", planned, given / "tuned", tmp_path / "same")
    for file in EQUAL:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "same" / file).read_bytes(), file


def test_other_vocabularies_are_refused(given, planned, tmp_path):
    save_tiny(tmp_path / "other", tiny_tokenizer("wordpiece"))
    with untouched(tmp_path, given, planned):
        said = refused(2, "apply-plan", planned, tmp_path / "other", tmp_path / "out")
        assert f"The source vocabulary of {tmp_path / 'other'}" in said
        said = refused(2, "apply-plan", planned, given / "tuned", tmp_path / "out", "--tokenizer", tmp_path / "other")
        assert f"The target vocabulary of {tmp_path / 'other'}" in said


def test_a_model_of_the_same_vocabulary_and_fewer_rows_is_refused(given, planned, tmp_path):
    """Ids agree, but the table was cut: the plan copies rows that are not there."""
    shutil.copytree(given / "tuned", tmp_path / "cut")
    rows = json.loads((tmp_path / "cut" / "config.json").read_text())["vocab_size"] - 20

    def cut(tensors):
        for name in tensors:
            if "embed_tokens" in name or "lm_head" in name:
                tensors[name] = tensors[name][:rows].clone()

    rewrite(tmp_path / "cut", cut)
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    (tmp_path / "cut" / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
    with untouched(tmp_path):
        refused(2, "apply-plan", planned, tmp_path / "cut", tmp_path / "out")


def test_rows_that_are_no_mix_are_refused_with_a_sentence(given, tmp_path):
    run("transplant", given / "model", given / "tokenizer", tmp_path / "dense", "--method", "normal")
    with untouched(tmp_path):
        said = refused(2, "apply-plan", tmp_path / "dense", given / "tuned", tmp_path / "out")
    assert "normal" in said
    assert "tokenadapt transplant" in said


def test_no_plan_and_a_damaged_one(given, planned, tmp_path):
    shutil.copytree(planned, tmp_path / "damaged")
    content = (planned / FILE).read_bytes()
    (tmp_path / "damaged" / FILE).write_bytes(content[: len(content) // 2])
    with untouched(tmp_path):
        assert "no saved plan" in refused(2, "apply-plan", given / "model", given / "tuned", tmp_path / "out")
        assert "no saved plan" in refused(2, "apply-plan", tmp_path / "none", given / "tuned", tmp_path / "out")
        assert "cannot be read" in refused(2, "apply-plan", tmp_path / "damaged", given / "tuned", tmp_path / "out")
        assert "exists already" in refused(2, "apply-plan", planned, given / "tuned", tmp_path / "damaged")
        assert "lies inside the output" in refused(2, "apply-plan", planned, given / "tuned", planned, "--overwrite")
        assert "There is no model" in refused(2, "apply-plan", planned, tmp_path / "none", tmp_path / "out")


def test_a_tied_plan_serves_an_untied_model(tmp_path):
    """One rule made the shared table: it makes both tables of a model that has two."""
    for name, tied in (("tied", True), ("untied", False)):
        save_tiny(tmp_path / name, tiny_tokenizer("bytelevel-bpe"), tied=tied)
    tiny_tokenizer("unigram").save_pretrained(tmp_path / "tokenizer")
    run("transplant", tmp_path / "tied", tmp_path / "tokenizer", tmp_path / "planned", "--method", "pieces")
    run("transplant", tmp_path / "untied", tmp_path / "tokenizer", tmp_path / "direct", "--method", "pieces")
    run("apply-plan", tmp_path / "planned", tmp_path / "untied", tmp_path / "applied")
    direct, applied = (load_file(tmp_path / name / "model.safetensors") for name in ("direct", "applied"))
    assert direct.keys() == applied.keys()
    assert all(torch.equal(direct[name], applied[name]) for name in direct)
