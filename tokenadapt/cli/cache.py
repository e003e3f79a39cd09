"""`tokenadapt cache`: what is stored of encoders, where, and how to be rid of it."""

from __future__ import annotations

import click

from tokenadapt.cli.session import Session, size, table


@click.group("cache", invoke_without_command=True)
@click.pass_context
def cache(ctx: click.Context) -> None:
    """Show the cached vectors of encoders; `cache clear` deletes them.

    They lie in the user's cache folder, or in $TOKENADAPT_CACHE.
    """
    if ctx.invoked_subcommand is None:
        _show()


def _show() -> None:
    from tokenadapt.spaces.cache import cache_entries, cache_folder

    entries = cache_entries()
    if not entries:
        click.echo(f"The vector cache {cache_folder()} is empty.")
        return
    rows = [
        (entry.folder.name, entry.title, f"{entry.vectors:,}", size(entry.size), entry.details) for entry in entries
    ]
    click.echo(f"Vectors in {cache_folder()}:")
    table("", ("name", "space", "vectors", "size", "made with"), rows, right=(2, 3))
    click.echo(f"{size(sum(entry.size for entry in entries))} in all. Delete with: tokenadapt cache clear [NAME]")


@cache.command("clear")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clear(session: Session, names: tuple[str, ...], yes: bool) -> None:
    """Delete cached vectors: those NAMEd, as `tokenadapt cache` shows them, or all."""
    from tokenadapt.spaces.cache import cache_entries, clear_cache

    entries = [entry for entry in cache_entries() if not names or entry.folder.name in names]
    if entries and not yes:
        total = size(sum(entry.size for entry in entries))
        click.confirm(f"Delete {len(entries)} encoder(s), {total} of vectors?", abort=True)
    gone = clear_cache(names)
    if not session.quiet:
        click.echo(f"Deleted {len(gone)} encoder(s), {size(sum(entry.size for entry in gone))}.")
