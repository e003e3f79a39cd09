"""`configs/`: links to the recipes that ship, and commented examples that work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import tokenadapt
from tokenadapt.methods import parse_method
from tokenadapt.recipe import TransplantOptions, read_recipe, shipped, with_recipe

CONFIGS = Path(__file__).parents[1] / "configs"
OPTIONS = TransplantOptions("model", "tokenizer", "out")


def test_every_shipped_recipe_is_linked():
    links = {path.stem: path.resolve() for path in CONFIGS.iterdir() if path.is_symlink()}
    assert links == {name: path.resolve() for name, path in shipped().items()}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_is_a_recipe_whose_methods_exist(path):
    options = with_recipe(OPTIONS, read_recipe(str(path)), frozenset())
    for method in filter(None, (options.method, options.output_method, options.fallback)):
        parse_method(method)
    assert path.read_text().startswith("#")


def test_the_default_recipe_says_what_the_defaults_are():
    assert with_recipe(OPTIONS, read_recipe("default"), frozenset()) == OPTIONS


def test_the_published_settings():
    """arXiv 2505.09738 and its program: where they differ, both ship."""
    paper, code = read_recipe("tokenadapt-paper"), read_recipe("tokenadapt-code")
    assert parse_method(paper["method"]).options["tau"] == 0.6
    assert parse_method(code["method"]).options["tau"] == 0.3
    assert (code["pad_to_multiple"], code["dtype"]) == (128, "float32")
    assert paper["fallback"] == code["fallback"] == "normal"


def test_an_example_runs_and_the_command_line_wins(tmp_path, tokenizers):
    tokenizers["unigram"].save_pretrained(tmp_path / "tokenizer")
    words = ("transplant", "pocket", tmp_path / "tokenizer", tmp_path / "out", "--config", CONFIGS / "example.yaml")
    for more, rows in (((), 128), (("--pad-to-multiple", "1"), 101)):
        said = tokenadapt("-q", *words, "--dry-run", "--json", *more)
        assert said.code == 0, said.err
        assert json.loads(said.out)["overlap"]["target_rows"] == rows
