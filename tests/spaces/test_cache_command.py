from __future__ import annotations

from click.testing import CliRunner

from tests.spaces.test_cache import keys_of, vectors_of
from tokenadapt.cli import cli
from tokenadapt.spaces.cache import VectorCache


def fill(name):
    made = VectorCache(name, {"content": name})
    made.require_writable()
    made.add(keys_of(range(1000)), vectors_of(range(1000)))
    return made.folder


def run(*arguments, **options):
    return CliRunner().invoke(cli, arguments, catch_exceptions=False, **options)


def test_an_empty_cache_says_where_it_would_be(cache_dir):
    assert run("cache").output == f"The vector cache {cache_dir / 'vectors'} is empty.\n"
    assert run("cache", "clear").output == "Deleted 0 encoder(s), 0 bytes.\n"


def test_show_then_clear_one_then_all(cache_dir):
    one, two = fill("hf:one"), fill("hf:two")
    shown = run("cache").output
    assert str(cache_dir) in shown
    assert one.name in shown
    assert "1,000" in shown
    assert "24.1 kB" in shown
    refused = run("cache", "clear", one.name, input="n\n")
    assert refused.exit_code == 1
    assert one.is_dir()
    assert run("cache", "clear", one.name, input="y\n").output.endswith("Deleted 1 encoder(s), 24.1 kB.\n")
    assert not one.exists()
    assert two.is_dir()
    assert run("cache", "clear", "--yes").exit_code == 0
    assert not two.exists()


def test_models_own_texts_are_shown_and_cleared(cache_dir):
    one = fill("hf:one")
    texts = cache_dir / "texts" / "0123.json"
    texts.parent.mkdir()
    texts.write_text("[]" * 500)
    assert f"1 collection(s) of models' own texts, 1.0 kB, in {cache_dir / 'texts'}." in run("cache").output
    assert run("cache", "clear", one.name, input="y\n").exit_code == 0
    assert texts.exists()
    assert run("cache", "clear", "texts", "--yes").output.endswith("Deleted 1 collection(s) of texts, 1.0 kB.\n")
    assert not texts.exists()
