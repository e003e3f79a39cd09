"""Tokenizer figures as tables and coloured lines for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tokenadapt.cli.session import table

if TYPE_CHECKING:
    from tokenadapt.training.train import Trained

_COLOURS = ("on blue", "on dark_green", "on dark_magenta", "on dark_orange3")


def show_training(trained: Trained, *, as_json: bool) -> None:
    """The report after a training."""
    report = trained.report
    if as_json:
        about = {"output": str(trained.folder), "tokens": trained.made.size, "seconds": trained.seconds}
        click.echo(json.dumps({**about, "notes": trained.made.notes, "report": report}, ensure_ascii=False, indent=2))
        return
    click.echo(f"{trained.folder}: {trained.made.size:,} tokens from {trained.text_bytes:,} bytes of text")
    for note in trained.made.notes:
        click.echo(f"Note: {note}")
    for reason, number in trained.corpus.skipped.items():
        click.echo(f"Skipped: {number:,} x {reason}")
    if report["tokenizers"]:
        show_figures(report["tokenizers"], f"On {report['held_out_bytes']:,} held-out bytes")
        show_samples(report["sample"])
    else:
        click.echo("No text was held out, so there are no figures on unseen text.")
    if report.get("supertokens"):
        rows = [(item["text"], item["occurrences"], item["saved"]) for item in report["supertokens"][:10]]
        table("Supertokens that save most", ["token", "times", "tokens saved"], rows, right=(1, 2))
    for name in ("scripts", "lengths"):
        items = list(report["vocabulary"][name].items())[:8]
        click.echo(f"Vocabulary by {name}: " + ", ".join(f"{key} {count:,}" for key, count in items))


def show_figures(figures: Sequence[Mapping[str, Any]], title: str) -> None:
    """One row a tokenizer, over all text."""
    rows = []
    for item in figures:
        text = item["texts"][-1]
        several = sum(count for words, count in item["words_per_token"].items() if int(words) > 1)
        rows.append(
            (
                item["name"], f"{item['vocabulary']:,}", f"{text['bytes_per_token']:.3f}",
                f"{text['tokens_per_word']:.3f}", f"{item['used_share']:.1%}",
                f"{several / max(1, text['tokens']):.1%}", f"{item['unreachable']:,}", f"{item['unknown_tokens']:,}",
                f"{text['lossless_documents']}/{text['documents']}", f"{item['encode_bytes_per_second'] / 1e6:.1f}",
                f"{item['decode_bytes_per_second'] / 1e6:.1f}",
            )
        )  # fmt: skip
    columns = [
        "tokenizer", "tokens", "bytes/token", "tokens/word", "used", "of several words", "unreachable", "unknown",
        "lossless", "encode MB/s", "decode MB/s",
    ]  # fmt: skip
    table(title, columns, rows, right=range(1, len(columns)))


def show_by_label(figures: Sequence[Mapping[str, Any]]) -> None:
    """Bytes per token, one row a kind of text, one column a tokenizer."""
    rows = []
    for at, text in enumerate(figures[0]["texts"]):
        cells = [item["texts"][at] for item in figures]
        rows.append((text["label"], f"{text['bytes']:,}", *(f"{cell['bytes_per_token']:.3f}" for cell in cells)))
    columns = ["text", "bytes", *(item["name"] for item in figures)]
    table("Bytes per token", columns, rows, right=range(1, len(columns)))


def show_samples(samples: Mapping[str, Sequence[str]]) -> None:
    """A line in the colours of its tokens; with bars between them where there are no colours."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for name, pieces in samples.items():
        line = Text(f"{name} ({len(pieces)}): ")
        for at, piece in enumerate(pieces):
            shown = piece.replace("\n", "⏎").replace("\t", "⇥")
            line.append(shown, style=_COLOURS[at % len(_COLOURS)])
            if not console.is_terminal and at + 1 < len(pieces):
                line.append("|")
        console.print(line)
