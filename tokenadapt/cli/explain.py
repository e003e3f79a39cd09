"""`tokenadapt explain`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenadapt.cli.session import table

if TYPE_CHECKING:
    from tokenadapt.explain import Contribution

SHOWN = 12  # old tokens of a row: some methods mix hundreds


@click.command(short_help="Show how single rows of a result were made.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("tokens", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
def explain(folder: Path, tokens: tuple[str, ...], as_json: bool, trust_remote_code: bool) -> None:
    """Show how the rows of TOKENS in FOLDER were made.

    A token is a text (with its leading space: " house"), a spelling of the vocabulary (Ġhouse), or an id (#1234).
    """
    from tokenadapt.explain import explain as run

    found = run(folder, tokens, trust_remote_code=trust_remote_code)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], ensure_ascii=False, indent=1))
        return
    for one in found:
        held = f"bytes {one.bytes}" if one.bytes is not None else "holds no text"
        click.echo(f"{one.token!r}, id {one.id}, {held}: {one.how}{f' ({one.note})' if one.note else ''}")
        if one.trained:
            click.echo(f"  trained since by {one.trained}: weights are of the row before, norm and neighbours of now")
        for role in one.roles:
            low, middle, high = role.copied_norms
            click.echo(
                f"  {role.role} row, by {role.made_by}; norm {role.norm:.3g}, "
                f"copied rows {middle:.3g} (from {low:.3g} to {high:.3g})"
            )
            _show_mix(role.contributions)
            near = ", ".join(f"{text!r} {cosine:.3f}" for _, text, cosine in role.nearest)
            click.echo(f"  nearest now: {near}")


def _show_mix(mix: Sequence[Contribution]) -> None:
    """The old tokens of a row with their weights; of many, those that weigh most."""
    shown = mix if len(mix) <= SHOWN else sorted(mix, key=lambda each: -abs(each.weight))[:SHOWN]
    cells = [
        ("" if each.source_id is None else each.source_id, repr(each.token), f"{each.weight:.4g}") for each in shown
    ]
    if cells:
        table("", ("old id", "old token", "weight"), cells, right=(0, 2))
    if len(mix) > len(shown):
        click.echo(f"  ... and {len(mix) - len(shown):,} more old tokens; --json lists all.")
