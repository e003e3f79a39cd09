"""`tokenadapt transplant`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tokenadapt.cli.session import Session
from tokenadapt.recipe import DTYPES, EFFORTS, LEVELS

if TYPE_CHECKING:
    from tokenadapt.recipe import TransplantOptions


@click.command(short_help="Give a pretrained model another tokenizer and write the checkpoint.")
@click.argument("model")
@click.argument("tokenizer")
@click.argument("output", type=click.Path(path_type=str))
@click.option("--config", metavar="FILE|NAME", help="A recipe: a YAML file, or the name of one that ships.")
@click.option("--method", metavar="NAME[:K=V,...]", help="How missing rows are made: see `tokenadapt methods`.")
@click.option("--output-method", metavar="NAME[:K=V,...]", help="Another rule for the output table of an untied model.")
@click.option("--effort", type=click.Choice(EFFORTS), help="How long methods may take that run the source model.")
@click.option("--fallback", metavar="NAME[:K=V,...]", help="For rows that the method leaves empty.  [default: pieces]")
@click.option("--space", metavar="SPEC", help="Vectors for `local` and `global`: self, hf:ID, st:ID, static:PATH.")
@click.option("--calibrate-norm", is_flag=True, help="Scale new rows to the norms of copied rows, per role.")
@click.option("--bias-per-piece", type=float, metavar="B", help="Logits per piece after a token's first, e.g. -2.")
@click.option("--map", multiple=True, metavar="TARGET=TEXT", help="Give a target token an old one's row; repeatable.")
@click.option("--map-file", type=click.Path(), help="Such maps, one a line.")
@click.option("--carry-chat", is_flag=True, help="Add the source's chat markers to the target, with rows.")
@click.option("--untie", is_flag=True, help="Write two tables where the source has one for both roles.")
@click.option("--pad-to-multiple", type=int, metavar="N", help="Round the number of rows up.  [default: 1]")
@click.option("--dtype", type=click.Choice(DTYPES), help="Type of the new tables.  [default: the source's]")
@click.option("--copy", is_flag=True, help="Copy shards that do not change, instead of linking them.")
@click.option("--corpus", multiple=True, metavar="SPEC", help="Text for methods that want some; repeatable.")
@click.option("--donor", metavar="MODEL", help="A model that has the target tokenizer, for methods that want one.")
@click.option("--seed", type=int, help="[default: 0]")
@click.option("--verify", type=click.Choice(LEVELS), help="How far to check the result.")
@click.option("--strict", is_flag=True, help="Treat warnings of the checks as errors.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists, in one step.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, without reading weights or writing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--device", metavar="NAME", help="Where encoders and the source model run.  [default: a GPU if any]")
@click.option("--revision", metavar="REV", help="The model's revision on the Hub.")
@click.option("--tokenizer-revision", metavar="REV", help="The tokenizer's revision on the Hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model. Off unless you say so.")
@click.option("--push-to-hub", metavar="REPO", help="Upload the finished folder, with the stored login.")
@click.option("--public", is_flag=True, help="Make a repository that --push-to-hub creates public.")
@click.pass_context
def transplant(ctx: click.Context, /, config: str | None, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Give MODEL (a folder, a Hub id, or `pocket`) the tokenizer TOKENIZER and write the checkpoint OUTPUT.

    TOKENIZER is a folder, a Hub id, a tokenizer.json or a SentencePiece .model. Tokens that both vocabularies have
    keep their rows; all others get rows from the source model. OUTPUT loads with from_pretrained.
    """
    from tokenadapt.cli.reports import show_dry_run, show_outcome

    options = _options(ctx, config, given)
    session: Session = ctx.obj
    if dry_run:
        from tokenadapt.estimate import estimate

        show_dry_run(estimate(options, session.progress()), as_json)
        return
    from tokenadapt.spaces.ranks import ranks
    from tokenadapt.transplant import share_encoding
    from tokenadapt.transplant import transplant as run

    if ranks().rank:
        share_encoding(options)
        return
    show_outcome(run(options, session.progress()), session, as_json)


def _options(ctx: click.Context, config: str | None, given: dict[str, Any]) -> TransplantOptions:
    """Command line over recipe over defaults."""
    from tokenadapt.recipe import TransplantOptions, read_recipe, with_recipe

    said = {name: value for name, value in given.items() if _was_said(ctx, name)}
    options = TransplantOptions(**said)
    return with_recipe(options, read_recipe(config), frozenset(said)) if config else options


def _was_said(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
