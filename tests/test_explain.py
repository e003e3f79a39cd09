"""`tokenadapt explain`: how single rows came about, for tokens named in any of the ways in which people name them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.command import refused, tokenadapt
from tests.tiny import save_tiny
from tokenadapt.checkpoint.saved_plan import load_plan


@pytest.fixture(scope="module", params=["tied", "untied"])
def result(request, tokenizers, tmp_path_factory):
    """A result with tokens of every origin: copied, special, mapped, missing, unspellable, unused and padding."""
    folder = tmp_path_factory.mktemp("explain")
    save_tiny(folder / "model", tokenizers["unigram"], tied=request.param == "tied")
    tokenizers["bytelevel-bpe"].save_pretrained(folder / "tokenizer")
    said = tokenadapt(
        "-q", "transplant", folder / "model", folder / "tokenizer", folder / "out", "--method", "pieces",
        "--map", "#=+", "--pad-to-multiple", "64", "--verify", "tables", "--calibrate-norm",
    )  # fmt: skip
    assert said.code == 0, said.err
    return folder


def explain(result, *tokens):
    said = tokenadapt("explain", result / "out", "--json", *tokens)
    assert said.code == 0, said.err
    return json.loads(said.out)


def roles(result):
    tied = json.loads((result / "out" / "config.json").read_text())["tie_word_embeddings"]
    return ["tied"] if tied else ["input", "output"]


def test_a_token_is_found_as_text_by_its_spelling_and_by_its_id(result):
    [by_text, by_spelling] = explain(result, " dog", "Ġdog")
    assert by_text == by_spelling
    assert explain(result, f"#{by_text['id']}") == [by_text]
    assert by_text["bytes"] == b" dog".hex(" ")
    assert [role["role"] for role in by_text["roles"]] == roles(result)


def test_text_comes_before_spelling(result):
    """As in maps: é is one token of two bytes, and also the letter that stands for the byte E9."""
    assert explain(result, "é")[0]["bytes"] == "c3 a9"


def test_a_missing_token_shows_its_pieces_their_weights_and_its_norm(result):
    [found] = explain(result, "Ġold")
    assert found["how"] == "missing"
    tensors, saved = load_file(result / "out" / "model.safetensors"), load_plan(result / "out")
    for role in found["roles"]:
        mix = role["contributions"]
        assert "".join(each["token"] for each in mix) == " old"
        assert [each["weight"] for each in mix] == pytest.approx([1 / len(mix)] * len(mix))
        assert role["made_by"] == "pieces, then norm"
        table = tensors["lm_head.weight" if role["role"] == "output" else "model.embed_tokens.weight"]
        assert role["norm"] == pytest.approx(float(table[found["id"]].norm()), rel=1e-5)
        copied = np.flatnonzero(saved.alignment.source_id >= 0)
        middle = float(np.median(table[copied].norm(dim=1).numpy()))
        assert role["copied_norms"][1] == pytest.approx(middle, rel=1e-5)


def test_the_nearest_rows_are_the_nearest(result):
    [found] = explain(result, "Ġold")
    role = found["roles"][-1]
    tensors = load_file(result / "out" / "model.safetensors")
    table = tensors["lm_head.weight" if role["role"] == "output" else "model.embed_tokens.weight"].double()
    unit = table / table.norm(dim=1, keepdim=True)
    cosine = unit @ unit[found["id"]]
    cosine[found["id"]] = -2
    assert [near[2] for near in role["nearest"]] == pytest.approx(cosine.topk(5).values.tolist(), abs=1e-5)


def test_copied_special_mapped_and_unused_rows(result):
    copied, special, mapped, padding = explain(result, "a", "<s>", "#", f"#{_rows(result) - 1}")
    assert (copied["how"], special["how"], mapped["how"], padding["how"]) == ("copied", "special", "mapped", "unused")
    assert [each["token"] for each in copied["roles"][0]["contributions"]] == ["a"]
    assert [each["token"] for each in special["roles"][0]["contributions"]] == ["<s>"]
    assert special["bytes"] is None
    assert padding["roles"][0]["made_by"] == "the rule for unused ids"
    assert not padding["roles"][0]["contributions"]


def _rows(result):
    return json.loads((result / "out" / "config.json").read_text())["vocab_size"]


def test_for_people(result):
    said = tokenadapt("explain", result / "out", " old", "<s>")
    assert said.code == 0
    for words in ("' old', id ", "missing", "old token", "0.3333", "nearest now:", "holds no text: special"):
        assert words in said.out


def test_a_row_that_is_a_mean_of_all_says_so(result):
    """A byte that no old token spells takes the fallback, the mean of all old rows."""
    said = tokenadapt("explain", result / "out", "ð")
    assert said.code == 0, said.err
    assert "the mean of all old rows" in said.out
    assert explain(result, "ð")[0]["roles"][0]["contributions"] == [
        {"source_id": None, "token": "the mean of all old rows", "weight": 1.0}
    ]


@pytest.mark.parametrize("token", ["no such token", "#99999", ""])
def test_what_is_no_token(result, token):
    said = refused(2, "explain", result / "out", token)
    assert "no token" in said or "no row" in said


def test_folders_without_a_plan(result, tmp_path):
    assert "no saved plan" in refused(2, "explain", result / "model", "a")
    assert "no saved plan" in refused(2, "explain", tmp_path / "none", "a")


def test_code_that_comes_with_a_result_is_not_run_unasked(result, tmp_path):
    shutil.copytree(result / "out", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}}
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | own))
    (tmp_path / "out" / "own.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    said = refused(2, "explain", tmp_path / "out", "#5")
    assert "--trust-remote-code" in said
    assert not (tmp_path / "it ran").exists()
    tokenadapt("explain", tmp_path / "out", "#5", "--trust-remote-code")  # which that file does not survive
    assert (tmp_path / "it ran").exists()
