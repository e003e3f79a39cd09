"""`tokenadapt train-tokenizer`: a target tokenizer from text."""

from __future__ import annotations

from typing import Any

import click

from tokenadapt.cli.session import Session


@click.command("train-tokenizer")
@click.argument("corpora", nargs=-1, metavar="CORPUS...")
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder to write.")
@click.option("--vocab-size", required=True, type=int, help="Number of tokens, special ones included.")
@click.option("--pre-tokenizer", default="llama3", show_default=True, help="Preset by name, or a regular expression.")
@click.option("--special", multiple=True, help="A special token more; repeatable.")
@click.option("--pad-vocab-to-multiple", type=int, default=1, help="Round the vocabulary size up to a multiple.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of samples, cuts and held-out lines.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.pass_obj
def train_tokenizer(session: Session, /, corpora: tuple[str, ...], **options: Any) -> None:
    """Train a tokenizer on CORPUS (files, folders, globs, - or hf:DATASET, each with =WEIGHT)."""
    from tokenadapt.training.options import TrainingOptions
    from tokenadapt.training.train import train_tokenizer as train

    trained = train(TrainingOptions(corpora, **options), session.progress())
    click.echo(f"{trained.folder}: {trained.made.size:,} tokens from {trained.corpus.bytes:,} bytes of text")
