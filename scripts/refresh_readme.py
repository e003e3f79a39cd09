"""Rewrite the parts of README.md that the code itself states: commands, methods, and the tree of modules.

.venv/bin/python scripts/refresh_readme.py    # after a command, method or module came, went, or changed its purpose
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
# the order in which data flows
ROOMS = ("cli", "training", "vocab", "spaces", "methods", "checkpoint", "calibration", "evaluation")


def phrase(path: Path) -> str:
    """What a module is for: the first sentence of its docstring."""
    return first_sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").replace("`", "")


def first_sentence(text: str) -> str:
    """On one line, without its full stop."""
    sentence = re.split(r"(?<=\.)(?<!al\.)\s|\n\n", text + "\n\n", maxsplit=1)[0]
    return " ".join(sentence.split()).rstrip(".").replace("|", "\\|")


def branch(folder: Path, depth: int) -> list[str]:
    """Lines for a folder's modules, then for the folders in it."""
    indent = "  " * depth
    init = folder / "__init__.py"
    head = f"{indent}{folder.name}/"
    lines = [f"{head:<28}{phrase(init) if init.exists() else ''}".rstrip()]
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            lines.append(f"{indent + '  ' + path.name:<28}{phrase(path)}".rstrip())
    known = {name: place for place, name in enumerate(ROOMS)}
    inner = [path.parent for path in folder.glob("*/*.py") if path.name == "__init__.py"]
    for path in sorted(inner, key=lambda path: (known.get(path.name, len(known)), path.name)):
        lines += branch(path, depth + 1)
    return lines


def tree() -> str:
    """The package's tree, then the other folders that a reader wants to know."""
    others = (
        "  recipes/                  published settings as YAML, for --config",
        "  pocket/                   the embedded model and its tokenizer",
    )
    return "\n".join([*branch(ROOT / "tokenadapt", 0), *others]) + "\n"


def methods() -> str:
    """The registry as a Markdown table."""
    from tokenadapt.methods.registry import METHODS

    rows = [
        f"| `{method.name}` | {method.summary} | {', '.join(method.needs) or '-'} | {method.citation or '-'} |"
        for method in METHODS.values()
    ]
    return (
        "\n".join(["| method | rows of missing tokens | needs | source |", "| --- | --- | --- | --- |", *rows]) + "\n"
    )


def commands() -> str:
    """Every command with its arguments and the first sentence of its help."""
    import click

    from tokenadapt.cli import COMMANDS, cli

    rows = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
        rows.append(f"| `{' '.join(['tokenadapt', name, *arguments])}` | {first_sentence(command.help or '')}. |")
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows]) + "\n"


def replaced(text: str, name: str, content: str) -> str:
    """The text with what stands between the two comments of that name replaced."""
    begin, end = f"<!-- {name}: written by scripts/refresh_readme.py -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return before + begin + content + end + rest.split(end, maxsplit=1)[1]


def main() -> None:
    text = README.read_text(encoding="utf-8")
    text = replaced(text, "tree", f"```\n{tree()}```\n")
    text = replaced(text, "commands", commands())
    README.write_text(replaced(text, "methods", methods()), encoding="utf-8")


if __name__ == "__main__":
    main()
