"""Whole runs on checkpoint folders: the library call, the command, its bad inputs, and interruption."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file

from tests.evaluation.conftest import Text
from tokenadapt.cli import cli
from tokenadapt.errors import RequestError, Terminated, TokenAdaptError
from tokenadapt.evaluation import EvalOptions, ScoreOptions, evaluate
from tokenadapt.evaluation import run as run_module
from tokenadapt.evaluation.run import short_names
from tokenadapt.vocab.types import How

QUICK = EvalOptions(ScoreOptions(context=32), bootstrap=20)
DOCUMENTS = [
    Text("the quick brown fox", "en"),
    Text("Die Straße", "de"),
    Text("", "de"),
    Text(" ", "en"),
    Text("x", "en"),
]


def command(*words: object):
    return CliRunner().invoke(cli, ["eval-ppl", *map(str, words)])


def planned(folder, checkpoint, how: np.ndarray):
    """A copy of a checkpoint that says how its rows were made."""
    shutil.copytree(checkpoint, folder)
    save_file({"alignment.how": how}, folder / "transplant.plan")
    return folder


def test_models_are_compared_over_the_same_bytes(checkpoint, other):
    result = evaluate([str(checkpoint), str(other)], DOCUMENTS, QUICK)
    assert result.texts.nbytes.tolist() == [19, 11, 0, 1, 1]
    assert [model.name for model in result.models] == ["tiny", "other"]
    first, second = result.rows()[:2]
    assert first.measures.bytes == second.measures.bytes == 32
    assert second.excess == pytest.approx(second.measures.bits_per_byte - first.measures.bits_per_byte)
    # Random rows know nothing: about log2 of the vocabulary for each token.
    assert first.measures.bits / first.measures.tokens == pytest.approx(np.log2(405), rel=0.05)


def test_the_same_model_twice_differs_by_nothing(checkpoint):
    second = evaluate([str(checkpoint)] * 2, DOCUMENTS, QUICK).rows()[1]
    assert second.model == "tiny (2)"
    assert second.excess == 0
    assert second.excess_interval == (0, 0)


def test_a_transplanted_model_is_split_by_origin(checkpoint, tmp_path):
    how = np.full(400, How.COPIED, dtype=np.uint8)
    how[200:] = How.MISSING
    folder = planned(tmp_path / "moved", checkpoint, how)
    model = evaluate([str(folder)], DOCUMENTS, EvalOptions(ScoreOptions(context=32), worst=3)).models[0]
    parts = {part.name: part for part in model.parts["rows"]}
    assert sum(part.bytes for part in parts.values()) == 32
    assert sum(part.bits for part in parts.values()) == pytest.approx(model.bits.sum())
    assert parts["new"].tokens > 0
    assert {token.how for token in model.worst} <= {"copied", "new"}


def test_a_broken_plan_is_named(checkpoint, tmp_path):
    folder = planned(tmp_path / "moved", checkpoint, np.zeros(3, dtype=np.uint8))
    (folder / "transplant.plan").write_bytes(b"no tensors")
    with pytest.raises(TokenAdaptError, match=r"transplant\.plan cannot be read"):
        evaluate([str(folder)], DOCUMENTS, QUICK)


def test_the_reference_tokenizer_counts_for_one_perplexity(checkpoint, other):
    options = EvalOptions(ScoreOptions(context=32), reference=str(other), bootstrap=0)
    row = evaluate([str(checkpoint)], DOCUMENTS, options).rows()[0].measures
    tokens = evaluate([str(other)], DOCUMENTS, QUICK).rows()[0].measures.tokens
    assert np.log2(row.reference_perplexity) == pytest.approx(row.bits / tokens)


def test_every_token_goes_to_parquet(checkpoint, other, tmp_path):
    options = EvalOptions(ScoreOptions(context=32), per_token=tmp_path / "tokens.parquet", bootstrap=0)
    result = evaluate([str(checkpoint), str(other)], DOCUMENTS, options)
    rows = pyarrow.parquet.read_table(tmp_path / "tokens.parquet").to_pylist()
    for model in result.models:
        own = [row for row in rows if row["model"] == model.name]
        assert sum(row["bits"] for row in own) == pytest.approx(model.bits.sum())
        assert sum(row["bytes"] for row in own) == 32
        assert len(own) == model.tokens.sum()
        assert {row["subset"] for row in own if row["document"] == 1} == {"de"}
        assert next(row["offset"] for row in own if row["document"] == 1 and row["token"] == 0) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.parquet"]


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_an_interruption_leaves_a_partial_result(checkpoint, monkeypatch, tmp_path, stop, code):
    documents = [Text("the dog sleeps " * many, "en") for many in (9, 1, 5, 2)]
    original, seen = run_module.Scorer.bits, []

    def interrupted(scorer, batch, targets):
        seen.append(batch)
        if len(seen) == 3:
            raise stop
        return original(scorer, batch, targets)

    monkeypatch.setattr(run_module.Scorer, "bits", interrupted)
    options = EvalOptions(ScoreOptions(batch_tokens=1), bootstrap=0, per_token=tmp_path / "tokens.parquet")
    result = evaluate([str(checkpoint)], documents, options)
    assert result.interrupted == code
    assert result.models[0].scored.tolist() == [True, False, True, False]  # longest first
    assert result.rows()[0].measures.documents == 2
    assert list(tmp_path.iterdir()) == []


def test_names_tell_models_apart():
    assert short_names(["a/x", "b/x", "x/y"], ["y"]) == ["x", "x (2)", "y (2)"]


def test_the_command_prints_tables(checkpoint, other, texts):
    done = command(
        checkpoint, other, "-d", texts, "--documents", "paragraph", "--bootstrap", 20, "--where", "--worst", 2
    )
    assert done.exit_code == 0, done.output
    for part in ("Bits per byte by subset", "prose", "mixed", "Loss by kind of byte", "Worst tokens of other", "begin"):
        assert part in done.stdout


def test_the_command_prints_json_that_a_baseline_can_be_made_from(checkpoint, other, texts, tmp_path):
    saved = tmp_path / "run.json"
    first = command(checkpoint, "-d", texts, "--json", "--save", saved)
    assert first.exit_code == 0, first.output
    figure = json.loads(first.stdout)["bits_per_byte"]
    both = command(other, "-d", texts, "--json", "--baseline", saved)
    models = json.loads(both.stdout)["models"]
    assert [model["model"] for model in models] == ["tiny", "other"]
    assert models[0]["bits_per_byte"] == figure
    assert models[1]["excess"] == pytest.approx(models[1]["bits_per_byte"] - figure)
    assert json.loads(saved.read_text())["per_document"]["subset"] == ["mixed", "prose"]


@pytest.mark.parametrize(
    ("more", "said"),
    [(("--limit-bytes", 50), "other documents"), (("--context", 16), "context None"), (("--bos", "never"), "bos")],
)
def test_a_baseline_of_another_run_is_refused(checkpoint, texts, tmp_path, more, said):
    saved = tmp_path / "run.json"
    command(checkpoint, "-d", texts, "--save", saved)
    with pytest.raises(RequestError, match=said):
        CliRunner().invoke(
            cli, ["eval-ppl", str(checkpoint), "-d", str(texts), "--baseline", str(saved), *map(str, more)],
            catch_exceptions=False,
        )  # fmt: skip


def test_markdown_for_papers(checkpoint, texts):
    done = command(checkpoint, "-d", texts, "--markdown")
    assert done.stdout.startswith("**Bits per byte**\n\n| model |")


def test_standard_input_is_text_too(checkpoint):
    done = CliRunner().invoke(cli, ["-q", "eval-ppl", str(checkpoint), "-d", "-", "--json"], input="the dog")
    assert json.loads(done.stdout)["corpus"]["bytes"] == 7


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_text_without_text(checkpoint, tmp_path, text):
    path = tmp_path / "empty.txt"
    path.write_text(text)
    done = command(checkpoint, "-d", path, "--json", "--on-error", "skip")
    if text:
        assert json.loads(done.stdout)["corpus"]["bytes"] == 1
    else:
        assert isinstance(done.exception, RequestError)
        assert "no text" in str(done.exception)


@pytest.mark.parametrize("text", [" ", "a", " \n\t ", "é"])
def test_little_text_has_figures(checkpoint, other, tmp_path, text):
    path = tmp_path / "little.txt"
    path.write_text(text, encoding="utf-8")
    report = json.loads(command(checkpoint, other, "-d", path, "--json").stdout)
    assert report["models"][0]["bytes"] == len(text.encode())
    assert report["models"][0]["bits_per_byte"] > 0
    assert report["models"][0]["interval"] is None


def test_bytes_that_are_no_utf8_are_named(checkpoint, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Straße\nfine\n".encode("latin-1"))
    done = command(checkpoint, "-d", path)
    assert isinstance(done.exception, TokenAdaptError)
    assert "line 1" in str(done.exception)
    assert command(checkpoint, "-d", path, "--on-error", "skip").exit_code == 0


def test_a_long_document_is_read_in_pieces(checkpoint, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("the dog sleeps on\n" * 200)
    report = json.loads(command(checkpoint, "-d", path, "--json", "--document-bytes", 500).stdout)
    assert report["corpus"]["documents"] > 7
    assert report["corpus"]["bytes"] == 3600


def test_a_model_without_a_tokenizer_is_refused(checkpoint, texts, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint, bare, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    done = command(bare, "-d", texts)
    assert isinstance(done.exception, RequestError)
    assert "tokenizer" in str(done.exception)


def test_a_model_with_fewer_rows_than_its_tokenizer_is_refused(checkpoint, texts, tmp_path):
    from tests.tiny import tiny_model

    small = tmp_path / "small"
    shutil.copytree(checkpoint, small)
    tiny_model(30).save_pretrained(small)
    done = command(small, "-d", texts)
    assert "only 30 rows" in str(done.exception)


def test_a_checkpoint_that_lacks_weights_is_refused(checkpoint, texts, tmp_path):
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save

    torn = tmp_path / "torn"
    shutil.copytree(checkpoint, torn)
    state = load_file(torn / "model.safetensors")
    del state["model.norm.weight"]
    save(state, torn / "model.safetensors", metadata={"format": "pt"})
    done = command(torn, "-d", texts)
    assert "lacks 1 tensors" in str(done.exception)


def test_nan_rows_are_named(checkpoint, texts, tmp_path):
    from transformers import AutoModelForCausalLM

    ill = tmp_path / "ill"
    shutil.copytree(checkpoint, ill)
    model = AutoModelForCausalLM.from_pretrained(ill)
    with torch.no_grad():
        model.model.norm.weight[:] = float("nan")
    model.save_pretrained(ill)
    done = command(ill, "-d", texts)
    assert "NaN" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--save", "/nowhere/at/all.json"], "no folder"),
        (["--device", "warp:9"], "cannot be used"),
        (["--context", "99999"], "128 positions"),
        (["--masked"], "masked language model"),
    ],
)
def test_wrong_requests_say_what_is_wrong(checkpoint, texts, words, said):
    done = command(checkpoint, "-d", texts, *words)
    assert isinstance(done.exception, TokenAdaptError)
    assert said in str(done.exception)


def test_bfloat16_is_close_to_float32(checkpoint, texts):
    figures = [
        json.loads(command(checkpoint, "-d", texts, "--json", "--dtype", dtype).stdout)
        for dtype in ("float32", "bfloat16")
    ]
    assert figures[1]["models"][0]["dtype"] == "bfloat16"
    assert figures[1]["bits_per_byte"] == pytest.approx(figures[0]["bits_per_byte"], rel=5e-3)
