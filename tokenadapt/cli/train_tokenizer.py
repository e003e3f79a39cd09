"""`tokenadapt train-tokenizer`: a target tokenizer from text."""

from __future__ import annotations

from typing import Any

import click

from tokenadapt.cli.corpus_options import cutting_options, reading_options
from tokenadapt.cli.session import Session


@click.command("train-tokenizer")
@click.argument("corpora", nargs=-1, metavar="CORPUS...")
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="Folder to write.")
@click.option("--vocab-size", type=int, default=32_000, show_default=True, help="Tokens, special ones included.")
@click.option("--counts", multiple=True, metavar="FILE", help="Train from counts files instead of a corpus.")
@click.option("--config", metavar="FILE", help="A recipe; what the command line gives wins.")
@click.option(
    "--type", "type", type=click.Choice(["bpe", "unigram", "wordpiece", "sp-bpe", "sp-unigram"]),
    help="Family; bpe and unigram are byte-level.  [default: that of --like, else bpe]",
)  # fmt: skip
@click.option("--extend", metavar="MODEL", help="Keep this tokenizer's vocabulary and continue its merges.")
@click.option(
    "--supertokens", is_flag=False, flag_value="two-stage", metavar="[two-stage|stochastic]",
    help="Tokens of several words: two-stage where no kind is named.",
)  # fmt: skip
@click.option("--transition", type=float, default=0.9, show_default=True, help="Two-stage: share of ordinary tokens.")
@click.option("--max-words", type=int, default=4, show_default=True, help="Two-stage: most words in a token.")
@click.option("--lengths", multiple=True, metavar="LOW-HIGH=SHARE", help="Stochastic: lengths of chunks; repeatable.")
@click.option(
    "--length-unit", type=click.Choice(["characters", "words"]), default="characters", show_default=True,
    help="Stochastic: what lengths count.",
)  # fmt: skip
@click.option("--unbounded", is_flag=True, help="Stochastic: no cuts at line breaks, digits or ': ', as published.")
@click.option("--bos", metavar="TOKEN", help="Begin-of-text token.")
@click.option("--eos", metavar="TOKEN", help="End-of-text token.")
@click.option("--pad", metavar="TOKEN", help="Padding token.")
@click.option("--unk", metavar="TOKEN", help="Unknown token, for families that have one.")
@click.option("--pad-vocab-to-multiple", type=int, default=1, metavar="N", help="Round the vocabulary size up.")
@click.option("--min-frequency", type=int, default=2, show_default=True, help="A merge occurs at least so often.")
@click.option("--holdout-bytes", type=int, default=200_000, show_default=True, help="Text kept for the report.")
@cutting_options
@reading_options
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def train_tokenizer(context: click.Context, /, corpora: tuple[str, ...], config: str | None, **options: Any) -> None:
    """Train a tokenizer on CORPUS (files, folders, globs, - or hf:DATASET, each with =WEIGHT).

    The folder it writes loads with AutoTokenizer and is what `tokenadapt transplant` takes as its target.
    """
    from tokenadapt.cli.tokenizer_report import show_training
    from tokenadapt.recipe import read_recipe, with_recipe
    from tokenadapt.training.options import TrainingOptions
    from tokenadapt.training.train import train_tokenizer as train

    session: Session = context.obj
    as_json = options.pop("as_json")
    recipe = read_recipe(config) if config else {}
    recipe_corpora = recipe.pop("corpora", [])
    given = corpora or (() if options["counts"] else tuple(recipe_corpora))
    source = click.core.ParameterSource.COMMANDLINE
    explicit = frozenset(name for name in options if context.get_parameter_source(name) == source)
    request = with_recipe(TrainingOptions(given, **options), recipe, explicit)
    show_training(train(request, session.progress()), as_json=as_json)
