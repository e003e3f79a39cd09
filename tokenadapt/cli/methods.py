"""`tokenadapt methods`: what initialisations there are, what they need, and their options."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", required=False)
def methods(name: str | None) -> None:
    """List the methods that make rows of new tokens, or show one method's own options."""
    from tokenadapt.methods.registry import METHODS, NEEDS

    if name is not None:
        _show(name)
        return
    from tokenadapt.cli.session import table

    rows = [(m.name, m.summary, ", ".join(m.needs) or "-", m.citation or "-") for m in METHODS.values()]
    table("", ("method", "what a new row is", "needs", "from"), rows)
    click.echo("\nneeds: " + "; ".join(f"{need} = {words}" for need, words in NEEDS.items()))
    click.echo("`tokenadapt methods NAME` shows a method's options; give them as --method NAME:key=value,key=value")


def _show(name: str) -> None:
    import inspect

    from tokenadapt.cli.session import table
    from tokenadapt.methods.options import parameters
    from tokenadapt.methods.registry import NEEDS, find

    method = find(name)
    function = method.load()
    click.echo(f"{method.name}: {method.summary}")
    if method.citation:
        click.echo(f"from: {method.citation}")
    for need in method.needs:
        click.echo(f"needs {NEEDS[need]}")
    click.echo(f"\n{inspect.getdoc(function)}\n")
    known = parameters(function)
    if known:
        table(
            "",
            ("option", "takes", "default"),
            [(p.name, p.values, "required" if p.required else _default(p.default)) for p in known.values()],
        )
    else:
        click.echo("It takes no options.")


def _default(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
