"""The whole road on tiny models, as a user runs it, and what the result must be for transformers."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import FAMILIES, LINES, save_tiny
from tokenadapt.checkpoint.saved_plan import load_plan
from tokenadapt.choice import choose
from tokenadapt.errors import RequestError, VerificationError
from tokenadapt.recipe import TransplantOptions
from tokenadapt.transplant import transplant


@pytest.fixture(scope="module")
def targets(tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    for family, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(folder / family)
    return folder


def run(model, tokenizer, output, **more):
    return transplant(TransplantOptions(str(model), str(tokenizer), str(output), **{"method": "pieces", **more}))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_result_loads_and_gives_copied_tokens_the_logits_of_the_source(tiny_checkpoint, targets, tmp_path, family):
    out = tmp_path / "out"
    outcome = run(tiny_checkpoint, targets / family, out)
    assert sum(outcome.overlap.counts.values()) == outcome.overlap.target_rows
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    source = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    old = AutoTokenizer.from_pretrained(tiny_checkpoint)
    assert model.config.vocab_size == outcome.overlap.target_rows
    wanted = AutoTokenizer.from_pretrained(targets / family)
    assert [tokenizer(line)["input_ids"] for line in LINES] == [wanted(line)["input_ids"] for line in LINES]
    bos, old_bos = tokenizer.bos_token_id, old.bos_token_id
    logits = model(torch.tensor([[bos]])).logits[0, -1]
    before = source(torch.tensor([[old_bos]])).logits[0, -1]
    ends = logits[tokenizer.eos_token_id], before[old.eos_token_id]
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_only_the_tables_differ_and_copied_rows_keep_their_bits(tiny_checkpoint, targets, tmp_path):
    out = tmp_path / "out"
    run(tiny_checkpoint, targets / "unigram", out)
    before, after = load_file(tiny_checkpoint / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    tables = {name for name in before if "embed_tokens" in name or "lm_head" in name}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - tables)
    source_id = load_plan(out).alignment.source_id
    taken = np.flatnonzero(source_id >= 0)
    for name in tables:
        assert torch.equal(after[name][taken], before[name][source_id[taken]])


def test_the_same_request_gives_the_same_bytes(tiny_checkpoint, targets, tmp_path):
    for name in ("one", "two"):
        run(tiny_checkpoint, targets / "wordpiece", tmp_path / name, method="normal", seed=7)
    for file in ("model.safetensors", "tokenizer.json", "config.json", "transplant.plan"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_untied_output_rows_have_a_rule_of_their_own(tiny_checkpoint, targets, tmp_path):
    out = tmp_path / "out"
    run(tiny_checkpoint, targets / "unigram", out, untie=True, output_method="length")
    manifest = json.loads((out / "transplant.json").read_text())
    assert manifest["methods"] == {"input": "pieces", "output": "length"}
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= load_file(out / "model.safetensors").keys()


def test_going_there_and_back_gives_the_source_again(tiny_checkpoint, tmp_path):
    """With the source's own tokenizer nothing is missing: the tables are the source's, less its spare rows."""
    out = tmp_path / "out"
    outcome = run(tiny_checkpoint, tiny_checkpoint, out)
    assert outcome.overlap.counts["missing"] == 0
    before, after = load_file(tiny_checkpoint / "model.safetensors"), load_file(out / "model.safetensors")
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name][: len(tensor)])


def test_an_output_that_exists_is_kept_unless_told(tiny_checkpoint, targets, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="overwrite"):
        run(tiny_checkpoint, targets / "unigram", out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    run(tiny_checkpoint, targets / "unigram", out, overwrite=True)
    assert not (out / "mine.txt").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "piecs"}, "no method"),
        ({"space": "nowhere", "method": "hybrid"}, "no space"),
        ({"map": ("no-such-token=the",)}, "no-such-token"),
        ({"pad_to_multiple": 0}, "pad-to-multiple"),
    ],
)
def test_a_wrong_request_leaves_nothing_behind(tiny_checkpoint, targets, tmp_path, change, said):
    with pytest.raises(RequestError, match=said):
        run(tiny_checkpoint, targets / "unigram", tmp_path / "out", **change)
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_fails_its_checks_is_not_written(tiny_checkpoint, targets, tmp_path, monkeypatch):
    from tokenadapt import making

    honest = making.build_table

    def swapped(*args, **options):
        for block in honest(*args, **options):
            block[[10, 11]] = block[[11, 10]]
            yield block

    monkeypatch.setattr(making, "build_table", swapped)
    with pytest.raises(VerificationError, match="copied"):
        run(tiny_checkpoint, targets / "bytelevel-bpe", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_padding_rows_are_there_and_never_win(tiny_checkpoint, targets, tmp_path):
    out = tmp_path / "out"
    outcome = run(tiny_checkpoint, targets / "unigram", out, pad_to_multiple=64)
    assert outcome.overlap.target_rows % 64 == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.get_input_embeddings().weight.shape[0] == outcome.overlap.target_rows > len(tokenizer)


def test_a_donor_is_read_with_its_own_tokenizer(tiny_checkpoint, tokenizers, targets, tmp_path):
    donor = save_tiny(tmp_path / "donor", tokenizers["unigram"], seed=5)
    run(tiny_checkpoint, targets / "unigram", tmp_path / "out", method="omp:k=4", donor=str(donor))
    assert json.loads((tmp_path / "out" / "transplant.json").read_text())["verify"]["ok"]
    with pytest.raises(RequestError, match="donor"):
        run(tiny_checkpoint, targets / "unigram", tmp_path / "none", method="omp:k=4")
    weights = load_file(donor / "model.safetensors")
    next(table for name, table in weights.items() if "embed" in name)[7, 0] = float("nan")
    save_file(weights, donor / "model.safetensors", {"format": "pt"})
    for method in ("omp:k=4", "clp", "sava"):
        with pytest.raises(RequestError, match=r"of the donor holds numbers that are not finite .* \(7\)"):
            run(tiny_checkpoint, targets / "unigram", tmp_path / "none", method=method, donor=str(donor))


@pytest.mark.parametrize(
    ("named", "asked", "expected"),
    [
        ("float32", "bfloat16", "float32"),  # the layers stay as they are: nothing may be narrowed at load
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", "float16", "float32"),
        (None, "bfloat16", "float32"),
    ],
)
def test_the_configuration_names_a_type_that_holds_the_tables(
    tiny_checkpoint, targets, tmp_path, named, asked, expected
):
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    given = {"dtype": named} if named else {}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | given))
    run(tmp_path / "model", targets / "unigram", tmp_path / "out", dtype=asked, verify="files")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written.get("dtype", written.get("torch_dtype")) == expected
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert str(loaded.dtype) == f"torch.{expected}"
    stored = load_file(tmp_path / "out" / "model.safetensors")["model.embed_tokens.weight"]
    assert str(stored.dtype) == f"torch.{asked}"
    assert torch.equal(loaded.get_input_embeddings().weight.float(), stored.float())


def test_the_default_needs_nothing_but_the_model_and_the_tokenizer(tiny_checkpoint, targets, tmp_path):
    out = tmp_path / "out"
    transplant(TransplantOptions(str(tiny_checkpoint), str(targets / "unigram"), str(out), seed=3))
    model = AutoModelForCausalLM.from_pretrained(out)
    manifest = json.loads((out / "transplant.json").read_text(encoding="utf-8"))
    assert set(manifest["methods"].values()) == {"stacked"}
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


def test_a_model_too_large_for_this_machine_is_not_loaded(tiny_checkpoint, targets, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tokenadapt.making.free_memory", lambda: 1000)
    monkeypatch.setattr("tokenadapt.forward.load_model", lambda *_, **__: pytest.fail("loaded"))
    options = TransplantOptions(str(tiny_checkpoint), str(targets / "unigram"), str(tmp_path / "out"), verify="tables")
    transplant(options)
    assert "cannot be run here: it takes 0.0 GB in float32" in caplog.text or "too few to learn from" in caplog.text


def test_effort_reaches_the_methods_that_know_of_it():
    def taken(method, effort):
        options = TransplantOptions("model", "tokenizer", "out", method=method, effort=effort)
        return str(choose(options, ("input", "output")).methods["output"])

    assert taken("stacked", "low") == "stacked:effort=low"
    assert taken("stacked:effort=full", "low") == "stacked:effort=full"
    assert taken("pieces", "low") == "pieces"
    assert taken("stacked", None) == "stacked"
    with pytest.raises(RequestError, match="no effort"):
        taken("stacked", "least")
