"""The record of a transplant: complete, free of paths and secrets, and read back as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.checkpoint.small_road import small_road, source_folder, target_folder
from tokenadapt.checkpoint.card import CardFacts, render_card
from tokenadapt.checkpoint.manifest import describe_input, file_digest, library_versions, read_manifest
from tokenadapt.errors import RequestError


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("road")
    return small_road(source_folder(folder / "model"), target_folder(folder / "tokenizer"), folder / "out")


def test_it_comes_back_as_it_was(out, tmp_path):
    manifest = read_manifest(out)
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert manifest.rows == sum(manifest.counts.values()) == manifest.tensors[0].shape[0]
    assert {tensor.name for tensor in manifest.tensors if tensor.new} == {"model.embed_tokens.weight"}
    assert manifest.files["tokenizer.json"] == file_digest(out / "tokenizer.json")
    assert manifest.changes


def test_it_names_no_path_of_the_machine(out):
    text = (out / "transplant.json").read_text()
    assert str(out.parent) not in text
    assert json.loads(text)["source"]["spec"] == "model"


@pytest.mark.parametrize("secret", ["hf_abcdefghijkl0123", "https://me:pass@host/x", "x?token=abc123"])
def test_secrets_in_options_are_not_written(out, tmp_path, secret):
    replace(read_manifest(out), options={"space": secret}).write(tmp_path)
    text = (tmp_path / "transplant.json").read_text()
    assert not any(part in text for part in ("hf_abcdefghijkl0123", "me:pass", "abc123"))
    read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "a\\b", ".."])
def test_files_outside_the_folder_are_refused(out, name):
    with pytest.raises(ValueError, match="own folder"):
        replace(read_manifest(out), files={name: "0"})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("ofa:vectors=/home/me/w.vec,k=3", "ofa:vectors=w.vec,k=3"),
        ("wechsel:source=~me/a/x.vec,target=../b/y.vec", "wechsel:source=x.vec,target=y.vec"),
        ("static:/srv/models/potion", "static:potion"),
        (r"C:\Users\me\words.txt", "words.txt"),
        (
            ["/data/text.jsonl", "hf://datasets/own/name", "own/name"],
            ["text.jsonl", "hf://datasets/own/name", "own/name"],
        ),
        ({"vectors": {"file": "/tmp/w.vec", "sha256": "ab"}}, {"vectors": {"file": "w.vec", "sha256": "ab"}}),
        ("auto:of=pieces+hybrid", "auto:of=pieces+hybrid"),
        (3, 3),
    ],
)
def test_of_paths_in_options_the_last_name_is_told(out, tmp_path, value, told):
    made = replace(read_manifest(out), options={"x": value}, methods={"input": "ofa:vectors=/home/me/w.vec"})
    made.write(tmp_path)
    assert read_manifest(tmp_path).options == {"x": told}
    assert read_manifest(tmp_path).methods == {"input": "ofa:vectors=w.vec"}
    assert "/me/" not in render_card(made, CardFacts())


def test_numbers_of_every_library_are_plain(out, tmp_path):
    options = {"a": np.float32(0.5), "b": np.int64(3), "c": torch.tensor(2), "d": tmp_path / "name"}
    replace(read_manifest(out), options=options).write(tmp_path)
    assert read_manifest(tmp_path).options == {"a": 0.5, "b": 3, "c": 2, "d": "name"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "not made by transplant"),
        ("{", "damaged"),
        ('{"version": 99}', "format 99"),
        ('{"version": 1}', "damaged"),
    ],
)
def test_bad_manifests(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "transplant.json").write_text(text)
    with pytest.raises(RequestError, match=sentence):
        read_manifest(tmp_path)


def test_a_hub_snapshot_keeps_its_name_and_revision(tmp_path):
    digest = "a" * 64
    cache = tmp_path / "models--own--name"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / digest).write_text("not hashed again")
    snapshot = cache / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(cache / "blobs" / digest)
    made = describe_input("own/name", snapshot, ("model.safetensors", "absent.json"))
    assert (made.spec, made.revision, made.files) == ("own/name", "c" * 40, {"model.safetensors": digest})


def test_a_single_file_is_hashed(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    made = describe_input(str(tmp_path / "tokenizer.json"), tmp_path / "tokenizer.json")
    assert made.spec == "tokenizer.json"
    assert list(made.files) == ["tokenizer.json"]


def test_versions_are_those_of_this_run():
    assert library_versions()["torch"] == torch.__version__
