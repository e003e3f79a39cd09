"""Options that every command reading a corpus shares, so that a flag means the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]

_READING = (
    click.option("--column", default="text", show_default=True, help="Column of .jsonl, .parquet and Hub datasets."),
    click.option("--split", default="train", show_default=True, help="Split of a Hub dataset."),
    click.option(
        "--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
        help="What to do with input that cannot be read; what is skipped is counted.",
    ),
    click.option("--sample-bytes", type=int, help="Random sample of so many bytes, in shares of the weights."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random choices."),
)  # fmt: skip

_CUTTING = (
    click.option("--pre-tokenizer", default="llama3", show_default=True, help="Preset by name, or a regex."),
    click.option("--like", metavar="MODEL", help="Take all but the vocabulary from this tokenizer."),
    click.option("--special", multiple=True, metavar="TOKEN", help="A special token more; repeatable."),
    click.option("--min-count", type=int, default=1, show_default=True, help="Leave out pieces that occur less often."),
    click.option("--revision", help="Revision of a Hub id."),
    click.option("--trust-remote-code", is_flag=True, help="Allow code from a model repository to run."),
)


def reading_options(command: Command) -> Command:
    """How a corpus is read."""
    for option in reversed(_READING):
        command = option(command)
    return command


def cutting_options(command: Command) -> Command:
    """How its text is cut into pieces."""
    for option in reversed(_CUTTING):
        command = option(command)
    return command
