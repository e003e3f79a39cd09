import pytest

from tokenadapt.errors import RequestError
from tokenadapt.recipe import TransplantOptions, read_recipe, shipped, to_yaml, with_recipe

OPTIONS = TransplantOptions("model", "tokenizer", "out")


def test_the_command_line_wins_over_the_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("method: pieces\npad-to-multiple: 64\nbias-per-piece: -2\nmap: ['<a>=b', '<c>=d']\n")
    options = with_recipe(OPTIONS, read_recipe(str(file)), frozenset({"method"}))
    assert (options.method, options.pad_to_multiple, options.bias_per_piece) == (OPTIONS.method, 64, -2.0)
    assert options.map == ("<a>=b", "<c>=d")


def test_options_survive_yaml(tmp_path):
    options = TransplantOptions("m", "t", "o", method="local:tau=0.6", map=("a=b",), untie=True, seed=3)
    file = tmp_path / "saved.yaml"
    file.write_text(to_yaml(options))
    assert with_recipe(OPTIONS, read_recipe(str(file)), frozenset()) == options


@pytest.mark.parametrize("name", list(shipped()))
def test_every_shipped_recipe_is_accepted(name):
    assert (with_recipe(OPTIONS, read_recipe(name), frozenset()) == OPTIONS) == (name == "default")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metod: pieces", "'metod', which is no option"),
        ("seed: high", "takes a whole number"),
        ("untie: 1", "takes true or false"),
        ("- a\n- b", "holds no settings"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_recipe_says_what_is_wrong(tmp_path, text, said):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(RequestError) as caught:
        with_recipe(OPTIONS, read_recipe(str(file)), frozenset())
    assert said in str(caught.value)
    assert caught.value.hint


def test_an_unknown_recipe_lists_those_that_ship():
    with pytest.raises(RequestError, match="tokenadapt-paper"):
        read_recipe("no-such-recipe")
