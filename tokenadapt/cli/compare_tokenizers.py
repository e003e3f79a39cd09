"""`tokenadapt compare-tokenizers`: tokenizers side by side on the same text."""

from __future__ import annotations

from typing import Any

import click

from tokenadapt.cli.corpus_options import reading_options
from tokenadapt.cli.session import Session, table


@click.command("compare-tokenizers")
@click.argument("tokenizers", nargs=-1, required=True, metavar="TOKENIZER...")
@click.option("--text", "texts", multiple=True, required=True, metavar="CORPUS", help="Text to compare on; repeatable.")
@click.option("--label-column", help="Column by which figures are shown, such as a language.")
@click.option("--limit-bytes", type=int, default=1_000_000, show_default=True, help="First bytes of each kind of text.")
@reading_options
@click.option("--trust-remote-code", is_flag=True, help="Allow code from a model repository to run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def compare_tokenizers(
    session: Session, /, tokenizers: tuple[str, ...], texts: tuple[str, ...], **options: Any
) -> None:
    """Compare TOKENIZERs (folders, Hub ids, tokenizer.json, .model) on the same text."""
    import json
    import os

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # speeds are those of one core
    from tokenadapt.cli import tokenizer_report as shown
    from tokenadapt.corpus import CorpusOptions, read_corpus
    from tokenadapt.errors import RequestError
    from tokenadapt.training.compare import Subject, borders, measure, overlap
    from tokenadapt.training.report import sample_line
    from tokenadapt.vocab import load_tokenizer

    as_json, trust = options.pop("as_json"), options.pop("trust_remote_code")
    reading = CorpusOptions(block_bytes=1 << 16, **options)
    documents = [d for d in read_corpus(texts, reading, progress=session.progress()) if d.text]
    if not documents:
        raise RequestError("The text to compare on is empty.", "Name another with --text.")
    names = short_names(tokenizers)
    subjects = [
        Subject.of(load_tokenizer(spec, trust_remote_code=trust), name)
        for spec, name in zip(tokenizers, names, strict=True)
    ]
    figures = [measure(subject, documents).as_dict() for subject in subjects]
    shared = [[overlap(one, other) for other in subjects] for one in subjects]
    line = sample_line([document.text for document in documents])
    samples = {subject.name: borders(subject, line) for subject in subjects}
    if as_json:
        content = {"tokenizers": figures, "shared_byte_strings": shared, "sample": samples}
        click.echo(json.dumps(content, ensure_ascii=False, indent=2))
        return
    shown.show_figures(figures, "All text")
    shown.show_by_label(figures)
    rows = [(subject.name, *(f"{count:,}" for count in row)) for subject, row in zip(subjects, shared, strict=True)]
    table("Byte strings that are tokens of both", ["", *names], rows, right=range(1, len(names) + 1))
    shown.show_samples(samples)


def short_names(specs: tuple[str, ...]) -> list[str]:
    """The last part of each path or id, where that tells them apart."""
    short = [spec.rstrip("/").rsplit("/", 1)[-1] for spec in specs]
    return short if len(set(short)) == len(short) else list(specs)
