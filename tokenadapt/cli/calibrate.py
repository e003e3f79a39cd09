"""`tokenadapt calibrate`: minutes of training on the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tokenadapt.cli.session import Session

if TYPE_CHECKING:
    from tokenadapt.calibration.options import CalibrationOptions
    from tokenadapt.calibration.outcome import Calibrated

TRAIN = ("new", "rows", "rows+norms", "lora", "rows+lora")


def data_options(command: Any) -> Any:
    """Options that say what is read: shared by calibrate and probe."""
    options = (
        click.option("--source", metavar="MODEL", help="Its source.  [default: what transplant.json names]"),
        click.option("-d", "--data", multiple=True, metavar="SPEC", help="Text to learn from; repeatable."),
        click.option("--self-generated", type=int, metavar="TOKENS", help="Or let the source write so many."),
        click.option("--temperature", type=float, help="Of what it writes.  [default: 1]"),
        click.option("--prompts", type=click.Path(dir_okay=False), help="What it goes on from, one a line."),
        click.option("--cover", type=int, metavar="N", help="Find or write N snippets for each new token."),
        click.option("--held-out", multiple=True, metavar="SPEC", help="Text to measure on.  [default: a part]"),
        click.option("--held-out-bytes", type=int, help="How much of it.  [default: 65536]"),
        click.option("--column", help="Column of .jsonl, .parquet and Hub datasets.  [default: text]"),
        click.option("--split", help="Split of a Hub dataset.  [default: train]"),
        click.option("--on-error", type=click.Choice(["fail", "skip"]), help="Bad input: stop, or leave it out."),
        click.option("--sample-bytes", type=int, help="Read a random sample of so many bytes.  [default: 64 MiB]"),
        click.option("--context", type=int, help="Tokens of a stretch that is read at a time.  [default: 256]"),
        click.option("--bos", type=click.Choice(["as-trained", "always", "never"]), help="Begin token before it."),
        click.option("--objective", metavar="NAME=W,...", help="hidden, logits, starts, bytes, attention, text."),
        click.option("--train", type=click.Choice(TRAIN), help="What is trained.  [default: rows]"),
        click.option("--lr", type=float, help="Highest rate.  [default: 0.1 / root of the steps, at most 0.013]"),
        click.option("--step-tokens", type=int, help="Tokens of one step.  [default: 1024]"),
        click.option("--batch-tokens", type=int, help="Tokens read at a time; bounds memory.  [default: 2048]"),
        click.option("--seed", type=int, help="[default: 0]"),
        click.option("--device", metavar="NAME", help="cpu, or a GPU if there is one.  [default: a GPU if any]"),
        click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), help="auto: what is faster here."),
        click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Train the new rows of a transplanted checkpoint for some minutes.")
@click.argument("folder")
@click.option("-o", "--output", required=True, type=click.Path(path_type=str), help="The checkpoint to write.")
@click.option("--config", metavar="FILE", help="A YAML file with these options.")
@data_options
@click.option("--steps", type=int, help="Stop after so many steps; 0: the closed form alone.")
@click.option("--tokens", type=int, help="Stop after so many tokens.  [default: 500000, if no other budget is given]")
@click.option("--minutes", type=float, help="Stop after so many minutes of training.")
@click.option("--optimizer", type=click.Choice(["rows", "adam"]), help="How steps are made.  [default: rows]")
@click.option("--schedule", type=click.Choice(["cosine", "constant"]), help="How the rate falls.  [default: cosine]")
@click.option("--warmup", type=float, help="Share of the budget in which the rate rises.")
@click.option("--clip", type=float, help="Longest gradient.  [default: 1]")
@click.option("--every", type=int, metavar="N", help="Measure on held-out text every N steps.  [default: 50]")
@click.option("--save-every", type=int, metavar="N", help="Save the state every N steps.  [default: as --every]")
@click.option("--patience", type=int, metavar="N", help="Stop when N measurements brought nothing; 0: never.")
@click.option(
    "--closed-form/--no-closed-form", default=None, help="Fit biases and one ridge step first.  [default: on]"
)
@click.option("--lora-rank", type=int, help="Of adapters, with --train lora.  [default: 16]")
@click.option("--merge/--keep-adapter", default=None, help="Merge adapters into the result.  [default: merge]")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run for this output.")
@click.option("--restart", is_flag=True, help="Drop an unfinished run for this output.")
@click.option("--log", type=click.Path(dir_okay=False), help="Add every measurement to this file, a line of JSON each.")
@click.option("--verify", type=click.Choice(["auto", "tables", "files", "full"]), help="How far to check the result.")
@click.option("--strict", is_flag=True, help="Treat warnings of the checks as errors.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists, in one step.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_context
def calibrate(ctx: click.Context, /, config: str | None, as_json: bool, **given: Any) -> None:
    """Train rows of FOLDER, a result of transplant, so that it says what its source model says.

    All rows may change, and nothing else unless --train says so; --train new leaves copied rows as they are. Ctrl-C
    saves; the same command with --resume goes on.
    """
    from tokenadapt.calibration.run import calibrate as run

    session: Session = ctx.obj
    told = run(read_options(ctx, config, given), session.progress())
    if told.rank == 0:
        _show(told, session, as_json)


def read_options(ctx: click.Context, config: str | None, given: dict[str, Any]) -> CalibrationOptions:
    """Command line over recipe over defaults."""
    from tokenadapt.calibration.options import CalibrationOptions
    from tokenadapt.recipe import read_recipe, with_recipe

    said = {name: value for name, value in given.items() if ctx.get_parameter_source(name) != ParameterSource.DEFAULT}
    options = CalibrationOptions(**said)
    return with_recipe(options, read_recipe(config), frozenset(said)) if config else options


def _show(told: Calibrated, session: Session, as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps(told.as_dict(), ensure_ascii=False, indent=1))
        return
    if session.quiet:
        return
    for line in told.lines():
        click.echo(line)
    for warning in told.warnings:
        click.echo(f"Warning: {warning}")
    click.echo(told.verified)
    click.echo(f"Wrote {told.output}.")
