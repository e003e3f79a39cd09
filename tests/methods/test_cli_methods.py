import inspect

import pytest
from click.testing import CliRunner

from tokenadapt.cli import cli
from tokenadapt.methods import METHODS
from tokenadapt.methods.options import parameters


def test_the_table_has_every_method_with_its_needs_and_citation():
    shown = CliRunner().invoke(cli, ["methods"])
    assert shown.exit_code == 0
    for method in METHODS.values():
        line = next(line for line in shown.output.splitlines() if line.startswith(f"{method.name} "))
        for word in (*method.needs, method.citation.split(" (")[0]):
            assert word in line


def test_one_method_shows_its_options_with_defaults():
    shown = CliRunner().invoke(cli, ["methods", "hybrid"])
    assert shown.exit_code == 0
    assert "needs vectors of strings (--space)" in shown.output
    rows = {line.split()[0]: line.split()[-1] for line in shown.output.splitlines() if line.strip()}
    assert (rows["tau"], rows["k"], rows["g"], rows["theta"]) == ("0.3", "3", "0.3", "0.0")
    assert "required" in CliRunner().invoke(cli, ["methods", "wechsel"]).output
    assert "takes no options" in CliRunner().invoke(cli, ["methods", "pieces"]).output


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_explained(name):
    function = METHODS[name].load()
    said = inspect.getdoc(function)
    assert [option for option in parameters(function) if f"`{option}`" not in said] == []


def test_an_unknown_name_is_a_wrong_request():
    from tokenadapt.errors import RequestError

    assert isinstance(CliRunner().invoke(cli, ["methods", "nonsense"]).exception, RequestError)
