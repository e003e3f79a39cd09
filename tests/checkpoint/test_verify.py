"""A good result passes every check; every planted fault is caught by the check that names it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.checkpoint.files import MODELS, ROWS, edit_json, rewrite, save
from tests.checkpoint.small_road import small_road, source_folder, target_folder
from tests.tiny import LINES, tiny_tokenizer
from tokenadapt.checkpoint.manifest import read_manifest
from tokenadapt.checkpoint.saved_plan import load_plan
from tokenadapt.checkpoint.verify import verify
from tokenadapt.checkpoint.verify.running import free_memory
from tokenadapt.errors import RequestError, VerificationError
from tokenadapt.vocab.types import How


@pytest.fixture(scope="module", params=["tied", "untied"])
def made(request, tmp_path_factory):
    """Source, target and result, only to be read."""
    folder = tmp_path_factory.mktemp(request.param)
    model = source_folder(folder / "model", tied=request.param == "tied")
    tokenizer = target_folder(folder / "tokenizer")
    return model, small_road(model, tokenizer, folder / "out")


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tied")
    model = source_folder(folder / "model")
    return model, small_road(model, target_folder(folder / "tokenizer"), folder / "out")


@pytest.fixture
def spoilt(tied, tmp_path):
    """A copy to plant a fault in."""
    model, out = tied
    return model, shutil.copytree(out, tmp_path / "out")


def verdicts(report):
    return {check.name: check.verdict for check in report.checks}


def failed(report):
    return {name for name, verdict in verdicts(report).items() if verdict == "error"}


def rehash(folder):
    """Make the manifest agree with what lies in the folder now: then only the other checks can find a fault."""
    from dataclasses import replace

    from tokenadapt.checkpoint.manifest import file_digest
    from tokenadapt.checkpoint.place import digest_range
    from tokenadapt.checkpoint.source import open_source

    manifest = read_manifest(folder)
    refs = {ref.name: ref for shard in open_source(folder).shards for ref in shard.tensors}
    tensors = tuple(
        replace(one, sha256=digest_range(folder / one.shard, refs[one.name].offset, refs[one.name].nbytes))
        for one in manifest.tensors
    )
    files = {name: file_digest(folder / name) for name in manifest.files}
    replace(manifest, tensors=tensors, files=files).write(folder)


def test_a_good_result_passes_at_every_level(made):
    model, out = made
    report = verify(out, source=model)
    assert report.ok, report.summary
    assert report.level == "full"
    assert "skipped" not in verdicts(report).values()
    by_name = {check.name: check for check in report.checks}
    assert "bit-identical" in by_name["copied rows"].figure
    assert "tokens of text" in by_name["logits of copied tokens"].figure
    names = [[check.name for check in verify(out, level=level).checks] for level in ("tables", "files", "full")]
    assert names[0] == names[1][: len(names[0])]
    assert names[1] == names[2][: len(names[1])]
    assert all(verify(out, level=level).ok for level in ("tables", "files", "full"))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_kind_of_model_passes(name, tmp_path):
    """Masked, encoder-decoder, nested, with biases, in 16 bits: loaded, run and compared with the source."""
    model = save(name, tmp_path / "model")
    tiny_tokenizer("bytelevel-bpe", ROWS).save_pretrained(model)
    target = tiny_tokenizer("bytelevel-bpe", ROWS + 30, LINES[1:])
    target.save_pretrained(tmp_path / "tokenizer")
    out = small_road(model, tmp_path / "tokenizer", tmp_path / "out", padding=0)
    report = verify(out, source=model)
    assert report.ok, report.summary
    assert verdicts(report)["logits of copied tokens"] == "pass"


def test_without_the_source_what_needs_it_is_skipped_with_a_reason(tied):
    report = verify(tied[1])
    unseen = {check.name: check.message for check in report.checks if check.verdict == "skipped"}
    assert set(unseen) == {"copied rows", "digits", "logits of copied tokens"}
    assert all("--source" in message for message in unseen.values())


def test_swapped_rows(spoilt):
    model, out = spoilt
    taken = np.flatnonzero(load_plan(out).alignment.how == How.COPIED)[:2]

    def swap(tensors):
        table = tensors["model.embed_tokens.weight"]
        table[taken] = table[taken[::-1].copy()].clone()

    rewrite(out, swap)
    assert "table hashes" in failed(verify(out, level="tables"))
    rehash(out)
    assert verify(out, level="tables").ok
    report = verify(out, level="full", source=model)
    assert failed(report) == {"copied rows", "logits of copied tokens"}
    assert str(taken[0]) in report.summary


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite(spoilt, value):
    model, out = spoilt
    rewrite(out, lambda tensors: tensors["model.embed_tokens.weight"][5].fill_(value))
    rehash(out)
    assert {"finite values", "copied rows"} <= failed(verify(out, level="tables", source=model))
    assert "forward pass" in failed(verify(out, level="full")) or np.isinf(value)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_a_stale_eos(spoilt, file):
    """Id 300 is an ordinary token now; id 9999 is none at all."""
    _, out = spoilt
    good = json.loads((out / file).read_text())
    edit_json(out / file, eos_token_id=300)
    assert {"file hashes", "special ids"} <= failed(verify(out, level="files"))
    rehash(out)
    report = verify(out, level="tables")
    assert failed(report) == {"special ids"}
    assert "an ordinary token" in report.summary
    edit_json(out / file, eos_token_id=[good["eos_token_id"], 9999])
    assert "names [9999]" in verify(out, level="tables").summary


def test_a_generation_that_never_stops_is_warned_of(spoilt):
    _, out = spoilt
    for file in ("config.json", "generation_config.json"):
        edit_json(out / file, eos_token_id=None)
    rehash(out)
    report = verify(out, level="tables")
    assert verdicts(report)["end of text"] == "warning"
    assert "end of text" in failed(verify(out, level="tables", strict=True))


def test_a_changed_layer(spoilt):
    model, out = spoilt
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(out, lambda tensors: tensors[name][0, :1].mul_(1.5))
    assert failed(verify(out, level="files")) == {"untouched tensors"}
    rewrite(out, lambda tensors: tensors[name].mul_(20))
    rehash(out)
    assert verify(out, level="files").ok  # the record lies: only the source tells
    assert failed(verify(out, source=model)) >= {"logits of copied tokens"}


def test_a_changed_layer_is_found_against_the_source_where_no_hash_was_recorded(tied, tmp_path):
    model, good = tied
    out = small_road(model, good.parent / "tokenizer", tmp_path / "out", hash_untouched=False)
    rewrite(out, lambda tensors: tensors["model.norm.weight"].add_(1))
    assert verdicts(verify(out, level="files"))["untouched tensors"] == "skipped"
    assert failed(verify(out, level="files", source=model)) == {"untouched tensors"}


def test_a_changed_vocabulary(spoilt):
    _, out = spoilt
    state = json.loads((out / "tokenizer.json").read_text())
    vocabulary = state["model"]["vocab"]
    first, second = "Ġthe", "he"
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (out / "tokenizer.json").write_text(json.dumps(state))
    assert "file hashes" in failed(verify(out, level="files"))


@pytest.mark.parametrize("fault", ["twice", "outside", "gone", "garbled"])
def test_ids_and_tokens_that_are_not_each_others(spoilt, fault):
    _, out = spoilt
    file = out / "tokenizer.json"
    state = json.loads(file.read_text())
    if fault == "twice":
        state["model"]["vocab"]["zzzz"] = 300
    elif fault == "outside":
        state["model"]["vocab"]["zzzz"] = 5000
    file.write_text(json.dumps(state) if fault != "garbled" else "{")
    if fault == "gone":
        file.unlink()
    names = {"twice": "ids and tokens", "outside": "ids inside the table", "gone": "tokenizer", "garbled": "tokenizer"}
    assert names[fault] in failed(verify(out, level="full"))


@pytest.mark.parametrize("keep", [10, 5000, -1])
def test_truncation(spoilt, keep):
    _, out = spoilt
    file = out / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert failed(verify(out)) == {"complete files"}


def test_a_tie_that_is_none(spoilt):
    _, out = spoilt
    edit_json(out / "config.json", tie_word_embeddings=False)
    assert "tie" in failed(verify(out, level="tables"))


def test_a_stale_table_under_another_name(spoilt):
    """A tied model with a head of its own that differs: loaders of one version tie it, of another do not."""
    _, out = spoilt

    def add(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()

    rewrite(out, add)
    assert {"tensors", "tie"} <= failed(verify(out, level="tables"))


@pytest.mark.parametrize("fault", ["missing", "unexpected", "mismatched"])
def test_keys_that_loaders_complain_of(spoilt, fault):
    _, out = spoilt
    name = "model.layers.0.mlp.gate_proj.weight"

    def change(tensors):
        if fault == "missing":
            del tensors[name]
        elif fault == "unexpected":
            tensors["model.layers.0.extra.weight"] = torch.zeros(2)
        else:
            tensors[name] = tensors[name][:-1].contiguous()

    rewrite(out, change)
    (out / "transplant.json").unlink()
    assert "loads with transformers" in failed(verify(out, level="full"))


def test_unused_ids_with_probability(spoilt):
    _, out = spoilt
    unused = torch.from_numpy(np.flatnonzero(load_plan(out).alignment.how == How.UNUSED))

    def equal_to_others(tensors):
        table = tensors["model.embed_tokens.weight"]
        table[unused] = table.mean(0)

    rewrite(out, equal_to_others)
    rehash(out)
    assert failed(verify(out, level="full")) == {"unused ids"}


def test_a_planted_row_that_wins_everywhere(spoilt):
    _, out = spoilt
    missing = np.flatnonzero(load_plan(out).alignment.how == How.MISSING)

    def plant(tensors):
        row = tensors["model.embed_tokens.weight"][int(missing[3])]
        row[0] = 30.0

    rewrite(out, plant)
    rehash(out)
    report = verify(out, level="full")
    warned = {check.name: check.message for check in report.checks if check.verdict == "warning"}
    assert {"norms", "rows that always win"} <= set(warned)
    assert all(str(missing[3]) in warned[name] for name in ("norms", "rows that always win"))


def test_a_row_that_points_the_other_way(spoilt):
    _, out = spoilt
    missing = np.flatnonzero(load_plan(out).alignment.how == How.MISSING)

    def plant(tensors):
        table = tensors["model.embed_tokens.weight"]
        table[int(missing[3])] = -table[int(missing[3])].clone()

    rewrite(out, plant)
    rehash(out)
    report = verify(out, level="tables")
    assert verdicts(report)["directions"] == "warning"
    assert report.ok
    assert not verify(out, level="tables", strict=True).ok


def test_files_of_another_tokenizer(spoilt):
    _, out = spoilt
    (out / "special_tokens_map.json").write_text("{}")
    assert failed(verify(out, level="files")) == {"stale files"}


def test_a_class_that_rebuilds_the_pre_tokenizer(spoilt):
    _, out = spoilt
    edit_json(out / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    rehash(out)
    assert failed(verify(out, level="files")) == {"AutoTokenizer"}


def test_a_configuration_of_another_size(spoilt):
    _, out = spoilt
    edit_json(out / "config.json", vocab_size=77)
    assert failed(verify(out, level="tables")) & {"shapes", "complete files"}


def test_a_model_that_is_too_large_is_not_run_and_a_line_says_so(tied, monkeypatch):
    monkeypatch.setattr("tokenadapt.checkpoint.verify.model.free_memory", lambda: 1000)
    report = verify(tied[1])
    assert report.level == "files"
    assert "half of the free memory" in next(check.message for check in report.checks if check.name == "model")
    assert verify(tied[1], level="full").level == "full"  # asked for by name: done
    assert free_memory() > 1 << 20


def test_any_checkpoint_can_be_checked(tied):
    """A folder without a manifest: what can be checked is."""
    report = verify(tied[0])
    assert report.ok, report.summary
    assert verdicts(report)["file hashes"] == "skipped"


def test_no_folder_at_all(tmp_path):
    with pytest.raises(RequestError, match="no checkpoint folder"):
        verify(tmp_path / "nowhere")


def test_a_plan_of_other_tables_and_a_source_that_is_none(spoilt, tmp_path):
    model, out = spoilt
    (tmp_path / "other").mkdir()
    save("llama-tied", tmp_path / "other")
    assert failed(verify(out, source=tmp_path / "other")) == {"source"}
    small_road(model, target_folder(tmp_path / "target"), tmp_path / "higher", padding=9)
    shutil.copyfile(tmp_path / "higher" / "transplant.plan", out / "transplant.plan")
    assert {"shapes", "file hashes"} <= failed(verify(out, level="files", source=model))


def test_a_sharded_result(tmp_path):
    model = save("llama-untied", tmp_path / "model", sharded=True)
    tiny_tokenizer("bytelevel-bpe", ROWS).save_pretrained(model)
    out = small_road(model, target_folder(tmp_path / "tokenizer"), tmp_path / "out", padding=0)
    assert len(list(out.glob("*.safetensors"))) > 2
    report = verify(out, level="files", source=model)
    assert report.ok, report.summary
    layer = next(path for path in sorted(out.glob("*.safetensors")) if b"mlp" in path.read_bytes()[:4000])
    copy = layer.read_bytes()
    layer.unlink()  # it may share its bytes with the source
    layer.write_bytes(copy[:-1] + bytes([copy[-1] ^ 1]))
    assert failed(verify(out, level="files")) & {"untouched tensors", "table hashes"}
    layer.unlink()
    assert failed(verify(out)) == {"complete files"}


def test_a_failure_as_an_exception_names_the_checks(spoilt):
    _, out = spoilt
    rewrite(out, lambda tensors: tensors["model.embed_tokens.weight"][5].fill_(float("nan")))
    with pytest.raises(VerificationError, match="finite values"):
        verify(out, level="tables").raise_errors()


def test_verification_changes_nothing(tied):
    model, out = tied
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in out.iterdir()}
    verify(out, source=model)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in out.iterdir()} == before


def test_the_command(spoilt):
    from tokenadapt.cli import cli

    model, out = spoilt
    run = CliRunner().invoke(cli, ["-q", "verify", str(out), "--source", str(model), "--json"], standalone_mode=False)
    assert run.return_value == 0, run.output
    assert json.loads(run.stdout)["ok"] is True
    edit_json(out / "config.json", eos_token_id=300)
    run = CliRunner().invoke(cli, ["-q", "verify", str(out), "--level", "tables"], standalone_mode=False)
    assert run.return_value == 1
    assert "special ids" in run.output
    assert "an ordinary token" in run.output


@pytest.mark.real
def test_a_real_model(bench, tmp_path):
    model = bench / "stories15m"
    out = small_road(model, bench / "gpt2", tmp_path / "out", padding=0)
    report = verify(out, source=model)
    assert report.ok, report.summary
    assert verdicts(report)["logits of copied tokens"] == "pass"
    rewrite(out, lambda tensors: tensors["model.norm.weight"].mul_(1.001))
    assert failed(verify(out, source=model)) == {"untouched tensors", "logits of copied tokens"}
