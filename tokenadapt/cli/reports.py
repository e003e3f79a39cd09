"""What people see of a transplant: overlap, special tokens, checks."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from tokenadapt.cli.session import Session, duration, size, table

if TYPE_CHECKING:
    from tokenadapt.estimate import Estimate
    from tokenadapt.outcome import Outcome
    from tokenadapt.overlap import Overlap

REASONS = {
    "copied": "copied: the same bytes",
    "special": "copied: the same special role",
    "mapped": "copied: mapped by you",
    "adjusted": "copied and shifted",
    "missing": "missing: a method makes the row",
    "unused": "unused: never reached, never sampled",
}
SHOWN_SPECIALS = 20


def show_overlap(overlap: Overlap, verbose: bool = False) -> None:
    """Counts by reason, and where special tokens take their rows."""
    total = max(1, overlap.target_rows)
    rows = [(REASONS[name], f"{count:,}", f"{count / total:.1%}") for name, count in overlap.counts.items() if count]
    table("", ("target tokens", "rows", "share"), [*rows, ("sum", f"{overlap.target_rows:,}", "")], right=(1, 2))
    click.echo(
        f"Spelled alike: {overlap.spelled_alike:,}; alike as bytes: {overlap.copied:,}. "
        f"Missing tokens have {overlap.pieces_per_token:.2f} old pieces each."
    )
    if overlap.unspellable:
        click.echo(
            f"{overlap.unspellable:,} missing tokens cannot be spelled with old tokens: "
            "they get the mean row, or what --fallback has."
        )
    if overlap.unknown_bytes:
        click.echo(
            f"{overlap.unknown_bytes:,} target tokens stand for bytes that cannot be told; see `tokenadapt explain`."
        )
    shown = overlap.specials if verbose else overlap.specials[:SHOWN_SPECIALS]
    if shown:
        cells = [(token.id, token.token, token.source_token or "-", token.how) for token in shown]
        table("", ("id", "special token", "takes the row of", "because"), cells, right=(0,))
    if len(overlap.specials) > len(shown):
        click.echo(f"... and {len(overlap.specials) - len(shown)} more special tokens; -v shows all.")


def show_dry_run(estimate: Estimate, as_json: bool) -> None:
    """What a transplant would do and take."""
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(estimate), ensure_ascii=False, indent=1))
        return
    show_overlap(estimate.overlap)
    for note in estimate.notes:
        click.echo(f"Note: {note}")
    click.echo(f"Chat: {estimate.template}")
    click.echo(
        f"Tables: {size(estimate.old_table_bytes)} now, {size(estimate.new_table_bytes)} after. "
        f"Needs about {size(estimate.disk_bytes)} of disk, {size(estimate.memory_bytes)} of memory "
        f"and {duration(estimate.seconds)} without verification. Nothing was written."
    )


def show_outcome(outcome: Outcome, session: Session, as_json: bool) -> None:
    """What a transplant did."""
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), ensure_ascii=False, indent=1))
        return
    if session.quiet:
        return
    show_overlap(outcome.overlap, session.verbose)
    for note in outcome.notes:
        click.echo(f"Note: {note}")
    click.echo(f"Chat: {outcome.template}")
    for change in outcome.changes:
        if session.verbose:
            click.echo(f"Config: {change}")
    for warning in outcome.warnings:
        click.echo(f"Warning: {warning}")
    click.echo(outcome.verified)
    click.echo(f"Wrote {outcome.output} in {outcome.seconds:.1f} s.")
    if outcome.pushed:
        click.echo(f"Uploaded to {outcome.pushed}.")
