"""`tokenadapt apply-plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tokenadapt.cli.session import Session
from tokenadapt.errors import RequestError
from tokenadapt.recipe import LEVELS


@click.command(short_help="Apply the plan of a transplant to another checkpoint of the same vocabulary.")
@click.argument("plan", type=click.Path(path_type=Path))
@click.argument("model")
@click.argument("output", type=click.Path())
@click.option("--tokenizer", metavar="SPEC", help="The target tokenizer.  [default: the one beside the plan]")
@click.option("--carry-chat", is_flag=True, help="Where the plan was made with it and --tokenizer is given.")
@click.option(
    "--verify",
    type=click.Choice(LEVELS),
    default="auto",
    show_default=True,
    help="How far to check the result.",
)
@click.option("--strict", is_flag=True, help="Treat warnings of the checks as errors.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists, in one step.")
@click.option("--copy", is_flag=True, help="Copy shards that do not change, instead of linking them.")
@click.option("--revision", metavar="REV", help="The model's revision on the Hub.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model. Off unless you say so.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def apply_plan(
    session: Session, /, plan: Path, model: str, output: str, tokenizer: str | None, as_json: bool, **more: Any
) -> None:
    """Give MODEL the tokenizer of PLAN (a folder made by transplant, or its transplant.plan) and write OUTPUT.

    For fine-tunes and other sizes of files with the same source vocabulary: no method is run again.
    """
    from tokenadapt.apply_plan import apply_plan as run
    from tokenadapt.checkpoint.saved_plan import FILE
    from tokenadapt.cli.reports import show_outcome
    from tokenadapt.recipe import TransplantOptions

    beside = plan if plan.is_dir() else plan.parent
    if tokenizer is None and (beside / FILE).is_file() and not (beside / "tokenizer.json").is_file():
        raise RequestError(f"No tokenizer lies beside the plan {plan}.", "Name the target tokenizer with --tokenizer.")
    options = TransplantOptions(model, tokenizer or str(beside), output, **more)
    show_outcome(run(plan, options, session.progress()), session, as_json)
