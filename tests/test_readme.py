"""README.md names every command, method and module, and nothing that is gone.

Run: scripts/test tests/test_readme.py
"""

import re
from pathlib import Path

import click
import pytest

from tokenadapt.cli import COMMANDS, cli
from tokenadapt.methods.registry import METHODS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFRESH = "run: .venv/bin/python scripts/refresh_readme.py"


def between(name: str) -> str:
    return README.split(f"<!-- {name}:")[1].split(f"<!-- end of {name}")[0]


def test_the_tree_names_every_module_and_no_other():
    modules = [path for path in (ROOT / "tokenadapt").rglob("*.py") if path.name != "__init__.py"]
    there = sorted(path.relative_to(ROOT).as_posix() for path in modules)
    named, folders = [], []
    for line in between("tree").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        word = (line.split() or [""])[0]
        if word.endswith("/"):
            folders = [*folders[:depth], word]
        elif word.endswith(".py"):
            named.append("".join(folders[:depth]) + word)
    assert sorted(named) == there, REFRESH


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    undocumented = [
        parameter.opts
        for parameter in command.params
        if isinstance(parameter, click.Option) and not (parameter.help or parameter.hidden)
    ]
    assert not undocumented
    assert f"`tokenadapt {name}" in README


def test_every_method_stands_in_the_readme():
    assert re.findall(r"^\| `(\w+)` \|", between("methods"), re.MULTILINE) == list(METHODS), REFRESH


def test_every_script_and_file_that_the_readme_names_exists():
    for path in set(re.findall(r"\b(?:scripts|configs|docs)/[\w./-]*\w", README.split("<!-- tree:")[0])):
        assert (ROOT / path).exists(), path


def test_links_inside_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
