"""`--dry-run`: what a transplant would do and take, without reading a weight or writing a byte."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.command import refused, tokenadapt, untouched
from tests.tiny import save_tiny
from tokenadapt.checkpoint.tables import FileTable


@pytest.fixture(scope="module", params=["tied", "untied"])
def given(request, tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dry")
    save_tiny(folder / "model", tokenizers["bytelevel-bpe"], tied=request.param == "tied", extra_rows=8)
    tokenizers["unigram"].save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def no_weights(monkeypatch):
    """Any row that is read is an error."""

    def rows(self, ids):
        raise AssertionError("a weight was read")

    monkeypatch.setattr(FileTable, "rows", rows)


def dry(given, *options, **inputs):
    model, tokenizer = inputs.get("model", given / "model"), inputs.get("tokenizer", given / "tokenizer")
    with untouched(given):
        said = tokenadapt("-q", "transplant", model, tokenizer, given / "out", "--dry-run", *options)
    assert said.code == 0, said.err
    return said.out


def test_it_shows_overlap_special_tokens_and_what_it_takes(given, no_weights):
    said = dry(given)
    for words in (
        "copied: the same bytes", "missing: a method makes the row", "Spelled alike", "special token", "</s>",
        "no chat template", "of disk", "of memory", " s ", "Nothing was written",
    ):  # fmt: skip
        assert words in said


def test_json(given, no_weights):
    found = json.loads(dry(given, "--json", "--pad-to-multiple", "64"))
    overlap = found["overlap"]
    assert sum(overlap["counts"].values()) == overlap["target_rows"] == 128
    assert {token["token"]: token["source_token"] for token in overlap["specials"]} == {
        name: name for name in ("<unk>", "<s>", "</s>", "<pad>")
    }
    tables = 1 if json.loads((given / "model" / "config.json").read_text())["tie_word_embeddings"] else 2
    assert found["new_table_bytes"] == tables * 128 * 32 * 4
    assert found["old_table_bytes"] == tables * 408 * 32 * 4
    assert min(found["memory_bytes"], found["disk_bytes"], found["seconds"]) > 0


def test_it_agrees_with_the_run(given):
    planned = json.loads(dry(given, "--json", "--method", "pieces"))
    done = tokenadapt(
        "-q", "transplant", given / "model", given / "tokenizer", given / "real", "--method", "pieces", "--json",
        "--verify", "tables",
    )  # fmt: skip
    try:
        assert json.loads(done.out)["overlap"] == planned["overlap"]
        written = sum(path.stat().st_size for path in (given / "real").glob("*.safetensors"))
        assert written == pytest.approx(planned["disk_bytes"], rel=0.1)
    finally:
        shutil.rmtree(given / "real")


def test_a_dry_run_of_types_and_ties_counts_them(given, no_weights):
    plain, half = (json.loads(dry(given, "--json", "--untie", *more)) for more in ((), ("--dtype", "bfloat16")))
    assert plain["new_table_bytes"] == 2 * half["new_table_bytes"] == 2 * 101 * 32 * 4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--method", "piecs"], "no method"),
        (["--method", "local", "--space", "nowhere"], "no space"),
        (["--map", "no-such=a"], "no-such"),
    ],
)
def test_what_the_run_would_refuse_is_refused(given, options, word):
    with untouched(given):
        said = refused(
            2, "transplant", given / "model", given / "tokenizer", given / "out", "--dry-run", *options
        )  # fmt: skip
    assert word in said


def test_outputs_that_the_run_would_refuse(given, tmp_path):
    (tmp_path / "there").mkdir()
    words = ("transplant", given / "model", given / "tokenizer")
    assert "exists already" in refused(2, *words, tmp_path / "there", "--dry-run")
    assert "lies inside the input" in refused(2, *words, given / "model" / "out", "--dry-run")
    assert tokenadapt("-q", *words, tmp_path / "there", "--dry-run", "--overwrite").code == 0
