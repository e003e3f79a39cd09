"""`tokenadapt cache`: what is stored of encoders and of models' own texts, where, and how to be rid of it."""

from __future__ import annotations

from pathlib import Path

import click

from tokenadapt.cli.session import Session, size, table

TEXTS = "texts"


@click.group("cache", invoke_without_command=True)
@click.pass_context
def cache(ctx: click.Context) -> None:
    """Show the cached vectors of encoders and texts that models wrote; `cache clear` deletes them.

    They lie in the user's cache folder, or in $TOKENADAPT_CACHE.
    """
    if ctx.invoked_subcommand is None:
        _show()


def _show() -> None:
    from tokenadapt.spaces.cache import cache_entries, cache_folder, texts_folder

    entries, texts = cache_entries(), _texts()
    if texts:
        held = f"{len(texts)} collection(s) of models' own texts, {size(_size(texts))}"
        click.echo(f"{held}, in {texts_folder()}. Delete with: tokenadapt cache clear texts")
    if not entries:
        click.echo(f"The vector cache {cache_folder()} is empty.")
        return
    rows = [
        (entry.folder.name, entry.title, f"{entry.vectors:,}", size(entry.size), entry.details) for entry in entries
    ]
    click.echo(f"Vectors in {cache_folder()}:")
    table("", ("name", "space", "vectors", "size", "made with"), rows, right=(2, 3))
    click.echo(f"{size(sum(entry.size for entry in entries))} in all. Delete with: tokenadapt cache clear [NAME]")


def _texts() -> list[Path]:
    from tokenadapt.spaces.cache import texts_folder

    return sorted(texts_folder().glob("*.json"))


def _size(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


@cache.command("clear")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clear(session: Session, names: tuple[str, ...], yes: bool) -> None:
    """Delete what is cached: encoders NAMEd as `tokenadapt cache` shows them, models' own `texts`, or all."""
    from tokenadapt.spaces.cache import cache_entries, clear_cache

    texts = _texts() if not names or TEXTS in names else []
    encoders = tuple(name for name in names if name != TEXTS)
    entries = [entry for entry in cache_entries() if not names or entry.folder.name in encoders]
    if (entries or texts) and not yes:
        total = size(sum(entry.size for entry in entries) + _size(texts))
        click.confirm(f"Delete {len(entries)} encoder(s) and {len(texts)} collection(s) of texts, {total}?", abort=True)
    freed = _size(texts)
    gone = clear_cache(encoders) if encoders or not names else []
    for path in texts:
        path.unlink(missing_ok=True)
    if session.quiet:
        return
    click.echo(f"Deleted {len(gone)} encoder(s), {size(sum(entry.size for entry in gone))}.")
    if texts:
        click.echo(f"Deleted {len(texts)} collection(s) of texts, {size(freed)}.")
