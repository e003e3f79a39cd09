"""`tokenadapt count`: pre-token counts of a corpus, as a mergeable file."""

from __future__ import annotations

from typing import Any

import click

from tokenadapt.cli.corpus_options import cutting_options, reading_options
from tokenadapt.cli.session import Session


@click.command()
@click.argument("corpora", nargs=-1, required=True, metavar="CORPUS...")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Counts file to write (parquet).")
@click.option("--merge", is_flag=True, help="The inputs are counts files: add them up.")
@click.option("--supertokens", is_flag=True, help="Count stretches, which serve supertokens and ordinary BPE alike.")
@click.option(
    "--type", "type", type=click.Choice(["bpe", "unigram", "wordpiece", "sp-bpe", "sp-unigram"]),
    help="Family that the counts are for.",
)  # fmt: skip
@cutting_options
@reading_options
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.pass_obj
def count(session: Session, /, corpora: tuple[str, ...], **options: Any) -> None:
    """Count the pre-tokens of CORPUS (files, folders, globs, - or hf:DATASET, each with =WEIGHT).

    Train from the file with `tokenadapt train-tokenizer --counts FILE`, as often as you like; count parts of a large
    corpus on several machines and add them up with --merge.
    """
    from pathlib import Path

    from tokenadapt.corpus import CorpusCounts, read_corpus
    from tokenadapt.training.counts import Counts, load_counts, save_counts
    from tokenadapt.training.options import TrainingOptions
    from tokenadapt.training.prepare import prepare

    output, merge = options.pop("output"), options.pop("merge")
    overwrite = options.pop("overwrite")
    read = CorpusCounts()
    if merge:
        counts = load_counts([Path(path) for path in corpora])
    else:
        options["supertokens"] = "two-stage" if options["supertokens"] else None
        request = TrainingOptions(corpora, output, vocab_size=1 << 30, **options)
        counts = Counts(prepare(request).cut)
        counts.add(read_corpus(corpora, request.reading(), counts=read, progress=session.progress()))
    counts = counts.pruned(options["min_count"])
    save_counts(counts, Path(output), overwrite=overwrite)
    click.echo(
        f"{output}: {len(counts.pieces):,} {counts.cut.kind}s, {counts.pieces.total():,} occurrences"
        f" in {counts.bytes:,} bytes of {counts.documents:,} documents"
    )
    for reason, number in read.skipped.items():
        click.echo(f"skipped: {number:,} x {reason}", err=True)
