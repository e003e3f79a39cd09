"""`tokenadapt probe`: a few steps of training from each of several initialisations."""

from __future__ import annotations

import json
from typing import Any

import click

from tokenadapt.cli.calibrate import data_options, read_options
from tokenadapt.cli.session import Session, table


@click.command(short_help="Train several transplants for some steps on the same data, and rank them.")
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...")
@data_options
@click.option("--steps", type=int, default=50, show_default=True, help="Steps from each.")
@click.option(
    "--closed-form/--no-closed-form", default=None, help="Fit biases and one ridge step first.  [default: on]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def probe(ctx: click.Context, /, folders: tuple[str, ...], steps: int, as_json: bool, **given: Any) -> None:
    """Train each FOLDER, a result of transplant, for a few steps on the same data, and rank them by what it brought.

    What an initialisation scores at first does not foretell where it stands after training. Nothing is written.
    """
    from dataclasses import replace

    from tokenadapt.calibration.probe import probe as run

    session: Session = ctx.obj
    options = replace(
        read_options(ctx, None, {**given, "folder": folders[0], "output": ""}), steps=steps, every=steps or 1
    )
    found = run(folders, options, session.progress())
    if found[0].rank:
        return
    if as_json:
        click.echo(json.dumps([one.as_dict() for one in found], indent=1, ensure_ascii=False))
        return
    rows = [
        (one.name, one.methods, f"{one.before:.4f}", f"{one.after:.4f}", f"{one.excess:+.4f}", f"{one.seconds:.0f} s")
        for one in found
    ]
    title = f"Held-out bits per byte; the source model has {found[0].source:.4f}"
    table(title, ("folder", "method", "before", "after", "excess", "training"), rows, right=(2, 3, 4, 5))
    for one in found:
        if one.why:
            click.echo(f"{one.name}: {one.why}")
