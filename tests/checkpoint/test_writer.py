"""The new tensors are written, all others keep their bytes, and nothing stale stays."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tests.checkpoint.files import (
    AUTO,
    MODELS,
    edit_json,
    random_table,
    rewrite,
    same_table,
    save,
    tensors_of,
    whole,
    write_wider,
)
from tokenadapt.checkpoint.place import digest_range
from tokenadapt.checkpoint.rewrite import aligned, old_item, table_item, write_shard
from tokenadapt.checkpoint.shards import read_shard
from tokenadapt.checkpoint.source import open_source
from tokenadapt.checkpoint.writer import write_checkpoint_tensors
from tokenadapt.errors import RequestError, TokenAdaptError


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("name", MODELS)
def test_an_identity_table_gives_identical_files(name, sharded, tmp_path):
    folder = save(name, tmp_path / "in", sharded=sharded)
    source, out = open_source(folder), tmp_path / "out"
    out.mkdir()
    tables = {role: same_table(source, role) for role in source.tables}
    write_checkpoint_tensors(source, out, tables, {ref.name: source.bias(ref) for ref in source.biases})
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    assert written == {path.name: path.read_bytes() for path in folder.iterdir() if "safetensors" in path.name}


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("name", MODELS)
def test_only_tensors_of_the_vocabulary_change(name, sharded, tmp_path):
    folder = save(name, tmp_path / "in", sharded=sharded)
    source, written, tables = write_wider(folder, tmp_path / "out", copy=True, hash_untouched=True)
    old, new = tensors_of(folder), tensors_of(tmp_path / "out")
    changed = {ref.name for ref in source.tables.values()} | {ref.name for ref in source.biases}
    assert old.keys() == new.keys()
    for key in old.keys() - changed:
        assert old[key].dtype == new[key].dtype
        assert torch.equal(old[key].view(torch.uint8), new[key].view(torch.uint8)), key
    for role, ref in source.tables.items():
        assert torch.equal(new[ref.name], whole(tables[role]))
    for ref in source.biases:
        assert new[ref.name].flatten()[7] == 7
        assert new[ref.name].ndim == len(ref.shape)
    for tensor in written.tensors:
        path = tmp_path / "out" / tensor.shard
        assert digest_range(path, tensor.offset, tensor.nbytes) == tensor.sha256
        assert tensor.new == (tensor.name in changed)
        assert new[tensor.name].shape == tensor.shape


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("name", MODELS)
def test_the_result_loads_without_a_missing_or_unexpected_key(name, sharded, tmp_path):
    folder, out = save(name, tmp_path / "in", sharded=sharded), tmp_path / "out"
    source, _, tables = write_wider(folder, out)
    config = json.loads((folder / "config.json").read_text())
    config.get("text_config", config)["vocab_size"] = 340
    (out / "config.json").write_text(json.dumps(config))
    model, info = AUTO[source.kind].from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert torch.equal(model.get_input_embeddings().weight, whole(tables["input"]))
    assert torch.equal(model.get_output_embeddings().weight, whole(tables["input" if source.tied else "output"]))


def test_an_index_counts_and_places_every_tensor(tmp_path):
    folder, out = save("llama-untied", tmp_path / "in", sharded=True), tmp_path / "out"
    _, written, _ = write_wider(folder, out)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    total = 0
    for shard in sorted(out.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            for name in file.keys():  # noqa: SIM118
                assert index["weight_map"][name] == shard.name
                total += file.get_tensor(name).nbytes
    assert index["metadata"]["total_size"] == total == written.total_bytes
    parameters = sum(tensor.numel() for tensor in tensors_of(out).values())
    assert index["metadata"].get("total_parameters", parameters) == parameters


def test_shards_without_a_table_are_linked_and_never_opened_for_writing(tmp_path):
    folder, out = save("llama-untied", tmp_path / "in", sharded=True), tmp_path / "out"
    before = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    source, written, _ = write_wider(folder, out)
    holding = {ref.shard for ref in source.tables.values()}
    how = {shard.name: shard.how for shard in written.shards}
    assert {name for name, way in how.items() if way == "written"} == holding
    assert set(how.values()) - {"written"} <= {"linked", "reflinked"}
    for name, way in how.items():
        if way == "linked":
            assert os.path.samefile(folder / name, out / name)
    assert before == {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_copy_makes_files_of_their_own(tmp_path):
    folder, out = save("llama-untied", tmp_path / "in", sharded=True), tmp_path / "out"
    _, written, _ = write_wider(folder, out, copy=True)
    assert {shard.how for shard in written.shards} == {"written", "copied"}
    assert not any(os.path.samefile(folder / shard.name, out / shard.name) for shard in written.shards)


def test_a_hub_cache_is_never_hard_linked_and_its_hash_is_used_again(tmp_path):
    folder = save("llama-untied", tmp_path / "in", sharded=True)
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "x", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        digest = digest_range(path, 0, path.stat().st_size)
        shutil.move(path, blobs / digest)
        (snapshot / path.name).symlink_to(f"../../blobs/{digest}")
    _, written, _ = write_wider(snapshot, tmp_path / "out")
    for shard in written.shards:
        path = tmp_path / "out" / shard.name
        assert not path.is_symlink()
        assert path.stat().st_nlink == 1
        assert shard.how != "linked"
        assert shard.sha256 in (None, digest_range(path, 0, shard.size))
        assert (shard.sha256 is None) == (shard.how == "written")


def test_untie_writes_a_second_table_that_loads(tmp_path):
    folder, out = save("llama-tied", tmp_path / "in"), tmp_path / "out"
    source, written, tables = write_wider(folder, out, untie=True)
    assert source.tied
    assert not written.tied
    assert written.tables == {"input": "model.embed_tokens.weight", "output": "lm_head.weight"}
    shutil.copy(folder / "config.json", out)
    edit_json(out / "config.json", vocab_size=340, tie_word_embeddings=False)
    model, info = AUTO["causal"].from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(model.lm_head.weight, whole(tables["output"]))
    assert torch.equal(model.model.embed_tokens.weight, whole(tables["input"]))


def test_untying_an_encoder_decoder_is_refused(tmp_path):
    with pytest.raises(RequestError, match="cannot be untied"):
        write_wider(save("t5", tmp_path / "in"), tmp_path / "out", untie=True)


def test_a_repeated_table_is_rewritten_so_that_none_is_stale(tmp_path):
    folder, out = save("llama-tied", tmp_path / "in"), tmp_path / "out"
    rewrite(folder, lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"].clone()}))
    source, _, tables = write_wider(folder, out)
    assert source.tied
    assert "repeats the tied table" in source.notes[0]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(tensors_of(out)[name], whole(tables["input"]))


def test_untying_a_repeated_table_gives_the_repetition_the_output_rows(tmp_path):
    folder, out = save("llama-tied", tmp_path / "in"), tmp_path / "out"
    rewrite(folder, lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"].clone()}))
    _, written, tables = write_wider(folder, out, untie=True)
    assert written.tables["output"] == "lm_head.weight"
    assert torch.equal(tensors_of(out)["lm_head.weight"], whole(tables["output"]))


def test_untying_a_table_that_stands_under_the_heads_name(tmp_path):
    folder, out = save("llama-tied", tmp_path / "in"), tmp_path / "out"
    rewrite(folder, lambda held: held.update({"lm_head.weight": held.pop("model.embed_tokens.weight")}))
    _, written, tables = write_wider(folder, out, untie=True)
    assert written.tables == {"input": "model.embed_tokens.weight", "output": "lm_head.weight"}
    for role, name in written.tables.items():
        assert torch.equal(tensors_of(out)[name], whole(tables[role]))


def test_wider_elements_come_first_where_order_would_break_alignment(tmp_path):
    folder, out = save("llama-fp16", tmp_path / "in"), tmp_path / "out"

    def odd(held):
        held["model.norm.weight"] = held["model.norm.weight"].float()

    rewrite(folder, odd)
    source, _, tables = write_wider(folder, out, rows=341)
    with safe_open(out / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor(source.tables["input"].name), whole(tables["input"]))
    for tensor in read_shard(out / "model.safetensors").tensors:
        assert tensor.offset % {"F32": 4, "F16": 2}[tensor.dtype] == 0


def test_wrong_blocks_are_caught(tmp_path):
    source = open_source(save("llama-tied", tmp_path / "in"))
    good = same_table(source, "input")
    from dataclasses import replace

    cases = {
        "came where": replace(good, shape=(301, 16)),
        "a block of": replace(good, dtype=torch.bfloat16),
        "width": replace(good, shape=(300, 17)),
    }
    for number, (message, table) in enumerate(cases.items()):
        out = tmp_path / str(number)
        out.mkdir()
        with pytest.raises(ValueError, match=message):
            write_checkpoint_tensors(source, out, {"input": table}, {})
    with pytest.raises(ValueError, match="tables for"):
        write_checkpoint_tensors(source, tmp_path, {"input": good, "output": good}, {})


def test_too_small_a_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    folder = save("llama-tied", tmp_path / "in")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(TokenAdaptError, match="bytes of disk, and 1 are free"):
        write_wider(folder, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn)


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.tuples(st.integers(0, len(DTYPES) - 1), st.integers(0, 5), st.integers(1, 3)), max_size=6),
    place=st.integers(0, 6),
    rows=st.integers(1, 9),
    kind=st.integers(0, 2),
)
def test_a_new_tensor_among_any_others_leaves_them_as_they_were(kinds, place, rows, kind, tmp_path_factory):
    """Read by the reference implementation, whatever types and odd sizes stand around the new tensor."""
    folder = tmp_path_factory.mktemp("shard")
    drawn = torch.Generator().manual_seed(rows)
    old = {f"t{n}": torch.randint(0, 2, (a, b), generator=drawn).to(DTYPES[k]) for n, (k, a, b) in enumerate(kinds)}
    save_file({**old, "table": torch.zeros(2, 3)}, folder / "old.safetensors", metadata={"made": "by hand"})
    shard = read_shard(folder / "old.safetensors")
    new = random_table(rows, 3, DTYPES[kind])
    items = [old_item(ref) for ref in shard.tensors if ref.name != "table"]
    items.insert(place, table_item("table", new))
    written = write_shard(shard, folder / "new.safetensors", aligned(items), lambda amount: None)
    with safe_open(folder / "new.safetensors", "pt") as file:
        assert file.metadata() == {"made": "by hand", "format": "pt"}
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert held.keys() == {*old, "table"} == {tensor.name for tensor in written}
    assert torch.equal(held["table"], whole(new))
    for name, tensor in old.items():
        assert held[name].dtype == tensor.dtype
        assert held[name].shape == tensor.shape
        assert held[name].flatten().view(torch.uint8).tolist() == tensor.flatten().view(torch.uint8).tolist()


@pytest.mark.real
@pytest.mark.parametrize("name", ["smollm2", "stories15m"])
def test_an_identity_table_gives_identical_files_of_real_models(name, bench, tmp_path):
    source = open_source(bench / name)
    write_checkpoint_tensors(source, tmp_path, {"input": same_table(source, "input", 8192)}, {})
    one, other = bench / name / "model.safetensors", tmp_path / "model.safetensors"
    assert digest_range(one, 0, one.stat().st_size) == digest_range(other, 0, other.stat().st_size)
