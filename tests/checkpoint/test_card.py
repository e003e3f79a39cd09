"""The model card says what a stranger needs: overlap, method, ids, loading, serving, sources."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from tokenadapt.checkpoint.card import CardFacts, pre_tokenizer_hash, render_card, source_license, write_card
from tokenadapt.checkpoint.ids import Change
from tokenadapt.checkpoint.manifest import Input, Manifest
from tokenadapt.vocab.load import load_tokenizer

MANIFEST = Manifest(
    source=Input("someone/small-model", rows=49152),
    target=Input("other/tokenizer"),
    methods={"output": "hybrid:k=3"},
    options={"space": "self", "map": (), "note": "a|b", "untie": False, "settings": {"output": {}}, "verify": "full"},
    seed=7,
    counts={"copied": 700, "special": 4, "mapped": 0, "missing": 288, "unused": 8, "adjusted": 0},
    spelled_alike=500,
    tied=True,
    tables={"input": "model.embed_tokens.weight"},
    tensors=(),
    shards=(),
    files={},
    changes=(Change("config.json", "eos_token_id", 2, 5),),
    chat="the target tokenizer's own chat template",
    versions={"tokenadapt": "0.1"},
    verify={"level": "full", "checks": [{"verdict": "pass"}, {"verdict": "warning"}]},
)
FACTS = CardFacts(
    citations=("TokenAdapt, arXiv 2505.09738", "FVT, Gee et al. 2022, arXiv 2402.09977"),
    source_license={"license": "apache-2.0"},
    unused=(990, 991, 992, 995),
    pre_tokenizer="abc123",
)


def test_the_front_matter_is_what_the_hub_reads():
    data = ModelCard(render_card(MANIFEST, FACTS)).data
    assert data.base_model == "someone/small-model"
    assert data.library_name == "transformers"
    assert data.license == "apache-2.0"
    assert "tokenadapt" in data.tags
    assert data.pipeline_tag == "text-generation"


def test_a_local_source_is_no_base_model_and_no_license_is_made_up():
    card = render_card(replace(MANIFEST, source=Input("folder")), CardFacts())
    front = yaml.safe_load(card.split("---")[1])
    assert "base_model" not in front
    assert "license" not in front


@pytest.mark.parametrize(
    "said",
    [
        "| copied: same bytes as a token of the source | 700 | 70.0% |",
        "| made by the method | 288 | 28.8% |",
        "704 tokens have a row in the source; by spelling it would be 500",
        "| method, output | hybrid:k=3 |",
        "| note | a\\|b |",
        "| seed | 7 |",
        "config.json eos_token_id: 2 -> 5",
        "AutoModelForCausalLM.from_pretrained(folder)",
        "1,000, which allows tensor-parallel over 2, 4, 8",
        "`abc123`",
        "990-992, 995",
        "suppress_tokens",
        "passed 2 checks at level `full`, 1 of which warn",
        "2505.09738",
        "arXiv 2402.09977",
        "tokenadapt verify",
    ],
)
def test_it_says(said):
    assert said in render_card(MANIFEST, FACTS)


@pytest.mark.parametrize(("kind", "cls"), [("masked", "AutoModelForMaskedLM"), ("seq2seq", "AutoModelForSeq2SeqLM")])
def test_other_kinds_of_model(kind, cls):
    assert cls in render_card(MANIFEST, CardFacts(kind=kind))


def test_options_left_empty_or_without_effect_are_not_listed():
    card = render_card(MANIFEST, FACTS)
    assert not any(f"| {key} |" in card for key in ("map", "untie", "settings", "verify"))


def test_factors_are_told_and_what_a_calibration_makes_of_them():
    run = {
        "train": "rows", "parameters": 9, "objective": "o", "data": "d", "coverage": {"tokens": 1, "seen": 1, "new": 1},
        "curve": [{"tokens": 1, "step": 1, "seconds": 1.0}], "source": 1.0, "before": 2.0, "after": 1.5,
    }  # fmt: skip
    factors = {"output": {"rank": 100, "lost_new": 0.0, "lost_copied": 0.125}}
    card = render_card(replace(MANIFEST, factors=factors, calibrations=(run,)), FACTS)
    assert "| output | 100 | 0.0% | 12.5% |" in card
    assert "`transplant.plan` and `transplant.factors` describe the rows before" in card
    assert "transplant.factors" not in render_card(replace(MANIFEST, calibrations=(run,)), FACTS)


def test_the_license_of_the_source_is_carried(tmp_path):
    assert source_license(tmp_path) == {}
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: x\ntags: [a]\n---\n# Model\n")
    assert source_license(tmp_path) == {"license": "other", "license_name": "x"}
    for text in ("# no front matter", "---\n: [\n---\n", "---\nlicense: [a, b]\n---\n"):
        (tmp_path / "README.md").write_text(text)
        assert source_license(tmp_path) == {}


def test_it_is_written(tmp_path):
    write_card(tmp_path, MANIFEST, FACTS)
    assert (tmp_path / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0\n")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("gpt2", "3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454"),
        ("llama3", "0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5"),
        ("qwen3", "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea"),
    ],
)
def test_pre_tokenizer_hashes_are_those_of_llama_cpp(name, known, bench):
    assert pre_tokenizer_hash(load_tokenizer(str(bench / name)).fast.encode) == known
