"""`--dry-run`: what a transplant would do and take, without reading a weight or writing a byte."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.command import refused, tokenadapt, untouched
from tests.tiny import save_tiny
from tokenadapt.checkpoint.tables import FileTable
from tokenadapt.cli.session import duration
from tokenadapt.methods import parse_method
from tokenadapt.methods.work import Sizes, Work, work_of


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


def test_time_is_said_to_be_a_cpus_where_a_gpu_will_run_the_model(given, no_weights):
    for more, noted in (((), False), (("--device", "cuda"), True), (("--device", "cuda", "--method", "pieces"), False)):
        assert ("a GPU runs the source model far faster" in dry(given, *more)) == noted


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


def test_a_method_that_runs_the_model_takes_longer_and_more_memory(given, no_weights):
    def plan(*options):
        return json.loads(dry(given, "--json", *options))

    rows, learned = plan("--method", "hybrid"), plan("--method", "learned")
    low, full = plan("--effort", "low"), plan("--method", "stacked:texts=4000")
    for what in ("seconds", "memory_bytes"):
        assert rows[what] < learned[what] < low[what] < full[what]
    assert plan("--method", "learned:effort=none")["memory_bytes"] == rows["memory_bytes"] - _vectors(rows)


def _vectors(found):
    return 4 * (found["overlap"]["source_rows"] + found["overlap"]["counts"]["missing"]) * 768


def test_work_by_hand():
    sizes = Sizes(source_rows=1000, target_rows=3000, missing=2000, width=10)
    learned = work_of([parse_method("learned:effort=low")], sizes)
    assert learned == Work(1.6 * 3000 / 5, 0, 2 * 2000 * 10 + 120e6)
    assert work_of([parse_method("pieces"), parse_method("learned:effort=none")], sizes) == Work()
    both = [parse_method("stacked:texts=100,effort=low"), parse_method("learned:effort=low")]
    assert work_of(both, sizes).layers == pytest.approx(learned.layers + 2.1 * 72 * 100)
    assert work_of(both + both, sizes) == work_of(both, sizes)
    assert work_of(both, sizes).logits == 72 * 100 * 4000
    named = work_of([parse_method("auto:of=learned:effort=low")], sizes)
    assert named.layers == pytest.approx(learned.layers + 2.1 * 272 * 128)
    assert work_of([parse_method("chain")], sizes).layers == 1.6 * 3000


def test_a_time_for_people():
    assert [duration(seconds) for seconds in (7.6, 119, 1500, 9000)] == ["8 s", "119 s", "25 minutes", "2.5 hours"]
